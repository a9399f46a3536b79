"""The store against a dictionary, in any order of calls."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from fgdeploy.errors import IndexStoreError
from fgdeploy.retrieval import Index, Item
from tests.checks import refused
from tests.fgdeploy.retrieval.samples import BITS, MODEL, ZERO, photo

# Everything together, against a dictionary


class StoreAgainstDictionary(RuleBasedStateMachine):
    """Any sequence of changes leaves what a dictionary would hold."""

    names = st.sampled_from(["a", "b", "c", "d's", 'e"', "f蛾"])
    items = st.lists(st.tuples(names, st.integers(0, 7)), max_size=6)

    @initialize()
    def create(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.index = Index.create(Path(self.folder.name) / "gallery.fgi", MODEL, BITS)
        self.model: dict[str, tuple[int, int]] = {}  # path -> (id, code)
        self.highest = 0

    @rule(items=items, reader=st.booleans())
    def add(self, items: list[tuple[str, int]], reader: bool) -> None:
        if reader:
            self.index.search(ZERO, 1)
        assert self.index.add(photo(name, code) for name, code in items) == len(items)
        held = {item.path: item.id for item in self.index.items()}
        for name, code in items:
            path = f"/photos/{name}"
            if path in self.model:
                assert held[path] == self.model[path][0]
            else:
                assert held[path] > self.highest
            self.model[path] = (held[path], code)
        self.highest = max([self.highest, *held.values()])

    @rule(items=items)
    def fail_to_add(self, items: list[tuple[str, int]]) -> None:
        bad = Item("/photos/bad", b"", None, "")
        with refused(IndexStoreError, "expected a code of 4 bytes, got 0"):
            self.index.add([*(photo(name, code) for name, code in items), bad])

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        gone = data.draw(st.lists(st.sampled_from(sorted(self.model)), unique=True))
        assert self.index.remove([self.model[path][0] for path in gone]) == len(gone)
        for path in gone:
            del self.model[path]

    @rule()
    def fail_to_remove(self) -> None:
        ids = [number for number, _ in self.model.values()]
        with refused(IndexStoreError, "nothing was removed"):
            self.index.remove([*ids, self.highest + 1])

    @rule()
    def reopen(self) -> None:
        self.index.close()
        self.index = Index.open(self.index.path)

    @invariant()
    def holds_the_same(self) -> None:
        if not hasattr(self, "model"):
            return
        expected = sorted((number, path, code) for path, (number, code) in self.model.items())
        found = [(i.id, i.path, int.from_bytes(i.code, "big")) for i in self.index.items()]
        assert found == expected
        assert len(self.index) == len(expected)
        near = sorted((bin(code).count("1"), number) for number, _, code in expected)[:3]
        assert [(hit.distance, hit.id) for hit in self.index.search(ZERO, 3)[0]] == near

    def teardown(self) -> None:
        if hasattr(self, "index"):
            assert not [problem for problem in self.index.verify() if problem.fatal]
            self.index.close()
            self.folder.cleanup()


TestStoreAgainstDictionary = StoreAgainstDictionary.TestCase
TestStoreAgainstDictionary.settings = settings(
    derandomize=True, deadline=None, max_examples=25, stateful_step_count=20
)
