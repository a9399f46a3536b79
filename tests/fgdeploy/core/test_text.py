"""Texts for people: one line, never too long, without control characters, in the right number."""

from __future__ import annotations

import pytest

from fgdeploy.core.errors import DataError
from fgdeploy.core.text import counted, one_line, plain, plural, shorten


def test_control_characters_are_spelled_out() -> None:
    assert plain("a\x1b[31m\x9b\u202eb ä 日本") == r"a\x1b[31m\x9b\u202eb ä 日本"
    assert plain("\udcff.jpg") == r"\udcff.jpg"  # a name that is not UTF-8


def test_long_texts_keep_their_beginning_and_their_end() -> None:
    assert shorten("x" * 30, 30) == "x" * 30
    text = shorten("--where " + "a" * 160_000 + ": expected SQL", 100)
    assert text.startswith("--where aaa")
    assert text.endswith("aaa: expected SQL")
    assert "... (159,922 characters left out) ..." in text
    assert len(text) < 150


def test_errors_are_one_short_line() -> None:
    text = str(DataError("no photo " + "p/" * 50_000 + "\n\x1b[2J; name another"))
    assert len(text) < 1100
    assert "\n" not in text and "\x1b" not in text
    assert text.startswith("no photo p/p/") and text.endswith("; name another")
    assert one_line("a\n b") == "a b"


@pytest.mark.parametrize(
    ("number", "what", "text"),
    [
        (0, "photo", "0 photos"),
        (1, "photo", "1 photo"),
        (1200, "photo", "1,200 photos"),
        (1, "query", "1 query"),
        (2, "query", "2 queries"),
        (2, "class", "2 classes"),
        (3, "gallery item", "3 gallery items"),
        (2, "place of photos", "2 places of photos"),
    ],
)
def test_numbers_have_the_right_noun(number: int, what: str, text: str) -> None:
    assert counted(number, what) == text


def test_plurals() -> None:
    assert [plural(word) for word in ("index", "copy", "bit")] == ["indexes", "copies", "bits"]
