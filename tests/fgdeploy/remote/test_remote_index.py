"""An index on a server answers as the index that was pushed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fgdeploy.core.errors import IndexStoreError, RemoteError, UsageError
from fgdeploy.gallery.searchable import Searchable
from fgdeploy.remote.push_record import PARTIAL, UPDATING
from fgdeploy.remote.pushing import push
from fgdeploy.remote.remote_index import RemoteIndex
from fgdeploy.retrieval import Index
from tests.checks import refused
from tests.fgdeploy.remote.memory_table import MemoryTable


@pytest.fixture
def table(index: Index) -> MemoryTable:
    made = MemoryTable()
    push(index, made)
    return made


def test_it_answers_as_the_index(index: Index, table: MemoryTable) -> None:
    remote: Searchable = RemoteIndex(table)
    queries = np.frombuffer(b"".join(item.code for item in index.items()), np.uint8).reshape(-1, 3)
    assert remote.search(queries, 9) == index.search(queries, 9)
    assert remote.search(queries[:1], 1000) == index.search(queries[:1], 1000)
    assert remote.search_radius(queries[3], 7) == index.search_radius(queries[3], 7)
    assert remote.search_radius(queries[3], 10**6) == index.search_radius(queries[3], 10**6)
    assert remote.get([7, 3, 7]) == index.get([7, 3, 7])
    paths = ["/photos/1/1.jpg", "/photos/3/3.jpg", "nowhere"]
    assert remote.by_path(paths) == index.by_path(paths)
    assert remote.ids_of_content("1".zfill(64)) == index.ids_of_content("1".zfill(64))
    assert [remote.has_label(name) for name in ("uhu", "UHU", "")] == [True, False, True]
    assert len(remote) == len(index)
    assert remote.search(queries[:0], 3) == []
    assert (remote.bits, remote.fingerprint) == (index.bits, index.fingerprint)


def test_what_it_cannot_do_is_refused(index: Index, table: MemoryTable) -> None:
    remote, code = RemoteIndex(table), np.zeros((1, 3), np.uint8)
    with refused(UsageError, "nothing is re-ranked"):
        remote.search(code, 3, hashes=np.zeros((1, 20), np.float32))
    with refused(UsageError, "k is 0"):
        remote.search(code, 0)
    with refused(UsageError, "queries have 2 bytes, codes 3"):
        remote.search(code[:, :2], 3)
    with refused(UsageError, "radius is -1"):
        remote.search_radius(code[0], -1)
    with refused(IndexStoreError, "memory://here/birds has no items 0, -4, 9000$"):
        remote.get([0, 5, -4, 9000])
    with refused(IndexStoreError, "20-bit codes of model cdcdcdcdcdcd"):
        remote.require("ab" * 32, 20)


def test_nothing_and_half_of_something_are_told_apart(
    table: MemoryTable, caplog: pytest.LogCaptureFixture
) -> None:
    with refused(RemoteError, "nothing is at memory://here/birds; fill it with: fgdeploy index"):
        RemoteIndex(MemoryTable())
    record = table.record()
    assert record is not None
    table.write_record(record.in_state(PARTIAL))
    with refused(RemoteError, "the push to memory://here/birds has not ended"):
        RemoteIndex(table)
    named = MemoryTable()
    named.name = "memory://here/birds?a=1&b=2"
    with refused(RemoteError, r"push gallery.fgi --to 'memory://here/birds\?a=1&b=2'$"):
        RemoteIndex(named)
    table.write_record(record.in_state(UPDATING))
    RemoteIndex(table)
    assert "some items are as they were before" in caplog.text


def test_an_answer_that_does_not_fit_its_item_is_not_given(table: MemoryTable) -> None:
    class Lying(MemoryTable):
        def nearest(self, *arguments):  # type: ignore[no-untyped-def]
            return [
                [(distance + 1, n) for distance, n in one] for one in super().nearest(*arguments)
            ]

    lying = Lying()
    lying.kept, lying.note = table.kept, table.note
    with refused(RemoteError, "items and answers did not fit in 3 attempts"):
        RemoteIndex(lying).search(np.zeros((1, 3), np.uint8), 3)


def test_records_of_others_are_refused(table: MemoryTable) -> None:
    record = table.record()
    assert record is not None
    for note in (
        "{}",
        "no JSON",
        "[1]",
        record.as_text().replace('"bits": 20', '"bits": "20"'),
        record.as_text().replace('"bits": 20', '"bits": 7'),
        dataclasses.replace(record, state="odd").as_text(),
    ):
        table.note = note
        with refused(RemoteError, "what it says of its items is not what index push writes"):
            RemoteIndex(table)
    table.note = dataclasses.replace(record, schema=2).as_text()
    with refused(RemoteError, "pushed by a later fgdeploy .schema 2, this one knows 1"):
        RemoteIndex(table)
