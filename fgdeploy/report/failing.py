"""Where retrieval fails: queries whose nearest answer is of another class; which classes mix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fgdeploy.core.codes import UInt8Array
from fgdeploy.evaluation.metrics import ClassScores, Labels
from fgdeploy.retrieval import search_codes

ANSWERS = 4  # of a query that is shown
_CONFUSIONS = 20


@dataclass(frozen=True)
class Searched:
    """What is searched: codes (N, bytes), labels (N,), and where each photo lies, None if nowhere.

    same_set: query i is item i, and never its own answer.
    """

    codes: UInt8Array
    labels: Labels
    paths: Sequence[str | None]
    same_set: bool = False


@dataclass(frozen=True)
class NearAnswer:
    """One of the nearest items of a query."""

    path: str | None
    label: str
    distance: int
    right: bool


@dataclass(frozen=True)
class Failure:
    """A query whose nearest answer is of another class, with its nearest answers."""

    path: str
    label: str
    answers: tuple[NearAnswer, ...]


@dataclass(frozen=True)
class Confusion:
    """How many of a class's queries have their nearest answer in another class."""

    label: str
    taken_for: str
    times: int
    queries: int


@dataclass(frozen=True)
class Failing:
    """wrong: queries whose nearest answer is of another class, of `queries`.

    shown: some of them, from the class with the lowest mAP on. confusions: the most frequent.
    """

    queries: int
    wrong: int
    shown: tuple[Failure, ...]
    confusions: tuple[Confusion, ...]


def find_failures(
    codes: UInt8Array,
    labels: Labels,
    paths: Sequence[str],
    shelf: Searched,
    classes: Sequence[ClassScores],
    most: int,
) -> Failing:
    """Search queries (Q, bytes) and return what went wrong; at most so many queries are shown.

    classes: scores of the queries' classes, for the order in which they are shown.
    """
    rows, distances = search_codes(codes, shelf.codes, ANSWERS + shelf.same_set)
    if shelf.same_set:
        rows, distances = _without_self(rows, distances)
    nearest = shelf.labels[rows[:, 0]]
    wrong = np.flatnonzero(nearest != labels)
    pairs = Counter((str(labels[query]), str(nearest[query])) for query in wrong)
    counts = Counter(labels.tolist())
    ordered = sorted(pairs.items(), key=lambda one: (-one[1], one[0]))[:_CONFUSIONS]
    return Failing(
        len(codes),
        len(wrong),
        tuple(
            Failure(
                paths[query],
                str(labels[query]),
                tuple(
                    NearAnswer(
                        shelf.paths[row],
                        str(shelf.labels[row]),
                        int(distance),
                        bool(shelf.labels[row] == labels[query]),
                    )
                    for row, distance in zip(rows[query], distances[query], strict=True)
                ),
            )
            for query in _worst_first(wrong, labels, distances, classes)[:most]
        ),
        tuple(Confusion(*pair, times, counts[pair[0]]) for pair, times in ordered),
    )


def _without_self(rows: np.ndarray, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Take query i out of row i; where it is not among them, the last answer goes."""
    own = rows == np.arange(len(rows))[:, None]
    own[~own.any(axis=1), -1] = True
    shape = (len(rows), rows.shape[1] - 1)
    return rows[~own].reshape(shape), distances[~own].reshape(shape)


def _worst_first(
    wrong: np.ndarray, labels: Labels, distances: np.ndarray, classes: Sequence[ClassScores]
) -> list[int]:
    """Return the wrong queries: one of each class, worst class first, then a second of each."""
    order = {one.name: place for place, one in enumerate(worst(classes))}
    by_class: dict[str, list[int]] = {}
    for query in sorted(wrong.tolist(), key=lambda one: (int(distances[one, 0]), one)):
        by_class.setdefault(str(labels[query]), []).append(query)
    turns = [
        (turn, order[name], query)
        for name, queries in by_class.items()
        for turn, query in enumerate(queries)
    ]
    return [query for _, _, query in sorted(turns)]


def worst(classes: Sequence[ClassScores]) -> list[ClassScores]:
    """Return classes by mAP, the lowest first; equal ones by name."""
    return sorted(classes, key=lambda one: (one.map, one.name))
