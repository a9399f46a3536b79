"""Damaged databases: found, or told in words, never a wrong answer."""

from __future__ import annotations

import contextlib
import random
import re
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.core.errors import IndexStoreError
from fgdeploy.retrieval import Index, Item, Problem
from tests.checks import refused
from tests.fgdeploy.retrieval.samples import BITS, MODEL, ZERO, database, force, raw, use_all

# Damage


def test_a_clean_index_has_no_problems(index: Index, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").touch()
    index.add(Item(str(tmp_path / f"{n}.jpg"), bytes(4), None, "") for n in range(3))
    assert index.verify() == []


def test_photos_that_are_gone_are_noted_and_nothing_more(three: Index, tmp_path: Path) -> None:
    (tmp_path / "there.jpg").touch()
    three.add([Item(str(tmp_path / "there.jpg"), bytes(4), None, "")])
    assert three.verify() == [Problem("3 photos no longer at the path", fatal=False)]


def test_a_path_too_long_to_look_for(index: Index, tmp_path: Path) -> None:
    index.add([Item(str(tmp_path / ("x" * 300)), bytes(4), None, "")])
    assert [problem.fatal for problem in index.verify()] == [False]


def test_verify_finds_codes_of_another_width(three: Index, path: Path) -> None:
    with raw(path) as connection:
        connection.execute("UPDATE items SET code = x'00' WHERE path = '/photos/b'")
    problems = [problem.what for problem in three.verify() if problem.fatal]
    assert problems == ["item 2: code of 1 bytes, expected 4"]
    with refused(IndexStoreError, r"is damaged \(codes of unequal width\); restore a copy"):
        three.search(ZERO)


@pytest.mark.parametrize(("last", "bad"), [(0b1111_0000, False), (0b1, True), (0b1000, True)])
def test_verify_finds_bits_behind_the_last(last: int, bad: bool, tmp_path: Path) -> None:
    with Index.create(tmp_path / "gallery.fgi", MODEL, 12) as index:
        item = Item(str(tmp_path), bytes([255, last]), None, "")
        if not bad:
            index.add([item])
            assert index.verify() == []
            return
        with refused(IndexStoreError, r"its code has bits set behind bit 12; pack it with"):
            index.add([item])
        with refused(IndexStoreError, r"codes have bits set behind bit 12; pack them with"):
            index.add_codes(np.array([[255, last]], np.uint8))
        assert len(index) == 0


@pytest.mark.parametrize("value", ["'text'", "7", "1.5", "NULL"])
def test_a_code_that_is_no_blob(value: str, three: Index, path: Path) -> None:
    force(path, "code BLOB NOT NULL", f"UPDATE items SET code = {value} WHERE path = '/photos/b'")
    with Index.open(path) as index:
        assert any(problem.fatal for problem in index.verify())
        with refused(IndexStoreError, "is damaged"):
            index.search(ZERO)


@pytest.mark.parametrize("column", ["path", "label"])
def test_text_that_is_not_utf8(column: str, three: Index, path: Path) -> None:
    bad = b"/photos/beautiful/locked\xff".hex()
    with raw(path) as connection:
        connection.execute(f"UPDATE items SET {column} = CAST(x'{bad}' AS TEXT) WHERE id = 2")
    with Index.open(path) as index:
        for use in (lambda: list(index.items()), index.verify):
            with refused(IndexStoreError, "is damaged"):
                use()


def test_a_database_of_garbage(index: Index, path: Path) -> None:
    index.close()
    database(path).write_bytes(random.Random(1).randbytes(20_000))
    words = r"is damaged \(file is not a database\); restore a copy, or build the index again$"
    with refused(IndexStoreError, words):
        Index.open(path)


@pytest.mark.parametrize("kind", ["empty", "foreign"])
def test_a_database_of_something_else(kind: str, path: Path) -> None:
    path.mkdir()
    database(path).touch()
    if kind == "foreign":
        with raw(path) as connection:
            connection.execute("CREATE TABLE birds (name TEXT)")
    with refused(IndexStoreError, "damaged|not an index|not a gallery"):
        Index.open(path)


def filled(path: Path) -> bytes:
    """Make an index of 200 items, the same bytes each time, and return its database."""
    chooser = random.Random(0)
    with Index.create(path, MODEL, BITS) as index:
        index.add(
            Item(
                f"/photos/{n}.jpg",
                chooser.randbytes(4),
                f"label {n % 5}",
                f"{n:064}",
                time="2026-01-31T12:00:00Z",
            )
            for n in range(200)
        )
    return database(path).read_bytes()


def is_found(path: Path) -> bool:
    """Return whether damage is told in words when the index is used, or listed by `verify`."""
    try:
        return bool(use_all(path))
    except IndexStoreError as error:
        words = r"gallery\.fgi is damaged \(.*\); restore a copy, or build the index again$"
        assert re.search(words, str(error))
        return True


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.9, 0.99])
def test_a_truncated_database(share: float, path: Path) -> None:
    whole = filled(path)
    database(path).write_bytes(whole[: int(len(whole) * share)])
    assert is_found(path)


