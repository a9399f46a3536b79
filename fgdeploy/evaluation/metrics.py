"""Retrieval metrics on packed codes, ranked by (Hamming distance, position in the gallery).

A query with no relevant gallery item scores 0 and stays in the mean, as the papers' code has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import UInt8Array, code_bytes
from fgdeploy.core.errors import DataError
from fgdeploy.core.text import counted
from fgdeploy.evaluation.ranking import ClassIndices, Ranked, rank

Labels = npt.NDArray[np.str_]
RECALL_AT = (1, 2, 4, 8)


@dataclass(frozen=True)
class Scores:
    """Means over the queries, all in 0..1. recall and precision map k to their value at k.

    map: mAP over the whole ranking, equal distances ordered by gallery position. tie_aware_map:
    the mean over all orders of equal distances (McSherry & Najork, ECIR 2008). recall at k: the
    share of queries with a relevant item among the first k.
    """

    queries: int
    gallery: int
    map: float
    tie_aware_map: float
    recall: dict[int, float]
    precision: dict[int, float]
    without_relevant: int


@dataclass(frozen=True)
class Curve:
    """Precision and recall of everything within a Hamming radius, pooled over the queries.

    precision[i]: relevant items within radii[i] among all items within it; recall[i]: among all
    relevant items (0 if there are none). Ends at the number of bits, where recall is 1. Starts at
    the first radius that holds an item: before it precision is 0/0.
    """

    radii: tuple[int, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]


@dataclass(frozen=True)
class ClassScores:
    """Means over the queries of one class, as in `Scores`."""

    name: str
    queries: int
    map: float
    tie_aware_map: float
    recall_at_1: float


@dataclass(frozen=True)
class Detail:
    """The scores, the precision-recall curve, and a row for each class of queries, by name."""

    scores: Scores
    curve: Curve
    classes: tuple[ClassScores, ...]


def evaluate(
    query_codes: UInt8Array,
    query_labels: Labels,
    gallery_codes: UInt8Array,
    gallery_labels: Labels,
    same_set: bool = False,
    precision_at: Sequence[int] = (10,),
) -> Scores:
    """Score queries (Q, bytes) against a gallery (N, bytes); labels are strings (Q,) and (N,).

    same_set: query i is gallery item i, and never its own answer. Raises DataError when either
    side is empty or shapes differ.
    """
    return evaluate_in_detail(
        query_codes, query_labels, gallery_codes, gallery_labels, same_set, precision_at
    ).scores


def mean_average_precision(
    query_codes: UInt8Array,
    query_labels: Labels,
    gallery_codes: UInt8Array,
    gallery_labels: Labels,
    same_set: bool = False,
) -> float:
    """Return mAP over the whole ranking; arguments as in `evaluate`."""
    return evaluate(query_codes, query_labels, gallery_codes, gallery_labels, same_set).map


def evaluate_in_detail(
    query_codes: UInt8Array,
    query_labels: Labels,
    gallery_codes: UInt8Array,
    gallery_labels: Labels,
    same_set: bool = False,
    precision_at: Sequence[int] = (10,),
    bits: int | None = None,
    threads: int | None = None,
    recall_at: Sequence[int] = RECALL_AT,
) -> Detail:
    """Score as `evaluate`, and give the precision-recall curve and each class, from one pass.

    bits: where the curve ends, by default 8 for each byte. threads: by default one for each core,
    up to 8; the result is the same for any number. recall_at: the k of recall.
    """
    _check(query_codes, query_labels, "query")
    _check(gallery_codes, gallery_labels, "gallery")
    _check_pair(query_codes, gallery_codes, same_set)
    cuts = tuple(dict.fromkeys(precision_at))
    for what, ks in (("precision", cuts), ("recall", recall_at)):
        if min(ks, default=1) < 1:
            raise DataError(f"{what} at {min(ks)} has no meaning; give 1 or more")
    bits = _checked_bits(bits, query_codes, gallery_codes)
    classes, of_queries, of_gallery = _encode(query_labels, gallery_labels)
    ranked = rank(query_codes, of_queries, gallery_codes, of_gallery, same_set, cuts, bits, threads)
    return Detail(
        Scores(
            queries=len(query_codes),
            gallery=len(gallery_codes) - int(same_set),
            map=float(ranked.average_precision.mean()),
            tie_aware_map=float(ranked.tie_aware.mean()),
            recall={k: float(_within(ranked, k).mean()) for k in recall_at},
            precision={
                k: float(hits.sum() / (k * len(hits)))
                for k, hits in zip(cuts, ranked.hits.T, strict=True)
            },
            without_relevant=int((ranked.relevant == 0).sum()),
        ),
        _curve(ranked),
        _class_scores(ranked, classes, of_queries),
    )


def _check(codes: UInt8Array, labels: Labels, side: str) -> None:
    if codes.dtype != np.uint8 or codes.ndim != 2:
        raise DataError(
            f"{side} codes: expected packed uint8 (N, bytes), got {codes.dtype} {codes.shape}; "
            "pack them first"
        )
    if labels.shape != (len(codes),):
        raise DataError(
            f"{side} labels: expected one for each of {counted(len(codes), 'code')}, got "
            f"{labels.shape}; "
            "give a label for every code"
        )


def _check_pair(query_codes: UInt8Array, gallery_codes: UInt8Array, same_set: bool) -> None:
    queries, gallery = len(query_codes), len(gallery_codes)
    if queries == 0 or gallery <= int(same_set):
        raise DataError(
            f"nothing to rank: {counted(queries, 'query')} against "
            f"{counted(gallery, 'gallery item')}; add photos"
        )
    if query_codes.shape[1] != gallery_codes.shape[1]:
        raise DataError(
            f"queries have {query_codes.shape[1]} bytes, the gallery {gallery_codes.shape[1]}; "
            "hash both with the same model"
        )
    if same_set and queries != gallery:
        raise DataError(
            f"same_set needs equal sets, got {queries} and {gallery}; give one set twice"
        )


def _checked_bits(bits: int | None, *sides: UInt8Array) -> int:
    """Return the number of bits of the codes, sure that no distance is larger."""
    width = int(sides[0].shape[1])
    if bits is None:
        return 8 * width
    if code_bytes(bits) != width:
        raise DataError(
            f"{bits} bits take {code_bytes(bits)} bytes, the codes have {width}; "
            "give the bits of the model that made them"
        )
    padding = np.uint8((1 << (8 * width - bits)) - 1)
    if any(np.any(codes[:, -1] & padding) for codes in sides):
        raise DataError(
            f"codes of {bits} bits: expected zeros after the last bit, got others; "
            "pack them with fgdeploy.core.codes.pack"
        )
    return bits


def _encode(
    query_labels: Labels, gallery_labels: Labels
) -> tuple[list[str], ClassIndices, ClassIndices]:
    """Return all class names, sorted, and the labels of both sides as small integers."""
    names, index = np.unique(np.concatenate((query_labels, gallery_labels)), return_inverse=True)
    small = index.astype(np.min_scalar_type(len(names)))
    return [str(name) for name in names], small[: len(query_labels)], small[len(query_labels) :]


def _within(ranked: Ranked, k: int) -> npt.NDArray[np.bool_]:
    return (ranked.first > 0) & (ranked.first <= k)


def _curve(ranked: Ranked) -> Curve:
    retrieved, found = np.cumsum(ranked.retrieved), np.cumsum(ranked.found)
    radii = np.flatnonzero(retrieved)
    return Curve(
        tuple(radii.tolist()),
        tuple((found[radii] / retrieved[radii]).tolist()),
        tuple((found[radii] / max(int(found[-1]), 1)).tolist()),
    )


def _class_scores(
    ranked: Ranked, names: Sequence[str], of_queries: ClassIndices
) -> tuple[ClassScores, ...]:
    queries = np.bincount(of_queries, minlength=len(names))
    sums = [
        np.bincount(of_queries, weights=values, minlength=len(names))
        for values in (ranked.average_precision, ranked.tie_aware, _within(ranked, 1))
    ]
    return tuple(
        ClassScores(
            names[index],
            int(queries[index]),
            *(float(total[index] / queries[index]) for total in sums),
        )
        for index in np.flatnonzero(queries).tolist()
    )
