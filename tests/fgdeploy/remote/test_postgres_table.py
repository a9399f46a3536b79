"""An index in PostgreSQL: what is pushed is there once, and answers are the index's own."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.core.errors import IndexStoreError, RemoteError, UsageError
from fgdeploy.gallery.searchable import Searchable
from fgdeploy.remote.adapters import connect, table_at
from fgdeploy.remote.pushing import push, row_of
from fgdeploy.remote.remote_table import RemoteTable
from fgdeploy.retrieval import Index, Item
from tests.checks import refused
from tests.fgdeploy.remote.conftest import MODEL
from tests.fgdeploy.remote.postgres_server import PostgresOfTests

_NUMBERS = itertools.count()


@pytest.fixture
def address(postgres: PostgresOfTests) -> str:
    """Give the address of a table of the test's own."""
    return f"{postgres.address}?table=test_{next(_NUMBERS)}"


@pytest.fixture
def table(address: str) -> Iterator[RemoteTable]:
    with table_at(address) as opened:
        yield opened


def _rows(table: RemoteTable, index: Index) -> bool:
    rows = {row[0]: row for row in map(row_of, index.items())}
    return len(table) == len(rows) and table.rows(sorted(rows)) == rows


def _refuse(
    index: Index, address: str, kind: type[Exception], words: str, replace: bool = False
) -> None:
    with table_at(address) as table, refused(kind, words):
        push(index, table, replace=replace)


@pytest.mark.parametrize("batch", [7, None])
def test_a_push_sends_all_and_a_second_one_what_changed(
    index: Index, table: RemoteTable, batch: int | None
) -> None:
    done = push(index, table, batch=batch)
    assert (done.items, done.sent, done.removed, done.form) == (100, 100, 0, "bit(20)")
    assert _rows(table, index)
    index.remove([1, 2, 50, 99, 100])
    index.add([Item("/new.jpg", b"\1\2\x30", "new")])
    index.relabel({"/photos/3/3.jpg": "Adler"})
    done = push(index, table, batch=batch)
    assert (done.items, done.sent, done.removed) == (96, 2, 5)
    assert _rows(table, index)
    assert push(index, table).sent == 0
    assert push(index, table, replace=True).sent == 96
    assert _rows(table, index)


def test_it_answers_as_the_index(index: Index, address: str) -> None:
    with table_at(address) as table:
        push(index, table)
    remote: Searchable
    with connect(address) as remote:
        queries = np.frombuffer(b"".join(item.code for item in index.items()), np.uint8)
        queries = queries.reshape(-1, 3)
        for k in (1, 9, 100, 1000, 1 << 70):
            assert remote.search(queries, k) == index.search(queries, k)
        for radius in (0, 7, 10**6):
            assert remote.search_radius(queries[3], radius) == index.search_radius(
                queries[3], radius
            )
        spare = np.array([[1, 2, 0x3F]], np.uint8)  # bits behind the last, which no item has
        assert remote.search(spare, 50) == index.search(spare, 50)
        assert remote.search_radius(spare[0], 9) == index.search_radius(spare[0], 9)
        assert remote.search_radius(spare[0], 1) == index.search_radius(spare[0], 1) == []
        for where in ("label LIKE 'UH%' AND id % 2 = 0", "label IS NULL OR path IS NULL", "0"):
            assert remote.search(queries, 5, where=where) == index.search(queries, 5, where=where)
            assert remote.search_radius(queries[0], 9, where=where) == index.search_radius(
                queries[0], 9, where=where
            )
        asked = {"where": "label = :a", "params": {"a": "it's"}}
        assert remote.search(queries, 5, **asked) == index.search(queries, 5, **asked)
        assert remote.get([7, 3, 7]) == index.get([7, 3, 7])
        paths = ["/photos/1/1.jpg", "/photos/3/3.jpg", "nowhere", "a\0b"]
        assert remote.by_path(paths) == index.by_path(paths)
        assert remote.ids_of_content("1".zfill(64)) == index.ids_of_content("1".zfill(64))
        labels = ("uhu", "UHU", "", "back\\slash", "50%_off")
        assert [remote.has_label(x) for x in labels] == [index.has_label(x) for x in labels]
        assert len(remote) == len(index)
        with refused(UsageError, r"strftime\(\) has no equal meaning on PostgreSQL"):
            remote.search(queries, 5, where="strftime('%Y', time) = '2026'")
        with refused(RemoteError, "the name '.udcff' is not UTF-8; rename the file"):
            remote.by_path(["\udcff"])
        with refused(IndexStoreError, "has no items 0, -4, 9000$"):
            remote.get([0, 5, -4, 9000])


