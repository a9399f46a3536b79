"""Failures by hand: nearest answers, the order in which they are shown, class pairs."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fgdeploy.evaluation.metrics import ClassScores
from fgdeploy.report.failing import Confusion, Searched, find_failures, worst
from tests.checks import examples


def _scores(**maps: float) -> list[ClassScores]:
    return [ClassScores(name, 1, value, value, value) for name, value in maps.items()]


def test_what_is_wrong_and_in_which_order() -> None:
    codes = np.array([[0], [255], [1], [254]], np.uint8)
    labels = np.array(["a", "b", "a", "c"])
    shelf = Searched(
        np.array([[0], [255], [15]], np.uint8), np.array(["b", "b", "a"]), ["x", "y", None]
    )
    found = find_failures(
        codes, labels, ["0", "1", "2", "3"], shelf, _scores(a=0.5, b=1.0, c=0.1), 10
    )
    assert (found.queries, found.wrong) == (4, 3)
    assert [one.path for one in found.shown] == ["3", "0", "2"]  # c is the worst; then the nearest
    first = found.shown[1].answers
    assert [(one.path, one.distance, one.right) for one in first] == [
        ("x", 0, False),
        (None, 4, True),
        ("y", 8, False),
    ]
    assert found.confusions == (Confusion("a", "b", 2, 2), Confusion("c", "b", 1, 1))
    few = find_failures(codes, labels, ["0"] * 4, shelf, _scores(a=0.5, c=0.1, b=1.0), 1)
    assert [one.label for one in few.shown] == ["c"] and few.wrong == 3


@examples(60)
@given(st.lists(st.integers(0, 7), min_size=2, max_size=30), st.integers(0, 2**32 - 1))
def test_a_photo_is_never_its_own_answer(values: list[int], seed: int) -> None:
    codes = np.array(values, np.uint8)[:, None]
    labels = np.random.default_rng(seed).choice(["a", "b", "c"], len(codes))
    paths = [str(place) for place in range(len(codes))]
    found = find_failures(
        codes, labels, paths, Searched(codes, labels, paths, True), _scores(a=0, b=0, c=0), 99
    )
    wrong = {one.path for one in found.shown}
    for query in range(len(codes)):
        distances = [(bin(values[query] ^ v).count("1"), row) for row, v in enumerate(values)]
        nearest = sorted(one for one in distances if one[1] != query)
        assert (labels[nearest[0][1]] != labels[query]) == (str(query) in wrong)
        for shown in found.shown:
            if shown.path == str(query):
                got = [(one.distance, int(one.path or -1)) for one in shown.answers]
                assert got == nearest[: len(got)]
    assert sum(one.times for one in found.confusions) == found.wrong


def test_worst_first() -> None:
    assert [one.name for one in worst(_scores(b=0.5, a=0.5, c=0.1))] == ["c", "a", "b"]
