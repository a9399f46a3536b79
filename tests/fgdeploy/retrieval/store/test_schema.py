"""Schemas: the way from an index of schema 1, whole or not at all."""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.core.errors import IndexStoreError
from fgdeploy.retrieval import Index, Item
from fgdeploy.retrieval.store import schema, session
from tests.checks import refused
from tests.fgdeploy.retrieval.samples import BITS, MODEL, ZERO, database, raw

# As version 0.1 wrote it.
SCHEMA_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE items (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given twice, also after a removal
    code BLOB NOT NULL,
    crc INTEGER NOT NULL,                  -- CRC-32 of the code
    path TEXT NOT NULL UNIQUE,
    label TEXT,
    sha256 TEXT NOT NULL,                  -- of the photo's bytes
    added TEXT NOT NULL,                   -- UTC, ISO 8601
    extra TEXT                             -- JSON, the user's own
);
"""
TIME = "2026-01-31T12:00:00+00:00"
CODES = np.random.default_rng(1).integers(0, 256, (50, BITS // 8), np.uint8)
OLD = [
    Item(
        f"/photos/{n}'s 蛾.jpg",
        code.tobytes(),
        None if n % 3 else f"label {n % 2}",
        f"{n:064}" if n % 4 else "",
        n + 1,
        TIME,
        '{"n": 1}' if n % 5 == 0 else None,
    )
    for n, code in enumerate(CODES)
]
GONE = (7, 8, 50)  # 50 was the highest


def write_1(path: Path, items: list[Item], gone: tuple[int, ...] = GONE) -> None:
    """Write an index of schema 1."""
    path.mkdir()
    connection = sqlite3.connect(path / "index.sqlite")
    connection.executescript(SCHEMA_1)
    connection.executemany(
        "INSERT INTO meta VALUES (?, ?)",
        [("schema_version", "1"), ("fingerprint", MODEL), ("bits", str(BITS))],
    )
    connection.executemany(
        "INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [(i.id, i.code, zlib.crc32(i.code), i.path, i.label, i.sha256, i.time, i.json)
         for i in items],
    )  # fmt: skip
    connection.executemany("DELETE FROM items WHERE id = ?", [(number,) for number in gone])
    connection.commit()
    connection.close()


@pytest.fixture
def old(path: Path) -> Path:
    write_1(path, OLD)
    return path


def version(path: Path) -> str:
    with raw(path) as connection:
        (found,) = connection.execute(
            "SELECT value FROM meta WHERE key = 'schema_version'"
        ).fetchone()
    return str(found)


def dump(path: Path) -> list[str]:
    with raw(path) as connection:
        return list(connection.iterdump())


def test_an_index_of_schema_1_keeps_all_that_was_in_it(old: Path) -> None:
    kept = [item for item in OLD if item.id not in GONE]
    for _ in range(2):
        with Index.open(old) as index:
            assert (index.fingerprint, index.bits, len(index)) == (MODEL, BITS, len(kept))
            assert list(index.items()) == kept
            assert [problem for problem in index.verify() if problem.fatal] == []
            for code in (*CODES[:5], *ZERO):
                order = sorted(
                    (int(np.unpackbits(np.frombuffer(i.code, np.uint8) ^ code).sum()), i.id)
                    for i in kept
                )
                found = index.search(code[None], 50)[0]
                assert [(hit.distance, hit.id) for hit in found] == order
                assert [(hit.path, hit.label) for hit in found] == [
                    (OLD[number - 1].path, OLD[number - 1].label) for _, number in order
                ]
            where = [hit.id for hit in index.search(ZERO, 50, where="json ->> '$.n' = 1")[0]]
            assert sorted(where) == [item.id for item in kept if item.json]
            assert index.stats().schema_version == 2
    assert version(old) == "2"


def test_ids_that_were_given_before_are_not_given_again(old: Path) -> None:
    with Index.open(old) as index:
        index.add([Item("/new", bytes(4))])
        assert [item.id for item in index.items()][-1] == 51


@pytest.mark.parametrize("gone", [(), tuple(range(1, 51))])
def test_an_index_of_schema_1_that_never_or_no_longer_held_items(
    gone: tuple[int, ...], path: Path
) -> None:
    write_1(path, OLD if gone else [], gone)
    with Index.open(path) as index:
        assert (len(index), list(index.items()), index.search(ZERO)) == (0, [], [[]])
        index.add([Item("/new", bytes(4))])
        assert [item.id for item in index.items()] == [51 if gone else 1]


def test_photos_that_are_there_are_known_after_the_migration(old: Path) -> None:
    with Index.open(old) as index:
        again = [Item(i.path, i.code, i.label, i.sha256, json=i.json) for i in OLD[:6]]
        added = index.add(again)
        assert (added.new, added.changed, added.known) == (0, 0, 6)


def test_the_tables_are_those_of_a_new_index(old: Path, tmp_path: Path) -> None:
    Index.open(old).close()
    Index.create(tmp_path / "new.fgi", MODEL, BITS).close()
    tables = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"
    with raw(old) as one, raw(tmp_path / "new.fgi") as other:
        assert one.execute(tables).fetchall() == other.execute(tables).fetchall()
        assert one.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("damage", ["code = x'00000000'", "crc = crc + 1", "code = 'text'"])
def test_a_damaged_item_stops_the_migration(damage: str, old: Path) -> None:
    with raw(old) as connection:
        connection.execute(f"UPDATE items SET {damage} WHERE id = 30")
    before = dump(old)
    with refused(IndexStoreError, r"is damaged \(item 30: its code is not the one that was added"):
        Index.open(old)
    assert dump(old) == before


def test_a_migration_that_fails_anywhere_leaves_schema_1(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, steps = dump(old), 0
    migrate = schema.migrate

    def failing(connection: sqlite3.Connection) -> None:
        done = 0

        def stop() -> int:
            nonlocal done
            done += 1
            return int(done > steps)

        connection.set_progress_handler(stop, 50)
        try:
            migrate(connection)
        finally:
            connection.set_progress_handler(None, 0)

    monkeypatch.setattr(schema, "migrate", failing)
    while True:
        try:
            index = Index.open(old)
        except IndexStoreError as error:
            assert "interrupted" in str(error)
            assert dump(old) == before
        else:
            break
        steps += 3
    assert steps > 30, "it hardly ever failed, so this test showed little"
    with index:
        assert len(index) == 47


@pytest.mark.parametrize("after", ["rows", "all"])
def test_a_process_killed_while_it_migrates_leaves_schema_1(after: str, old: Path) -> None:
    before = dump(old)
    child = os.fork()
    if child == 0:
        checked = schema._checked_again

        def killed(rows: sqlite3.Cursor) -> Iterator[tuple[object, ...]]:
            yield from checked(rows)
            os._exit(9)

        if after == "rows":
            schema._checked_again = killed
        else:
            schema.MIGRATIONS[2] = lambda connection: os._exit(9)
        try:
            Index.open(old)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert dump(old) == before
    with Index.open(old) as index:
        assert len(index) == 47


def test_an_old_index_that_cannot_be_written_is_told(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = database(old).read_bytes()
    monkeypatch.setattr(os, "access", lambda place, mode: not mode & os.W_OK)
    words = (
        r"has schema version 1, expected 2; open it once where it can be written, which brings it "
        r"up to date$"
    )
    with refused(IndexStoreError, words):
        Index.open(old)
    assert database(old).read_bytes() == before


def test_an_old_index_in_use_is_told(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "LOCK_WAIT_S", 0.02)
    with raw(old) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with refused(IndexStoreError, "another process is writing to it; wait for it to finish$"):
            Index.open(old)
        writer.execute("ROLLBACK")
    with Index.open(old) as index:
        assert len(index) == 47


@pytest.mark.parametrize("later", ["3", "0", "-1", "99"])
def test_a_schema_that_is_not_known_is_told_and_left_alone(later: str, path: Path) -> None:
    Index.create(path, MODEL, BITS).close()
    with raw(path) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", (later,))
    before = database(path).read_bytes()
    words = rf"has schema version {later}, expected 2; use the fgdeploy that wrote it, or build"
    with refused(IndexStoreError, words):
        Index.open(path)
    assert database(path).read_bytes() == before
