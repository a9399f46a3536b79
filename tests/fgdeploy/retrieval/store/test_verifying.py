"""Verifying: everything that can be wrong is named, and only derived files are touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fgdeploy.core.errors import IndexStoreError
from fgdeploy.retrieval import Index, Item, Problem
from fgdeploy.retrieval.store import derived, verifying
from tests.checks import refused
from tests.fgdeploy.retrieval.samples import BITS, MODEL, ZERO, database, photo, raw

CHANGES = {
    "code = x'00000002'": "it is not what was added (CRC)",
    "code = x'0000'": "code of 2 bytes, expected 4",
    "code = 'text'": "no code or no path",
    "crc = crc + 1": "it is not what was added (CRC)",
    "crc = crc + (1 << 40)": "it is not what was added (CRC)",
    "path = '/photos/other'": "it is not what was added (CRC)",
    "path = NULL": "it is not what was added (CRC)",
    "path = x'00'": "no code or no path",
    "label = 'moth'": "it is not what was added (CRC)",
    "label = NULL": "it is not what was added (CRC)",
    "sha256 = NULL": "it is not what was added (CRC)",
    "sha256 = 'other'": "it is not what was added (CRC)",
    "time = '2026-01-01'": "it is not what was added (CRC)",
    "json = '{}'": "it is not what was added (CRC)",
    "id = 77": "it is not what was added (CRC)",
}


@pytest.fixture(params=[True, False], ids=["segments", "tail"])
def filled(request: pytest.FixtureRequest, path: Path) -> Path:
    with Index.create(path, MODEL, BITS) as index:
        index.add(photo(str(n), n, "owl") for n in range(20))
        if request.param:
            index.compact()
    return path


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_every_changed_field_of_an_item_is_named(change: str, filled: Path) -> None:
    with raw(filled) as connection:
        connection.execute(f"UPDATE items SET {change} WHERE id = 5")
    before = database(filled).read_bytes()
    with Index.open(filled) as index:
        fatal = [problem for problem in index.verify() if problem.fatal]
    number = 77 if change == "id = 77" else 5
    assert Problem(f"item {number}: {CHANGES[change]}") in fatal
    assert database(filled).read_bytes() == before  # nothing is repaired over damage


def test_all_damaged_items_are_named_but_not_all_of_a_thousand(path: Path) -> None:
    with Index.create(path, MODEL, BITS) as index:
        index.add(photo(str(n)) for n in range(150))
        with raw(path) as connection:
            connection.execute("UPDATE items SET label = 'x' WHERE id > 140")
        assert [problem.what.split(":")[0] for problem in index.verify() if problem.fatal] == [
            f"item {number}" for number in range(141, 151)
        ]
        with raw(path) as connection:
            connection.execute("UPDATE items SET label = 'x'")
        assert len(index.verify()) == verifying._MOST_NAMED


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("DELETE FROM items WHERE id = 3", "database: it holds 19 items and says 20"),
        ("UPDATE state SET items = 21", "database: it holds 20 items and says 21"),
        ("UPDATE state SET items = 21", "database: its state was changed (CRC)"),
        ("UPDATE state SET last_id = 9", "database: its state was changed (CRC)"),
    ],
)
def test_a_count_that_is_wrong_is_named(change: str, words: str, filled: Path) -> None:
    with raw(filled) as connection:
        connection.execute(change)
    with Index.open(filled) as index:
        assert Problem(words) in index.verify()


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM segments",
        "DELETE FROM tail",
        "UPDATE segments SET rows = rows + 1",
        "UPDATE segments SET crc = crc + 1",
        "UPDATE segments SET number = number + 1",
        "INSERT INTO segments (number, rows, crc) VALUES (9, 1, 1)",
        "INSERT INTO dead VALUES (3, 9)",
        "INSERT INTO tail VALUES (2, 4)",
        "UPDATE tail SET last = last - 1",
    ],
)
def test_a_wrong_list_of_derived_files_is_mended(change: str, filled: Path) -> None:
    told: list[str] = []
    with raw(filled) as connection:
        changed = connection.execute(change).rowcount
    with Index.open(filled, told.append) as index:
        found = index.verify()
        listed = change.startswith(("INSERT INTO dead", "INSERT INTO tail"))
        harmless = changed == 0 or (listed and not index.stats().segments)
        assert harmless or any(problem.repaired for problem in found)
        assert [problem for problem in found if problem.fatal] == []
        assert not [problem for problem in index.verify() if problem.repaired]
        assert len(index.search_ids(ZERO, 50)[0][0]) == 20


@pytest.mark.parametrize("finder", ["search", "verify"])
def test_dead_and_tail_that_hide_each_other_are_found(finder: str, path: Path) -> None:
    """One item is dead by mistake and another counts twice: the number of items is still right."""
    with Index.create(path, MODEL, BITS) as index:
        index.add(photo(str(n), n) for n in range(20))
        index.compact()
        index.add([photo("3", 77)])  # item 4: dead in the segment, alive in the tail
    with raw(path) as connection:
        connection.execute("UPDATE dead SET id = 9 WHERE id = 4")
    if finder == "verify":
        with Index.open(path) as index:
            assert any(problem.repaired for problem in index.verify())
    told: list[str] = []
    with Index.open(path, told.append) as index:
        assert sorted(index.search_ids(ZERO, 50)[0][0].tolist()) == list(range(1, 21))
    assert len(told) == (0 if finder == "verify" else 1)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE dead SET segment = 'x'",
        "UPDATE dead SET segment = x'00'",
        "UPDATE dead SET segment = 1e300",
        "UPDATE tail SET first = 'x'",
        "UPDATE tail SET last = 2, first = 2 WHERE rowid = 1",
        "UPDATE segments SET crc = 'x'",
        "UPDATE segments SET rows = 0.5",
    ],
)
def test_lists_of_derived_files_that_were_changed_are_made_again(change: str, path: Path) -> None:
    with Index.create(path, MODEL, BITS) as index:
        index.add(photo(str(n), n) for n in range(20))
        index.compact()
        index.add([photo("3", 77), photo("new", 5)])
        index.remove([7])
    with raw(path) as connection:
        connection.execute(change)
    told: list[str] = []
    with Index.open(path, told.append) as index:
        found = index.search_ids(ZERO, 50)[0][0].tolist()
        assert sorted(found) == [n for n in range(1, 22) if n != 7]
        assert [problem for problem in index.verify() if problem.fatal or problem.repaired] == []
    assert told


@pytest.mark.parametrize("value", ["'x'", "1.5", "x'00'", "-1"])
def test_a_checksum_of_another_type_is_told(value: str, filled: Path) -> None:
    for file in filled.glob("*.codes"):
        file.unlink()
    with raw(filled) as connection:
        connection.execute(f"UPDATE items SET crc = {value} WHERE id = 5")
    with Index.open(filled) as index:
        with refused(IndexStoreError, "the code of item 5 is not the one that was added"):
            index.search(ZERO)
        with refused(IndexStoreError, r"item 5 is not what was added \(CRC\)"):
            list(index.items())
        assert [problem for problem in index.verify() if problem.fatal]


@pytest.mark.parametrize("change", ["DELETE FROM state", "UPDATE state SET items = 'x'"])
def test_a_state_that_is_not_whole_is_told(change: str, filled: Path) -> None:
    with raw(filled) as connection:
        connection.execute(change)
    with Index.open(filled) as index:
        for use in (len, Index.verify, Index.compact, lambda index: index.search(ZERO)):
            with refused(IndexStoreError, r"is damaged \(its state is not whole\)"):
                use(index)


def test_progress_is_told(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "BLOCK_ROWS", 6)
    calls: list[tuple[int, int]] = []
    with Index.open(filled) as index:
        index.verify(lambda done, total: calls.append((done, total)))
    assert calls == [(6, 20), (12, 20), (18, 20), (20, 20)]


def test_photos_that_are_gone_and_addresses(index: Index, tmp_path: Path) -> None:
    (tmp_path / "there.jpg").touch()
    index.add(
        [
            Item(str(tmp_path / "there.jpg"), bytes(4)),
            Item(str(tmp_path / "gone.jpg"), bytes(4)),
            Item("https://example.org/photo.jpg", bytes(4)),
            Item("s3://bucket/photo.jpg", bytes(4)),
            Item(None, bytes(4)),
        ]
    )
    assert index.verify() == [Problem("1 photo no longer at the path", fatal=False)]


def test_an_intact_index_is_left_as_it_is(filled: Path) -> None:
    before = {entry.name: entry.read_bytes() for entry in filled.iterdir()}
    with Index.open(filled) as index:
        assert [problem for problem in index.verify() if problem.fatal or problem.repaired] == []
    after = {entry.name: entry.read_bytes() for entry in filled.iterdir()}
    before.pop("write.lock", None)
    after.pop("write.lock", None)
    assert after == before


def test_what_cannot_be_written_is_checked_and_not_repaired(
    filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with raw(filled) as connection:
        connection.execute("INSERT INTO segments (number, rows, crc) VALUES (9, 1, 1)")
    monkeypatch.setattr(os, "access", lambda place, mode: not mode & os.W_OK)
    before = sorted(entry.name for entry in filled.iterdir())
    with Index.open(filled) as index:
        for _ in range(2):
            found = index.verify()
            assert found[0] == Problem("segment-9.codes is missing", fatal=False)
            assert not [problem for problem in found if problem.fatal or problem.repaired]
    assert sorted(entry.name for entry in filled.iterdir()) == before
    assert derived.TAIL_ROWS > 20
