"""The classes that are found worst, with the queries that failed and their nearest wrong answers.

A training leaves them as failures.csv, from which a page can be made without the model.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fgdeploy.core import atomic
from fgdeploy.core.codes import UInt8Array, hamming
from fgdeploy.core.errors import DataError
from fgdeploy.evaluation.metrics import ClassScores, Labels

FAILURES_FILE = "failures.csv"
CLASSES, QUERIES, ANSWERS = 12, 3, 4  # shown at most: classes, queries of each, answers of each
_HEADER = (
    *("protocol", "class", "map", "queries", "taken_for", "times"),
    *("query", "average_precision", "answer", "answer_class", "distance"),
)


@dataclass(frozen=True)
class CodedPhotos:
    """Photos with their codes (N, bytes), labels (N,) and paths."""

    codes: UInt8Array
    labels: Labels
    paths: Sequence[str]


@dataclass(frozen=True)
class WrongAnswer:
    """An item of another class; distance: in bits."""

    path: str
    label: str
    distance: int


@dataclass(frozen=True)
class WorstQuery:
    """A query with the nearest items of other classes, nearest first."""

    path: str
    average_precision: float
    answers: tuple[WrongAnswer, ...]


@dataclass(frozen=True)
class WorstClass:
    """A class by its mAP, with its worst queries.

    taken_for: the class that most of its queries' nearest answers of another class are of; times:
    how many queries have it in front of everything else, their own class too.
    """

    name: str
    map: float
    queries: int
    taken_for: str
    times: int
    shown: tuple[WorstQuery, ...]


def find_worst(
    asking: CodedPhotos, gallery: CodedPhotos | None, classes: Sequence[ClassScores]
) -> list[WorstClass]:
    """Return the classes with the lowest mAP below 1, the worst first, equal ones by name.

    gallery: None is the queries themselves, each never its own answer. classes: scores of them.
    """
    order = sorted((one for one in classes if one.map < 1), key=lambda one: (one.map, one.name))
    return [_worst_class(one, asking, gallery) for one in order[:CLASSES]]


def _worst_class(
    scores: ClassScores, asking: CodedPhotos, gallery: CodedPhotos | None
) -> WorstClass:
    held = asking if gallery is None else gallery
    shown, nearest, first = [], Counter[str](), Counter[str]()
    for query in np.flatnonzero(asking.labels == scores.name).tolist():
        distances = hamming(asking.codes[query : query + 1], held.codes)[0]
        order = np.argsort(distances, kind="stable")  # as the metrics rank: distance, then place
        if gallery is None:
            order = order[order != query]
        right = held.labels[order] == scores.name
        wrong = order[~right][:ANSWERS]
        if len(wrong) == 0:
            continue
        label = str(held.labels[wrong[0]])
        nearest[label] += 1
        first[label] += not right[0]
        answers = tuple(
            WrongAnswer(held.paths[row], str(held.labels[row]), int(distances[row]))
            for row in wrong.tolist()
        )
        shown.append(WorstQuery(asking.paths[query], _average_precision(right), answers))
    shown.sort(key=lambda one: one.average_precision)
    taken_for = min(nearest, key=lambda name: (-first[name], -nearest[name], name), default="")
    return WorstClass(
        scores.name,
        scores.map,
        scores.queries,
        taken_for,
        first[taken_for],
        tuple(shown[:QUERIES]),
    )


def _average_precision(right: np.ndarray) -> float:
    ranks = np.flatnonzero(right) + 1
    return float((np.arange(1, len(ranks) + 1) / ranks).mean()) if len(ranks) else 0.0


def write_failures(target: Path, protocol: str, found: Sequence[WorstClass]) -> None:
    """Write a CSV with one row for each answer of each query of each class, in their order."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    for one in found:
        kind = (protocol, one.name, one.map, one.queries, one.taken_for, one.times)
        for query in one.shown:
            for answer in query.answers:
                told = (query.path, query.average_precision)
                writer.writerow((*kind, *told, answer.path, answer.label, answer.distance))
    atomic.write_text(target, text.getvalue())


def read_failures(path: Path) -> tuple[str, list[WorstClass]]:
    """Return the protocol and the classes that `write_failures` wrote. Raises DataError."""
    protocol, classes = "", dict[str, WorstClass]()
    shown: dict[str, dict[str, WorstQuery]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream):
                answer = WrongAnswer(row["answer"], row["answer_class"], int(row["distance"]))
                name, protocol = row["class"], row["protocol"]
                queries = shown.setdefault(name, {})
                precision = float(row["average_precision"])
                query = queries.get(row["query"], WorstQuery(row["query"], precision, ()))
                queries[row["query"]] = WorstQuery(
                    query.path, query.average_precision, (*query.answers, answer)
                )
                classes[name] = WorstClass(
                    name,
                    float(row["map"]),
                    int(row["queries"]),
                    row["taken_for"],
                    int(row["times"]),
                    tuple(queries.values()),
                )
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(
            f"{path} holds no failures ({error}); train again, or leave the file out"
        ) from None
    return protocol, list(classes.values())
