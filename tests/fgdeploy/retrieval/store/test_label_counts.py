"""Labels and their numbers, held to the items."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from fgdeploy.core.errors import IndexStoreError
from fgdeploy.retrieval import Index, Item
from tests.checks import refused

LABELS = ("owl", "jay", "auk", None, "", "Owl", "öwl\u202e")


def test_the_counts_are_those_of_the_items(tmp_path: Path) -> None:
    chooser = np.random.default_rng(0)
    with Index.create(tmp_path / "g.fgi", "ab", 8) as index:
        assert index.labels.counts(9).counts == {}
        index.add([Item(f"a{n}", b"\0", LABELS[chooser.integers(7)]) for n in range(200)])
        expected = Counter(item.label for item in index.items())
        found = index.labels.counts(9)
        assert (found.unlabelled, found.more) == (expected.pop(None), False)
        order = sorted(expected.items(), key=lambda one: (-one[1], str(one[0]).encode()))
        assert list(found.counts.items()) == order
        fewer = index.labels.counts(2)
        assert list(fewer.counts.items()) == order[:2] and fewer.more
        index.relabel({"a0": "new"})
        assert index.labels.counts(9).counts["new"] == 1
        index.remove([item.id or 0 for item in index.items("label = 'new'")])
        assert "new" not in index.labels.counts(9).counts


def test_a_damaged_label_is_not_counted(tmp_path: Path) -> None:
    import sqlite3

    with Index.create(tmp_path / "g.fgi", "ab", 8) as index:
        index.add([Item("a", b"\0", "owl")])
    with sqlite3.connect(tmp_path / "g.fgi" / "index.sqlite") as database:
        database.execute("UPDATE items SET label = 'jay'")
    database.close()
    with Index.open(tmp_path / "g.fgi") as index, refused(IndexStoreError, "item 1"):
        index.labels.counts(9)