def test_pages_overwritten_by_garbage(path: Path) -> None:
    whole = filled(path)
    for page in range(len(whole) // 4096):
        hurt = bytearray(whole)
        hurt[page * 4096 : (page + 1) * 4096] = random.Random(page).randbytes(4096)
        database(path).write_bytes(hurt)
        with refused(IndexStoreError, r"gallery\.fgi is damaged \(.*\); restore a copy, or build"):
            use_all(path)


def test_a_flipped_bit_that_the_database_notices_is_listed(path: Path) -> None:
    hurt = bytearray(filled(path))
    at = hurt.rindex(b"/photos/17.jpg")  # in the table or the index on paths: they differ now
    hurt[at + 8] ^= 1
    database(path).write_bytes(hurt)
    with Index.open(path) as index:
        problems = [problem.what for problem in index.verify() if problem.fatal]
    assert problems
    assert all(what.startswith("database: ") for what in problems)


def test_a_problem_is_one_line(path: Path) -> None:
    whole, seen = filled(path), []
    for seed in range(300):
        chooser, hurt = random.Random(seed), bytearray(whole)
        hurt[chooser.randrange(4096, len(hurt))] ^= 1 << chooser.randrange(8)
        database(path).write_bytes(hurt)
        with contextlib.suppress(IndexStoreError, TypeError), Index.open(path) as index:
            seen += [problem.what for problem in index.verify()]
    assert seen
    assert not [what for what in seen if "\n" in what]


def test_any_damage_is_told_in_words(path: Path) -> None:
    whole, chooser = filled(path), random.Random(2)
    told = set()
    for _ in range(250):
        hurt = bytearray(whole)
        for _ in range(chooser.choice([1, 4, 40])):
            hurt[chooser.randrange(len(hurt))] = chooser.randrange(256)
        database(path).write_bytes(hurt)
        try:
            use_all(path)
        except IndexStoreError as error:
            assert "\n" not in str(error)
            told.add(str(error))
    assert told


def test_a_flipped_bit_in_a_code_is_found(path: Path) -> None:
    whole = filled(path)
    with Index.open(path) as index:
        code = next(index.items()).code
    hurt = bytearray(whole)
    hurt[hurt.index(code)] ^= 1
    database(path).write_bytes(hurt)
    words = r"damaged \(item 1 is not what was added \(CRC\)\)"
    with Index.open(path) as index:
        with refused(IndexStoreError, words):
            next(index.items())
        with refused(IndexStoreError, words):
            index.get([1])
        with refused(
            IndexStoreError, r"damaged \(the code of item 1 is not the one that was added"
        ):
            index.search(ZERO, 1)
        assert index.verify()[0].what.startswith("item 1: it is not what was added")
