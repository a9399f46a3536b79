"""A push makes the server equal to the index, whatever came between."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgdeploy.core.errors import IndexStoreError, RemoteError, UsageError
from fgdeploy.remote.push_record import PARTIAL, UPDATING, WHOLE
from fgdeploy.remote.pushing import push, row_of
from fgdeploy.retrieval import Index, Item
from tests.checks import refused
from tests.fgdeploy.remote.conftest import BITS, MODEL, some_items
from tests.fgdeploy.remote.memory_table import MemoryTable


def _same(index: Index, table: MemoryTable) -> bool:
    return table.kept == {row[0]: row for row in map(row_of, index.items())}


def _state(table: MemoryTable) -> str:
    record = table.record()
    assert record is not None
    return record.state


@pytest.mark.parametrize("batch", [1, 7, 100, 1000, None])
@pytest.mark.parametrize("in_flight", [1, 3])
def test_a_push_sends_all(index: Index, batch: int | None, in_flight: int) -> None:
    table, told = MemoryTable(), list[tuple[int, int]]()
    table.in_flight = in_flight
    done = push(index, table, batch=batch, progress=lambda *at: told.append(at))
    assert (done.items, done.sent, done.removed, done.form) == (100, 100, 0, "rows")
    assert _same(index, table) and _state(table) == WHOLE
    assert told[-1] == (100, 100) and told == sorted(told)
    assert max(table.calls) <= (batch or table.batch)


def test_a_second_push_sends_what_changed_and_removes_what_went(index: Index) -> None:
    table = MemoryTable()
    push(index, table)
    index.remove([1, 2, 50, 99, 100])
    index.add([Item("/new.jpg", b"\1\2\x30", "new")])
    index.relabel({"/photos/3/3.jpg": "Adler"})
    table.calls.clear()
    done = push(index, table)
    assert (done.items, done.sent, done.removed) == (96, 2, 5)
    assert sum(table.calls) == 2
    assert _same(index, table)
    again = push(index, table)
    assert (again.sent, again.removed) == (0, 0)


@pytest.mark.parametrize("calls", [0, 1, 3, 6])
def test_a_broken_push_goes_on(index: Index, calls: int) -> None:
    table = MemoryTable()
    table.fail_after = calls
    with refused(RemoteError, "does not answer.*of 100 compared or sent; run it again to go on$"):
        push(index, table)
    assert _state(table) == PARTIAL and len(table) == 16 * calls
    table.fail_after = None
    done = push(index, table)
    assert done.sent == 100 - 16 * calls
    assert _same(index, table) and _state(table) == WHOLE


def test_a_broken_update_is_told_from_a_first_push(index: Index) -> None:
    table = MemoryTable()
    push(index, table)
    index.add(some_items(140)[100:])
    table.fail_after = 8
    with refused(RemoteError, "does not answer"):
        push(index, table)
    assert _state(table) == UPDATING
    table.fail_after = None
    push(index, table)
    assert _same(index, table) and _state(table) == WHOLE


def test_another_index_replaces_only_when_told(index: Index, tmp_path: Path) -> None:
    table = MemoryTable()
    push(index, table)
    with Index.create(tmp_path / "other.fgi", MODEL, BITS) as other:
        other.add(some_items(5))
        with refused(IndexStoreError, "holds another index.*--replace"):
            push(other, table)
        assert _same(index, table) and _state(table) == WHOLE
        push(other, table, replace=True)
        assert _same(other, table)
    with (
        Index.create(tmp_path / "third.fgi", "ef" * 32, BITS) as third,
        refused(IndexStoreError, "codes of model cdcdcdcdcdcd.*these are .*efefefefefef"),
    ):
        push(third, table)
    with (
        Index.create(tmp_path / "wide.fgi", MODEL, 24) as wide,
        refused(IndexStoreError, "holds 20-bit codes.*these are 24-bit"),
    ):
        push(wide, table)


def test_a_text_too_long_is_named_before_it_is_sent(index: Index) -> None:
    table = MemoryTable()
    table.most_text = 100
    index.add([Item(None, b"\1\2\x30", "ü" * 51)])
    with refused(UsageError, "item 101: its label has 102 bytes, memory://here/birds takes 100"):
        push(index, table)
    assert 101 not in table.kept


def test_what_the_server_changed_is_seen(index: Index) -> None:
    class Lossy(MemoryTable):
        def upsert(self, rows):  # type: ignore[no-untyped-def]
            super().upsert(rows[:-1])

    class Changing(MemoryTable):
        def upsert(self, rows):  # type: ignore[no-untyped-def]
            super().upsert([(*row[:3], "other", *row[4:]) for row in rows])

    with refused(RemoteError, "has 93 items after the push, the index 100"):
        push(index, Lossy())
    with refused(RemoteError, "item .* there is not the one that was sent"):
        push(index, Changing())


def test_an_empty_index_is_pushed_too(tmp_path: Path) -> None:
    table = MemoryTable()
    with Index.create(tmp_path / "none.fgi", MODEL, BITS) as none:
        assert push(none, table).items == 0
    assert _state(table) == WHOLE


@pytest.mark.parametrize("batch", [0, -1, 100_001])
def test_a_batch_has_bounds(index: Index, batch: int) -> None:
    with refused(UsageError, "expected 1 to 100,000 items"):
        push(index, MemoryTable(), batch=batch)