@pytest.mark.parametrize("bits", [8, 64, 65, 512])
def test_codes_of_any_width_with_many_ties(address: str, tmp_path: Path, bits: int) -> None:
    random = np.random.default_rng(bits)
    values = np.packbits(random.integers(0, 2, (60, bits), dtype=np.uint8), axis=1)
    codes = values[random.integers(0, 60, 3000)]
    with Index.create(tmp_path / "gallery.fgi", MODEL, bits) as index:
        index.add_codes(codes)
        with table_at(address) as table:
            push(index, table, batch=999)
        with connect(address) as remote:
            queries = np.concatenate([values[:4], np.roll(values[4:6], 1, axis=1)])
            assert remote.search(queries, 60) == index.search(queries, 60)
            every = range(40, 120) if bits == 64 else (50, 51)  # about 50 items have one code
            for k in (*every, 2999, 3000, 3001):
                assert remote.search(queries[:1], k) == index.search(queries[:1], k)
            for radius in range(0, bits, max(1, bits // 5)):
                assert remote.search_radius(queries[4], radius) == index.search_radius(
                    queries[4], radius
                )


@pytest.mark.parametrize("clustered", [False, True])
def test_100000_codes_with_many_ties(address: str, tmp_path: Path, clustered: bool) -> None:
    random = np.random.default_rng(clustered)
    codes = random.integers(0, 256, (100_000, 8), dtype=np.uint8)
    if clustered:
        flips = (random.random((100_000, 64)) < 0.02).astype(np.uint8)
        codes = codes[random.integers(0, 200, 100_000)] ^ np.packbits(flips, axis=1)
    else:
        codes[:, 2:] = 0  # 65,536 values
    with Index.create(tmp_path / "gallery.fgi", MODEL, 64) as index:
        index.add_codes(codes)
        with table_at(address) as table:
            push(index, table)
        with connect(address) as remote:
            queries = codes[:5]
            for k in (10, 700):
                assert remote.search(queries, k) == index.search(queries, k)
            assert remote.search_radius(codes[5], 6) == index.search_radius(codes[5], 6)


def test_text_that_postgresql_does_not_keep_is_refused(index: Index, table: RemoteTable) -> None:
    index.add([Item("/nul.jpg", b"\1\2\x30", "a\0b")])
    with refused(UsageError, "item 101: one of its texts has the character NUL"):
        push(index, table)


def test_another_model_another_index_and_another_table(
    index: Index, address: str, table: RemoteTable, postgres: PostgresOfTests, tmp_path: Path
) -> None:
    import psycopg

    push(index, table)
    with table_at(address) as again, refused(RemoteError, "another push is under way"):
        push(index, again)
    table.close()
    with Index.create(tmp_path / "other.fgi", "ef" * 32, 20) as other:
        _refuse(other, address, IndexStoreError, "codes of model cdcd.*these are 20-bit codes of")
    with Index.create(tmp_path / "wide.fgi", MODEL, 64) as wide:
        _refuse(wide, address, IndexStoreError, "holds 20-bit codes.*these are 64-bit codes")
    with Index.create(tmp_path / "same.fgi", MODEL, 20) as same:
        _refuse(same, address, IndexStoreError, "holds another index than")
    with psycopg.connect(postgres.address, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS invoices (id int)")
    place = f"{postgres.address}?table=invoices"
    for replace in (False, True):
        words = "a table invoices that index push did not make; name another"
        _refuse(index, place, RemoteError, words, replace=replace)


def test_a_table_that_goes_or_changes_while_it_is_open(
    index: Index, address: str, postgres: PostgresOfTests, tmp_path: Path
) -> None:
    import psycopg

    code = np.zeros((1, 3), np.uint8)
    with table_at(address) as table:
        push(index, table)
    name = address.partition("table=")[2]
    with connect(address) as remote, psycopg.connect(postgres.address, autocommit=True) as admin:
        assert len(remote.search(code, 3)[0]) == 3
        with Index.create(tmp_path / "same.fgi", MODEL, 20) as same, table_at(address) as again:
            push(same, again, replace=True)
        with refused(RemoteError, "another index, or none, is there now; open it anew"):
            remote.search(code, 3)
        with table_at(address) as again:
            push(index, again, replace=True)
        with connect(address) as other:
            admin.execute(f"UPDATE {name} SET label = 'forged' WHERE id = 5")
            assert [item.id for item in other.get([4, 6])] == [4, 6]
            with refused(RemoteError, "item 5 is not as it was pushed.*push with --replace"):
                other.get([5])
            admin.execute(f"ALTER TABLE {name} DROP COLUMN label")
            with refused(RemoteError, '"label" does not exist; the table is not as index push'):
                other.get([4])
        admin.execute(f"DROP TABLE {name}")
        with refused(RemoteError, "another index, or none, is there now"):
            remote.search(code, 3)
        with refused(RemoteError, f'"{name}" does not exist; the table has gone; push'):
            remote.get([1])
        with refused(RemoteError, "nothing is at postgresql://.*; fill it with"):
            connect(address)
        with table_at(address) as again:
            assert push(index, again).sent == 100  # the record alone is no index
        admin.execute(f"UPDATE {name}_fgdeploy SET record = 'odd'")
        with refused(RemoteError, "what it says of its items is not what index push writes"):
            connect(address)
        admin.execute(f"DELETE FROM {name}_fgdeploy")
        with refused(RemoteError, "its record is gone"):
            connect(address)


def test_select_alone_is_enough_for_a_search(
    index: Index, address: str, postgres: PostgresOfTests
) -> None:
    import psycopg

    with table_at(address) as table:
        push(index, table)
    name = address.partition("table=")[2]
    reading = address.replace("postgres@", "reader@")
    with psycopg.connect(postgres.address, autocommit=True) as admin:
        admin.execute("DROP ROLE IF EXISTS reader")
        admin.execute("CREATE ROLE reader LOGIN")
        with refused(RemoteError, "permission denied.*a search needs SELECT on both tables"):
            connect(reading)
        admin.execute(f"GRANT SELECT ON {name}, {name}_fgdeploy TO reader")
        code = np.zeros((1, 3), np.uint8)
        with connect(reading) as remote:
            assert remote.search(code, 9) == index.search(code, 9)
        index.add([Item("/new.jpg", b"\1\2\x30", "new")])
        _refuse(index, reading, RemoteError, "permission denied.*a push must own them")
        _refuse(index, f"{reading}_new", RemoteError, "permission denied for schema public")
        admin.execute(f"REVOKE ALL ON {name}, {name}_fgdeploy FROM reader")
        admin.execute("DROP ROLE reader")


def test_a_record_says_what_the_table_holds(index: Index, table: RemoteTable) -> None:
    assert table.record() is None
    push(index, table)
    record = table.record()
    assert record is not None
    assert (record.bits, record.uid, record.items) == (20, index.uid, 100)
    assert record == dataclasses.replace(record, state="whole", form="bit(20)")
