"""Recall by cosine: against a full sort in float64, one pair after the other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdeploy.core.errors import DataError
from fgdeploy.evaluation import CosineScores, cosine_recall, recall_by_cosine
from tests.checks import examples, refused


def plain_ranks(embeddings: np.ndarray, labels: list[str]) -> list[int]:
    """The rank of the first photo of the same class, by (cosine, position), 0 for none."""
    rows = []
    for row in embeddings:
        wide = np.asarray(row, np.float64)
        length = np.sqrt(np.sum(wide * wide))
        rows.append(wide / (length or 1.0))
    ranks = []
    for own, row in enumerate(rows):
        others = [other for other in range(len(rows)) if other != own]
        others.sort(key=lambda other: (-float(np.sum(row * rows[other])), other))
        places = [n for n, other in enumerate(others, 1) if labels[other] == labels[own]]
        ranks.append(places[0] if places else 0)
    return ranks


def plain_scores(embeddings: np.ndarray, labels: list[str]) -> CosineScores:
    ranks = plain_ranks(embeddings, labels)
    recall = {k: sum(0 < rank <= k for rank in ranks) / len(ranks) for k in (1, 2, 4, 8)}
    return CosineScores(len(ranks), recall, ranks.count(0))


def check(embeddings: np.ndarray, labels: list[str]) -> None:
    names = np.array(labels, np.str_)
    rows = cosine_recall.unit(embeddings)
    found = cosine_recall.first_ranks(rows, np.unique(names, return_inverse=True)[1])
    assert found.tolist() == plain_ranks(embeddings, labels)
    scores, expected = recall_by_cosine(embeddings, names), plain_scores(embeddings, labels)
    assert (scores.queries, scores.without_relevant) == (
        expected.queries,
        expected.without_relevant,
    )
    assert scores.recall == pytest.approx(expected.recall, abs=1e-12)


@examples(60)
@given(
    count=st.integers(2, 40),
    width=st.sampled_from([1, 2, 3, 16, 129]),
    classes=st.integers(1, 12),
    kind=st.sampled_from(["random", "duplicates", "signs", "multiples", "zeros"]),
    seed=st.integers(0, 999),
)
def test_ranks_against_a_full_sort(
    count: int, width: int, classes: int, kind: str, seed: int
) -> None:
    """Of each kind: ties of equal rows, of rows that differ in length alone, of everything."""
    chooser = np.random.default_rng(seed)
    rows = chooser.standard_normal((count, width)).astype(np.float32)
    if kind == "duplicates":
        rows = rows[chooser.integers(0, max(count // 4, 1), count)]
    if kind == "signs":
        rows = np.sign(rows)
    if kind == "multiples":
        rows = rows[chooser.integers(0, max(count // 4, 1), count)]
        rows *= 2.0 ** chooser.integers(-3, 4, (count, 1))
    if kind == "zeros":
        rows[chooser.random(count) < 0.7] = 0
    check(rows.astype(np.float32), [f"class {n}" for n in chooser.integers(0, classes, count)])


@pytest.mark.parametrize("cells", [1, 7, 200, 1 << 22])
def test_blocks_change_nothing(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cosine_recall, "_CELLS", cells)
    chooser = np.random.default_rng(0)
    rows = chooser.standard_normal((60, 24)).astype(np.float32)
    rows[::3] = rows[0]  # twenty equal ones, of several classes
    check(rows, [f"class {n % 7}" for n in range(60)])


def test_a_duplicate_of_another_class_stands_by_its_place() -> None:
    rows = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], np.float32)
    for labels, expected in (
        (["a", "b", "a", "b"], [2, 3, 1, 2]),
        (["a", "a", "b", "b"], [1, 1, 3, 3]),
        (["a", "b", "c", "d"], [0, 0, 0, 0]),
    ):
        assert plain_ranks(rows, labels) == expected
        check(rows, labels)


def test_a_photo_is_not_its_own_answer_but_its_copy_is() -> None:
    rows = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], np.float32)
    alone = recall_by_cosine(rows, np.array(["a", "b", "c", "d"]))
    assert alone == CosineScores(4, {1: 0.0, 2: 0.0, 4: 0.0, 8: 0.0}, 4)
    copied = recall_by_cosine(np.repeat(rows, 2, 0), np.repeat(["a", "b", "c", "d"], 2))
    assert copied.recall[1] == 1.0


def test_near_ties_are_told_apart_as_one_by_one() -> None:
    """Rows that a product of matrices, which adds up in another order, takes for equal."""
    chooser = np.random.default_rng(3)
    rows = chooser.standard_normal((1, 384)) + 1e-15 * chooser.standard_normal((80, 384))
    check(rows, [f"class {n % 9}" for n in range(80)])


# What is refused


@pytest.mark.parametrize(
    ("rows", "count", "words"),
    [
        (np.zeros((3, 2), np.int64), 3, r"^embeddings: expected float \(N, D\), got int64 \(3, 2"),
        (np.zeros(3), 3, r"^embeddings: expected float \(N, D\), got float64 \(3,\)"),
        (np.zeros((3, 0)), 3, r"^embeddings: expected float \(N, D\), got float64 \(3, 0\)"),
        (np.zeros((3, 2)), 2, r"^labels: expected one for each of 3 embeddings, got \(2,\); give"),
        (np.zeros((1, 2)), 1, r"^nothing to rank: 1 photo; add photos$"),
        (np.array([[0.0], [np.nan]]), 2, "^embedding 1 has NaN or infinite values; check the"),
        (np.array([[np.inf], [0.0]]), 2, "^embedding 0 has NaN or infinite values; check the"),
    ],
)
def test_what_cannot_be_ranked(rows: np.ndarray, count: int, words: str) -> None:
    with refused(DataError, words):
        recall_by_cosine(rows, np.array(["a"] * count))


def test_recall_at_nothing() -> None:
    with refused(DataError, "^recall at 0 has no meaning; give 1 or more$"):
        recall_by_cosine(np.ones((2, 2)), np.array(["a", "a"]), (1, 0))
