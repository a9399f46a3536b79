"""Embeddings in an index: whatever is added, replaced, removed and compacted, the right rows."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.core.errors import IndexStoreError, UsageError
from fgdeploy.retrieval import Index, Item
from fgdeploy.retrieval.store import embeddings as module
from fgdeploy.retrieval.store import writing
from tests.checks import refused
from tests.fgdeploy.retrieval.embedded import (
    WIDTH,
    add_embedded,
    answers_without,
    embedded_item,
    files_in,
    kept_rows,
    ranks_right,
    row_of,
)
from tests.fgdeploy.retrieval.samples import MODEL, ZERO

KINDS = ["float", "int8"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(2))
def test_any_order_of_changes(
    kind: str, seed: int, index: Index, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held to a dictionary of what each path's photo is embedded as."""
    monkeypatch.setattr(writing, "BATCH", 7)
    monkeypatch.setattr(module, "MERGE_ROWS", 20)
    chooser = np.random.default_rng(seed)
    rows: dict[str, np.ndarray] = {}
    index.embeddings.keep(kind, WIDTH)
    fresh = itertools.count()
    for _ in range(24):
        step = chooser.choice(["add", "replace", "remove", "compact", "relabel"], p=_CHANCES)
        there = [int(name.rpartition("/")[2]) for name in rows]
        some = chooser.permutation(there)[:6].tolist()
        if step == "add":
            numbers = [next(fresh) for _ in range(chooser.integers(1, 18))]
            add_embedded(index, numbers)
            rows |= {f"kept://{number}": row_of(number) for number in numbers}
        elif step == "replace" and some:
            version = int(chooser.integers(1, 99))
            add_embedded(index, some, version)
            rows |= {f"kept://{number}": row_of(number, version) for number in some}
        elif step == "remove" and some:
            paths = [f"kept://{number}" for number in some]
            index.remove([item.id for item in index.by_path(paths).values()])
            for name in paths:
                del rows[name]
        elif step == "relabel" and some:
            index.relabel({f"kept://{number}": "moth" for number in some})
        elif step == "compact":
            index.compact()
            assert len(files_in(path)) <= 1
            stats = index.stats().embeddings
            assert stats is not None
            assert sum(rows_ for _, rows_, _ in stats.files) == len(rows)
    ranks_right(index, rows)
    assert index.verify() == []
    with Index.open(path) as again:
        ranks_right(again, rows)
        items = list(again.items())
        assert again.embeddings.has(items).all()
        listed = again.stats().embeddings
        assert listed is not None
        assert [f"embeddings-{n}.rows" for n, _, _ in listed.files] == sorted(
            files_in(path), key=lambda name: int(name[11:-5])
        )


_CHANCES = [0.4, 0.2, 0.15, 0.1, 0.15]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_come_back_as_they_are_kept(kind: str, index: Index) -> None:
    index.embeddings.keep(kind, WIDTH)
    add_embedded(index, range(9))
    rows = {f"kept://{number}": row_of(number) for number in range(9)}
    items = list(index.items())
    with index._session.reading() as connection:
        shelf = index.embeddings.shelf(connection)
        found = shelf.wide(shelf.find(np.arange(1, 10), module.seals_of(items)))
    expected = kept_rows(index, rows)
    assert np.array_equal(found, [expected[item.path or ""] for item in items])


