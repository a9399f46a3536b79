"""Odd numbers of photos in words; ordinary ones say nothing."""

from __future__ import annotations

import pytest

from fgdeploy.training import data_warnings

_ONE = "one training photo only, so nothing shows how it varies"


def test_ordinary_photos_say_nothing() -> None:
    counts = {"a": 5, "b": 90, "c": 12}
    assert data_warnings.of_counts(counts, {"a": 1, "b": 2, "c": 3}) == []
    assert data_warnings.of_counts(counts, {}) == []
    assert data_warnings.of_copies({}) == data_warnings.of_small([]) == []
    assert data_warnings.of_twins([], 0) == []


@pytest.mark.parametrize(
    ("train", "test", "line"),
    [
        ({"a": 1, "b": 1, "c": 1}, {"a": 2, "b": 2, "c": 1}, f"every class: {_ONE}; add photos"),
        ({"a": 1, "b": 4, "c": 3}, {"a": 1, "b": 1, "c": 1}, f"class a: {_ONE}; add photos"),
        (
            {"a": 1, "b": 1, "c": 3},
            {"c": 1},
            f"classes a, b: {_ONE}, and 2 classes of these cannot be tested; add photos",
        ),
        (
            {"a": 4, "b": 4},
            {"a": 1, "b": 1},
            "two classes alone, a and b: their target codes are opposite in every bit, so a code "
            "tells no more than one bit would; add classes, if you have some",
        ),
        (
            {"a": 4, "b": 4, "c": 4},
            {"a": 1, "b": 1},
            "class c: photos to train on but none to test, so the scores say nothing of it; "
            "add test photos",
        ),
        (
            {"a": 4, "b": 4, "c": 4},
            {"a": 1, "b": 1, "c": 1, "t": 9},
            "class t: photos to test but none to train on; they stay in the evaluation, where they "
            "have no target code and count as 0 against training photos; check the class and "
            "split of each photo",
        ),
        (
            {"a": 4, "b": 80, "c": 4},
            {},
            "class b has 80 training photos and class a 4: classes with few photos are learned "
            "worse than the mean score says; add photos of these (scores by class: per_class.csv)",
        ),
    ],
)
def test_odd_numbers(train: dict[str, int], test: dict[str, int], line: str) -> None:
    assert data_warnings.of_counts(train, test) == [f"warning: {line}"]


def test_one_photo_against_500() -> None:
    lines = data_warnings.of_counts({"rare": 1, "common": 500, "other": 450}, {})
    assert [line.split(":")[1] for line in lines] == [
        " class rare",
        " class common has 500 training photos and class rare 1",
    ]


def test_copies_small_ones_and_twins() -> None:
    assert data_warnings.of_copies({"b": 3, "a": 2}) == [
        "warning: classes a, b: all training photos are copies of one (5 files), so nothing shows "
        "how they vary; add other photos"
    ]
    assert data_warnings.of_small(["p.jpg"]) == [
        "warning: 1 photo of less than 32 pixels on the short side, such as p.jpg: they are scaled "
        "up and show little; give larger ones"
    ]
    (line,) = data_warnings.of_twins([("1.jpg", "a", "2.jpg", "b")], 2)
    assert "2 training photos cannot be told from photos of another class" in line
    assert "1.jpg (a) and 2.jpg (b); one class of each pair may be wrong" in line


def test_many_names_are_cut() -> None:
    assert data_warnings.named(list("abcde")) == "classes a, b, c and 2 more"
