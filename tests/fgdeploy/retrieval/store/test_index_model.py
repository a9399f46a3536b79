"""The store against a dictionary, in any order of calls, while segments are written all along."""

from __future__ import annotations

import itertools
import os
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from pytest import MonkeyPatch

from fgdeploy.core.errors import IndexStoreError
from fgdeploy.retrieval import Index, Item
from fgdeploy.retrieval.store import derived, segment, snapshot, verifying, writing
from fgdeploy.retrieval.store.session import Session
from tests.checks import refused
from tests.fgdeploy.retrieval.samples import BITS, MODEL, photo

QUERIES = (0, 3, 0x80000001)
LABELS = (None, "owl", "moth")
FILTERS: dict[str, Callable[[int, Kept], bool]]


class Kept(NamedTuple):
    """What the dictionary holds of an item."""

    code: int
    path: str | None
    label: str | None


FILTERS = {
    "label = 'owl'": lambda number, kept: kept.label == "owl",
    "path is null or id % 2": lambda number, kept: kept.path is None or number % 2 == 1,
    "id between 4 and 9": lambda number, kept: 4 <= number <= 9,
    "label is null and label is not null": lambda number, kept: False,
}


class StoreAgainstDictionary(RuleBasedStateMachine):
    """Any sequence of changes leaves what a dictionary would hold, and searches see just that."""

    names = st.sampled_from(["a", "b", "c", "d's", 'e"', "f蛾"])
    codes = st.integers(0, 7)
    items = st.lists(st.tuples(names, codes, st.sampled_from(LABELS)), max_size=9)
    given = st.lists(
        st.tuples(st.integers(0, 14), codes), max_size=6, unique_by=lambda pair: pair[0]
    )

    @initialize()
    def create(self) -> None:
        self.patch = MonkeyPatch()
        self.patch.setattr(derived, "TAIL_ROWS", 8)
        self.patch.setattr(derived, "MERGE_ROWS", 16)
        self.patch.setattr(writing, "BATCH", 5)
        for module in (segment, derived, snapshot, verifying):
            self.patch.setattr(module, "BLOCK_ROWS", 4)
        self.patch.setattr(os, "fsync", lambda handle: None)  # power stays on
        connect = Session._connect

        def hasty(session: Session) -> sqlite3.Connection:
            connection = connect(session)
            connection.execute("PRAGMA synchronous = OFF")
            return connection

        self.patch.setattr(Session, "_connect", hasty)
        self.folder = tempfile.TemporaryDirectory()
        self.told: list[str] = []
        path = Path(self.folder.name) / "gallery.fgi"
        self.index = Index.create(path, MODEL, BITS, self.told.append)
        self.model: dict[int, Kept] = {}
        self.highest = 0

    def id_of(self, path: str) -> int | None:
        return next((number for number, kept in self.model.items() if kept.path == path), None)

    def fresh(self) -> int:
        self.highest += 1
        return self.highest

    @rule(items=items)
    def add(self, items: list[tuple[str, int, str | None]]) -> None:
        added = self.index.add(
            Item(f"/photos/{name}", code.to_bytes(4, "big"), label) for name, code, label in items
        )
        assert added.total == len(items)
        for name, code, label in items:
            path = f"/photos/{name}"
            known = self.id_of(path)
            self.model[self.fresh() if known is None else known] = Kept(code, path, label)

    @rule(given=given, label=st.sampled_from(LABELS))
    def add_by_id(self, given: list[tuple[int, int]], label: str | None) -> None:
        new = sum(number not in self.model for number, _ in given)
        added = self.index.add(
            Item(None, code.to_bytes(4, "big"), label, id=number) for number, code in given
        )
        assert added.new == new
        for number, code in given:
            path = self.model[number].path if number in self.model else None
            self.model[number] = Kept(code, path, label)
            self.highest = max(self.highest, number)

    @rule(given=given, places=st.lists(st.integers(0, 6), max_size=4))
    def add_with_and_without_ids(self, given: list[tuple[int, int]], places: list[int]) -> None:
        before = len(self.model)
        items = [Item(None, code.to_bytes(4, "big"), id=np.int64(n)) for n, code in given]
        for place in places:
            items.insert(place, Item(None, bytes(4)))
        new = sum(number not in self.model for number, _ in given)
        assert self.index.add(items).new == new + len(places)
        assert len(self.index) == before + new + len(places)  # none took another's id
        for item in items:
            number = int(item.id) if item.id is not None else self.fresh_beside(given)
            path = self.model[number].path if number in self.model else None
            self.model[number] = Kept(item.code[-1], path, None)
            self.highest = max(self.highest, number)

    def fresh_beside(self, given: list[tuple[int, int]]) -> int:
        while self.fresh() in (number for number, _ in given):
            pass
        return self.highest

    @rule(count=st.integers(0, 20), code=codes)
    def add_codes(self, count: int, code: int) -> None:
        codes = np.full((count, 4), 0, np.uint8)
        codes[:, 3] = (code + np.arange(count)) % 8
        assert self.index.add_codes(codes).new == count
        for row in codes:
            self.model[self.fresh()] = Kept(int(row[3]), None, None)

    @rule(items=items)
    def fail_to_add(self, items: list[tuple[str, int, str | None]]) -> None:
        bad = Item("/photos/bad", b"", None, "")
        with refused(IndexStoreError, "expected a code of 4 bytes, got 0"):
            self.index.add([*(photo(name, code) for name, code, _ in items[:4]), bad])

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        held = sorted(self.model)
        gone = data.draw(st.lists(st.sampled_from(held), unique=True) | st.just(held[::2]))
        assert self.index.remove(gone) == len(gone)
        for number in gone:
            del self.model[number]

    @rule()
    def fail_to_remove(self) -> None:
        with refused(IndexStoreError, "nothing was removed"):
            self.index.remove([*self.model, self.highest + 1])

    @rule(label=st.sampled_from(LABELS))
    def relabel(self, label: str | None) -> None:
        labels = {kept.path: label for kept in self.model.values() if kept.path is not None}
        changed = sum(k.path is not None and k.label != label for k in self.model.values())
        assert self.index.relabel(labels) == changed
        for number, kept in self.model.items():
            if kept.path is not None:
                self.model[number] = kept._replace(label=label)

    @rule()
    def compact(self) -> None:
        self.index.compact()
        stats = self.index.stats()
        assert (stats.tail, stats.dead) == (0, 0)
        assert [rows for _, rows, _ in stats.segments] == [len(self.model)][: len(self.model)]

    @rule()
    def verify(self) -> None:
        assert not [found for found in self.index.verify() if found.fatal or found.repaired]

    @rule()
    def reopen(self) -> None:
        self.index.close()
        self.index = Index.open(self.index.path, self.told.append)

    @rule(which=st.integers(0, 2), at=st.integers(0, 5000), data=st.data())
    def damage_a_file(self, which: int, at: int, data: st.DataObject) -> None:
        numbers = [number for number, _, _ in self.index.stats().segments]
        if not numbers:
            return
        path = segment.path_of(self.index.path, numbers[which % len(numbers)])
        self.index.close()
        whole = bytearray(path.read_bytes())
        whole[at % len(whole)] ^= 1
        path.write_bytes(whole)
        self.index = Index.open(self.index.path, self.told.append)

    @invariant()
    def holds_the_same(self) -> None:
        if not hasattr(self, "model"):
            return
        found = {
            item.id: Kept(int.from_bytes(item.code, "big"), item.path, item.label)
            for item in self.index.items()
        }
        assert found == dict(sorted(self.model.items()))
        assert list(found) == sorted(found)
        assert len(self.index) == len(found)

    @rule(
        query=st.sampled_from(QUERIES),
        k=st.sampled_from([1, 2, 5, 100]),
        radius=st.integers(0, 4),
        where=st.sampled_from([None, *FILTERS]),
    )
    def search(self, query: int, k: int, radius: int, where: str | None) -> None:
        code = np.frombuffer(query.to_bytes(4, "big"), np.uint8)
        order = sorted(
            ((kept.code ^ query).bit_count(), number, kept.path, kept.label)
            for number, kept in self.model.items()
            if where is None or FILTERS[where](number, kept)
        )
        hits = self.index.search(code[None], k, where=where)[0]
        assert [(hit.distance, hit.id, hit.path, hit.label) for hit in hits] == order[:k]
        hits = self.index.search_radius(code, radius, where=where)
        near = list(itertools.takewhile(lambda pair: pair[0] <= radius, order))
        assert [(hit.distance, hit.id, hit.path, hit.label) for hit in hits] == near
        ids, _ = self.index.search_ids(code[None], k, where=where)
        assert ids[0].tolist() == [number for _, number, _, _ in order[:k]]

    def teardown(self) -> None:
        if hasattr(self, "index"):
            assert not [problem for problem in self.index.verify() if problem.fatal]
            assert all("made again from the database" in line for line in self.told)
            self.index.close()
            self.folder.cleanup()
            self.patch.undo()


TestStoreAgainstDictionary = StoreAgainstDictionary.TestCase
TestStoreAgainstDictionary.settings = settings(
    derandomize=True, deadline=None, max_examples=25, stateful_step_count=25
)
