"""Retrieval metrics on packed codes, ranked by (Hamming distance, position in the gallery).

A query with no relevant gallery item scores 0 and stays in the mean, as the papers' code has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fgdeploy.codes import UInt8Array, hamming
from fgdeploy.errors import DataError

Labels = npt.NDArray[np.str_]
RECALL_AT = (1, 2, 4, 8)
_CHUNK_CELLS = 1 << 23  # distances held at once


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
    queries, gallery = len(query_codes), len(gallery_codes)
    _check(query_codes, query_labels, "query")
    _check(gallery_codes, gallery_labels, "gallery")
    if min(precision_at, default=1) < 1:
        raise DataError(f"precision at {min(precision_at)} has no meaning; ask for 1 or more")
    if queries == 0 or gallery <= int(same_set):
        raise DataError(
            f"nothing to rank: {queries} queries against {gallery} gallery items; add photos"
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
    cuts = {"recall": RECALL_AT, "precision": tuple(precision_at)}
    totals = {
        "map": 0.0,
        "tie": 0.0,
        "none": 0.0,
        **{f"{kind}{k}": 0.0 for kind, at in cuts.items() for k in at},
    }
    step = max(1, _CHUNK_CELLS // gallery)
    for start in range(0, queries, step):
        rows = slice(start, start + step)
        distances = hamming(query_codes[rows], gallery_codes)
        relevant = query_labels[rows, None] == gallery_labels[None, :]
        own = np.arange(start, start + len(distances)) if same_set else None
        for name, value in _score_chunk(distances, relevant, own, cuts).items():
            totals[name] += value
    mean = {name: value / queries for name, value in totals.items()}
    return Scores(
        queries=queries,
        gallery=gallery - int(same_set),
        map=mean["map"],
        tie_aware_map=mean["tie"],
        recall={k: mean[f"recall{k}"] for k in RECALL_AT},
        precision={k: mean[f"precision{k}"] for k in cuts["precision"]},
        without_relevant=round(totals["none"]),
    )


def _check(codes: UInt8Array, labels: Labels, side: str) -> None:
    if codes.dtype != np.uint8 or codes.ndim != 2:
        raise DataError(
            f"{side} codes: expected packed uint8 (N, bytes), got {codes.dtype} {codes.shape}; "
            "pack them first"
        )
    if labels.shape != (len(codes),):
        raise DataError(
            f"{side} labels: expected one for each of {len(codes)} codes, got {labels.shape}; "
            "give a label for every code"
        )


def mean_average_precision(
    query_codes: UInt8Array,
    query_labels: Labels,
    gallery_codes: UInt8Array,
    gallery_labels: Labels,
    same_set: bool = False,
) -> float:
    """Return mAP over the whole ranking; arguments as in `evaluate`."""
    return evaluate(query_codes, query_labels, gallery_codes, gallery_labels, same_set).map


def _score_chunk(
    distances: npt.NDArray[np.uint16],
    relevant: npt.NDArray[np.bool_],
    own: npt.NDArray[np.int64] | None,
    cuts: dict[str, tuple[int, ...]],
) -> dict[str, float]:
    order = np.argsort(distances, axis=1, kind="stable")
    if own is not None:  # take each query out of its own ranking
        rows, columns = order.shape
        order = order[order != own[:, None]].reshape(rows, columns - 1)
    hits = np.take_along_axis(relevant, order, axis=1)
    count = hits.shape[1]
    found = np.cumsum(hits, axis=1, dtype=np.int64)
    possible = found[:, -1]
    rank = np.arange(1, count + 1, dtype=np.float64)
    precision = (found / rank * hits).sum(axis=1)
    sums = {"map": float(_per_relevant(precision, possible).sum())}
    sorted_distances = np.take_along_axis(distances, order, axis=1)
    tied = _tie_aware_sum(sorted_distances, found)
    sums["tie"] = float(_per_relevant(tied, possible).sum())
    sums["none"] = float((possible == 0).sum())
    for k in cuts["recall"]:
        sums[f"recall{k}"] = float((found[:, min(k, count) - 1] > 0).sum())
    for k in cuts["precision"]:
        sums[f"precision{k}"] = float(found[:, min(k, count) - 1].sum() / k)
    return sums


def _per_relevant(
    values: npt.NDArray[np.float64], possible: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    return np.asarray(np.where(possible > 0, values / np.maximum(possible, 1), 0.0))


def _tie_aware_sum(
    distances: npt.NDArray[np.uint16], found: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return the expected sum of precisions at relevant items, ties in every order alike.

    In a group of n tied items with r relevant, after N items with R relevant, position i of the
    group is relevant with chance r/n, and then R + (i-1)(r-1)/(n-1) + 1 relevant items stand up to
    it. Summing over i leaves harmonic numbers: sum 1/(N+i) = H(N+n) - H(N).
    """
    queries, count = distances.shape
    harmonic = np.concatenate(([0.0], np.cumsum(1.0 / np.arange(1, count + 1))))
    totals = np.zeros(queries)
    for row in range(queries):
        ends = np.flatnonzero(np.diff(distances[row])) + 1
        ends = np.append(ends, count)
        before = np.concatenate(([0], ends[:-1]))
        until = found[row, ends - 1]
        seen = np.concatenate(([0], until[:-1]))
        size, hits = ends - before, until - seen
        span = harmonic[ends] - harmonic[before]
        slope = np.where(size > 1, (hits - 1) / np.maximum(size - 1, 1), 0.0)
        growth = size - (before + 1) * span  # sum over i of (i-1)/(N+i)
        totals[row] = (hits / size * ((seen + 1) * span + slope * growth)).sum()
    return totals