def test_files_grow_by_powers_not_by_batches(index: Index, path: Path) -> None:
    index.embeddings.keep("int8", WIDTH)
    for start in range(0, 160, 5):
        add_embedded(index, range(start, start + 5))
        assert len(files_in(path)) <= 1 + (start // 5 + 1).bit_length()
    stats = index.stats().embeddings
    assert stats is not None
    assert sum(rows for _, rows, _ in stats.files) == 160


def test_of_a_photo_that_was_replaced_the_old_row_never_counts(index: Index) -> None:
    index.embeddings.keep("float", WIDTH)
    add_embedded(index, [3])
    index.add([embedded_item(3, 1)])  # as an import does, without its embedding
    words = "item 1 has no embedding, so it cannot be ranked; make those that lack from the photos"
    assert words in answers_without(index)
    index.add([embedded_item(3, 0)])  # the first photo again
    assert answers_without(index) == ""
    index.remove([1])
    index.add([Item("kept://new", b"abcd", id=1)])
    assert words in answers_without(index)


def test_a_moved_and_a_relabelled_photo_keeps_its_row(index: Index) -> None:
    index.embeddings.keep("float", WIDTH)
    add_embedded(index, [3, 4])
    (item,) = index.get([1])
    index.add([Item("/elsewhere", item.code, "new", item.sha256, item.id)])
    index.relabel({"kept://4": "new"})
    assert answers_without(index) == ""
    assert index.embeddings.has(list(index.items())).tolist() == [True, True]


def test_copies_that_are_left_out_do_not_shift_rows(index: Index) -> None:
    index.embeddings.keep("float", WIDTH)
    one, copy, other = embedded_item(0), embedded_item(0), embedded_item(1)
    copy = Item("kept://copy", copy.code, None, copy.sha256)
    again = Item("kept://1", b"zzzz", None, "second")  # twice in a batch: the later one counts
    rows = np.array([row_of(n) for n in (0, 7, 1, 2)], np.float32)
    added = index.add([one, copy, other, again], embeddings=rows)
    assert (added.new, added.copies, added.changed) == (2, 1, 1)
    ranks_right(index, {"kept://0": row_of(0), "kept://1": row_of(2)})


def test_without_content_the_latest_row_of_a_code_counts(index: Index) -> None:
    index.embeddings.keep("float", WIDTH)
    index.add([Item("/a", b"abcd")], embeddings=row_of(0)[None])
    ranks_right(index, {"/a": row_of(0)})
    index.add([Item("/a", b"abcd")], embeddings=row_of(1)[None])
    ranks_right(index, {"/a": row_of(1)})


def test_putting_rows_to_items_that_are_there(index: Index) -> None:
    index.add([embedded_item(number) for number in range(6)])
    index.embeddings.keep("int8", WIDTH)
    seen = list(index.items())
    index.add([embedded_item(2, 1)])  # by another process, meanwhile
    index.embeddings.put(seen, np.array([row_of(n) for n in range(6)], np.float32))
    assert index.embeddings.has(list(index.items())).tolist() == [n != 2 for n in range(6)]
    assert "item 3 has no embedding" in answers_without(index)
    assert [problem.what for problem in index.verify()] == [
        f"embeddings: 1 item without; make them from the photos with: fgdeploy index embed "
        f"{index.path}"
    ]
    assert [problem.fatal for problem in index.verify()] == [False]


def test_another_kind_drops_all_and_none_leaves_nothing(index: Index, path: Path) -> None:
    assert index.embeddings.form is None
    assert index.stats().embeddings is None
    assert not index.embeddings.keep("float", WIDTH)
    add_embedded(index, range(4))
    assert not index.embeddings.keep("float", WIDTH)
    assert answers_without(index) == ""
    assert index.embeddings.keep("int8", WIDTH)
    assert "item 1 has no embedding" in answers_without(index)
    add_embedded(index, range(4))
    assert answers_without(index) == ""
    assert index.embeddings.drop()
    assert not index.embeddings.drop()
    assert "keeps no embeddings" in answers_without(index)
    index.compact()
    assert files_in(path) == []


def test_another_process_sees_each_change(index: Index, path: Path) -> None:
    with Index.open(path) as other:
        assert "keeps no embeddings" in answers_without(other)
        index.embeddings.keep("float", WIDTH)
        for start in range(0, 40, 8):
            add_embedded(index, range(start, start + 8))
            rows = {f"kept://{number}": row_of(number) for number in range(start + 8)}
            ranks_right(other, rows)
        index.compact()
        ranks_right(other, rows)
        other.embeddings.keep("int8", WIDTH)
        assert "item 1 has no embedding" in answers_without(index)


def test_an_index_without_embeddings_is_as_it_was(index: Index, path: Path) -> None:
    index.add([embedded_item(number) for number in range(3)])
    with index._session.reading() as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master")]
        keys = {row[0] for row in connection.execute("SELECT key FROM meta")}
    assert "embeddings" not in {*tables, *keys}
    assert files_in(path) == []


# What is refused


@pytest.mark.parametrize(
    ("kind", "width", "words"),
    [
        ("double", 3, "embeddings as double: expected float or int8"),
        ("float", 0, "embeddings of width 0: expected a whole number from 1 to"),
        ("float", True, "embeddings of width True: expected"),
        ("int8", 1 << 17, "embeddings of width 131072: expected"),
    ],
)
def test_no_kind_or_width(kind: str, width: int, words: str, index: Index) -> None:
    with refused(UsageError, f"^{words}"):
        index.embeddings.keep(kind, width)
    assert index.embeddings.form is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_values_that_are_no_numbers(bad: float, index: Index) -> None:
    index.embeddings.keep("float", WIDTH)
    rows = np.zeros((2, WIDTH))
    rows[1, 3] = bad
    words = "^kept://1: its embedding has NaN or infinite values; check the photo and the engine$"
    with np.errstate(over="ignore"), refused(UsageError, words):
        index.add([embedded_item(0), embedded_item(1)], embeddings=rows)
    assert len(index) == 0
    index.add([embedded_item(0), embedded_item(1)])
    with np.errstate(over="ignore"), refused(UsageError, words):
        index.embeddings.put(list(index.items()), rows)


def test_rows_of_another_shape(index: Index) -> None:
    items = [embedded_item(0), embedded_item(1)]
    with refused(IndexStoreError, r"gallery\.fgi keeps no embeddings, so nothing can be ranked"):
        index.add(items, embeddings=np.zeros((2, WIDTH)))
    index.embeddings.keep("float", WIDTH)
    words = rf"^embeddings: expected float \(2, {WIDTH}\), got float64 \(2, 5\); make them with"
    with refused(UsageError, words):
        index.add(items, embeddings=np.zeros((2, 5)))
    with refused(UsageError, rf"^embeddings: expected float \(2, {WIDTH}\), got int64"):
        index.add(items, embeddings=np.zeros((2, WIDTH), np.int64))
    with refused(UsageError, "^expected an embedding for each item, 2 rows, got "):
        index.add(items, embeddings=np.zeros((3, WIDTH)))
    with refused(UsageError, "^embeddings need their items in a list"):
        index.add(iter(items), embeddings=np.zeros((2, WIDTH)))
    assert len(index) == 0
    assert index.add([], embeddings=np.zeros((0, WIDTH))).total == 0


def test_a_list_that_says_nothing_clear(index: Index, path: Path) -> None:
    index.embeddings.keep("float", WIDTH)
    for text in ("float", "float 0", "double 3", "float -3", "x"):
        with index._session.transaction() as connection:
            connection.execute("UPDATE meta SET value = ? WHERE key = 'embeddings'", (text,))
        assert "is damaged (its meta table is not whole)" in answers_without(index)
    with refused(IndexStoreError, "its meta table was changed"):
        Index.open(path)


def test_stats(index: Index, path: Path) -> None:
    index.embeddings.keep("int8", WIDTH)
    add_embedded(index, range(4))
    found = index.stats().embeddings
    assert found is not None
    assert (found.kind, found.width, found.row_bytes) == ("int8", WIDTH, WIDTH + 4 + 16)
    ((number, rows, size),) = found.files
    assert (rows, size) == (4, (path / f"embeddings-{number}.rows").stat().st_size)
    assert index.fingerprint == MODEL
    assert index.search(ZERO, 1)[0][0].cost is None
