"""The definitions, one query at a time, in plain Python and exact fractions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import UInt8Array
from fgdeploy.evaluation import ClassScores, Curve, Scores
from fgdeploy.evaluation.metrics import RECALL_AT

Names = npt.NDArray[np.str_]


def distances_of(query: UInt8Array, gallery: UInt8Array) -> list[int]:
    value = int.from_bytes(query.tobytes(), "big")
    return [bin(value ^ int.from_bytes(code.tobytes(), "big")).count("1") for code in gallery]


def average_precision(relevant: Sequence[bool]) -> Fraction:
    found, total = 0, Fraction(0)
    for rank, hit in enumerate(relevant, start=1):
        if hit:
            found += 1
            total += Fraction(found, rank)
    return total / found if found else Fraction(0)


def groups_of(distances: Sequence[int], relevant: Sequence[bool]) -> list[list[bool]]:
    """Return what is relevant in each group of equal distance, nearest first."""
    pairs = sorted(zip(distances, relevant, strict=True), key=lambda pair: pair[0])
    return [
        [hit for _, hit in members]
        for _, members in itertools.groupby(pairs, key=lambda pair: pair[0])
    ]


def mean_over_all_orders(distances: Sequence[int], relevant: Sequence[bool]) -> float:
    """Return the mean average precision over every order of every group of ties."""
    ways = [itertools.permutations(group) for group in groups_of(distances, relevant)]
    values = [
        average_precision([hit for group in order for hit in group])
        for order in itertools.product(*ways)
    ]
    return float(sum(values) / len(values))


def expected_average_precision(distances: Sequence[int], relevant: Sequence[bool]) -> Fraction:
    """Return the same mean for any size: summed position by position."""
    before = seen = 0
    total = Fraction(0)
    for group in groups_of(distances, relevant):
        size, hits = len(group), sum(group)
        for place in range(1, size + 1):
            others = Fraction((place - 1) * (hits - 1), size - 1) if size > 1 else 0
            total += Fraction(hits, size) * (seen + 1 + others) / (before + place)
        before, seen = before + size, seen + hits
    return total / seen if seen else Fraction(0)


def rankings(
    queries: UInt8Array, query_labels: Names, gallery: UInt8Array, gallery_labels: Names, same: bool
) -> Iterator[tuple[list[int], list[bool]]]:
    """Yield distances and relevance in the order of each query's ranking."""
    for number, (query, label) in enumerate(zip(queries, query_labels, strict=True)):
        distances = distances_of(query, gallery)
        rows = [row for row in range(len(gallery)) if not (same and row == number)]
        rows.sort(key=lambda row: (distances[row], row))
        yield (
            [distances[row] for row in rows],
            [str(gallery_labels[row]) == str(label) for row in rows],
        )


def _mean(values: Sequence[Fraction | int]) -> float:
    return float(Fraction(sum(values)) / len(values))


def reference(
    queries: UInt8Array,
    query_labels: Names,
    gallery: UInt8Array,
    gallery_labels: Names,
    same_set: bool,
    cuts: Sequence[int],
) -> Scores:
    ranked = list(rankings(queries, query_labels, gallery, gallery_labels, same_set))
    return Scores(
        queries=len(queries),
        gallery=len(gallery) - same_set,
        map=_mean([average_precision(relevant) for _, relevant in ranked]),
        tie_aware_map=_mean([expected_average_precision(*each) for each in ranked]),
        recall={k: _mean([any(relevant[:k]) for _, relevant in ranked]) for k in RECALL_AT},
        precision={
            k: _mean([Fraction(sum(relevant[:k]), k) for _, relevant in ranked]) for k in cuts
        },
        without_relevant=sum(not any(relevant) for _, relevant in ranked),
    )


def reference_curve(
    queries: UInt8Array,
    query_labels: Names,
    gallery: UInt8Array,
    gallery_labels: Names,
    same_set: bool,
    bits: int,
) -> Curve:
    pairs = [
        pair
        for ranked in rankings(queries, query_labels, gallery, gallery_labels, same_set)
        for pair in zip(*ranked, strict=True)
    ]
    relevant = sum(hit for _, hit in pairs)
    points = []
    for radius in range(bits + 1):
        within = [hit for distance, hit in pairs if distance <= radius]
        if within:
            points.append((radius, sum(within) / len(within), sum(within) / max(relevant, 1)))
    radii, precision, recall = zip(*points, strict=True)
    return Curve(radii, precision, recall)


def reference_classes(
    queries: UInt8Array,
    query_labels: Names,
    gallery: UInt8Array,
    gallery_labels: Names,
    same_set: bool,
) -> list[ClassScores]:
    ranked = list(rankings(queries, query_labels, gallery, gallery_labels, same_set))
    rows = []
    for name in sorted({str(label) for label in query_labels}):
        own = [ranked[n] for n, label in enumerate(query_labels) if str(label) == name]
        rows.append(
            ClassScores(
                name,
                len(own),
                _mean([average_precision(relevant) for _, relevant in own]),
                _mean([expected_average_precision(*each) for each in own]),
                _mean([relevant[0] for _, relevant in own]),
            )
        )
    assert math.isclose(sum(row.queries for row in rows), len(queries))
    return rows
