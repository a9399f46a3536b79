"""Multi-index hashing: what it proves is what the scan finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdeploy.core.codes import UInt8Array
from fgdeploy.core.errors import MissingDependency, UsageError
from fgdeploy.retrieval import Index, search_codes
from fgdeploy.retrieval.scan.search import Allowed
from fgdeploy.retrieval.store import derived, snapshot, tables
from tests.checks import examples, refused
from tests.fgdeploy.retrieval.samples import MODEL

multi_index = pytest.importorskip("fgdeploy.retrieval.scan.multi_index", exc_type=ImportError)


def clustered(seed: int, count: int, width: int, centres: int = 5) -> UInt8Array:
    """Return codes (N, bytes) a few bits away from a few centres: many near, many equal."""
    chooser = np.random.default_rng(seed)
    seeds = chooser.integers(0, 256, (centres, width), dtype=np.uint8)
    flips = np.packbits(chooser.random((count, 8 * width)) < 0.04, axis=1)
    return seeds[chooser.integers(0, centres, count)] ^ flips


@pytest.fixture(scope="module", params=[8, 16])
def built(request: pytest.FixtureRequest) -> tuple[UInt8Array, np.ndarray, np.ndarray]:
    codes = clustered(0, 3000, request.param)
    starts = np.zeros(multi_index.starts_of(request.param), np.uint32)
    rows = np.zeros((len(multi_index.parts_of(request.param)), len(codes)), np.int32)
    multi_index.build(codes, starts, rows, 2)
    return codes, starts, rows


def test_each_table_lists_every_row_once_by_its_part(
    built: tuple[UInt8Array, np.ndarray, np.ndarray],
) -> None:
    codes, starts, rows = built
    words = codes.view("<u8")
    for table, (word, shift, bits, begin) in enumerate(multi_index.parts_of(codes.shape[1])):
        values = words[:, word] >> np.uint64(shift) & np.uint64((1 << int(bits)) - 1)
        np.testing.assert_array_equal(rows[table], np.argsort(values, kind="stable"))
        mine = starts[begin : begin + (1 << int(bits)) + 1]
        counts = np.bincount(values.astype(np.int64), minlength=1 << int(bits))
        np.testing.assert_array_equal(np.diff(mine.astype(np.int64)), counts)


@examples(60)
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(1, 9),
    k=st.integers(1, 200),
    threads=st.integers(1, 3),
    alive=st.sampled_from([None, 0.02, 0.5, 0.99]),
    share=st.sampled_from([1, 4, 64]),
)
def test_what_is_proven_is_what_the_scan_finds(
    built: tuple[UInt8Array, np.ndarray, np.ndarray],
    seed: int,
    queries: int,
    k: int,
    threads: int,
    alive: float | None,
    share: int,
) -> None:
    codes, starts, rows = built
    chooser = np.random.default_rng(seed)
    flips = np.packbits(chooser.random((queries, 8 * codes.shape[1])) < 0.05, axis=1)
    wanted = codes[chooser.integers(0, len(codes), queries)] ^ flips
    mask = None if alive is None else chooser.random(len(codes)) < alive
    expected = search_codes(wanted, codes, k, allowed=mask, kernel="numpy")
    top = expected[0].shape[1]
    if top == 0:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(multi_index, "_ROWS_SHARE", share)
        bitmap = None if mask is None else Allowed(mask).bitmap
        found = multi_index.nearest(wanted, codes, top, starts, rows, bitmap, threads)
    for answer, truth in zip(found[:2], expected, strict=True):
        np.testing.assert_array_equal(answer[found[2]], truth[found[2]])


def test_near_queries_are_proven_and_far_ones_are_left_to_the_scan(
    built: tuple[UInt8Array, np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    codes, starts, rows = built
    monkeypatch.setattr(multi_index, "_ROWS_SHARE", 2)
    near = multi_index.nearest(codes[:20], codes, 1, starts, rows, None, 1)
    assert near[2].all()
    assert not near[1].any()
    far = np.random.default_rng(9).integers(0, 256, (20, codes.shape[1]), dtype=np.uint8)
    assert not multi_index.nearest(far, codes, 1000, starts, rows, None, 1)[2].any()


# In an index


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived, "MERGE_ROWS", 100)


@pytest.fixture
def large(small: None, path: Path, told: list[str]) -> Index:
    index = Index.create(path, MODEL, 64, told.append)
    index.add_codes(clustered(1, 3000, 8))
    index.compact(multi_index=True)
    return index


def check(index: Index, codes: UInt8Array, alive: np.ndarray) -> None:
    for start in range(0, 3000, 300):
        wanted = clustered(1, 3000, 8)[start : start + 3]
        rows, distances = search_codes(wanted, codes, 7, allowed=alive, kernel="numpy")
        ids, gaps = index.search_ids(wanted, 7)
        np.testing.assert_array_equal(ids, rows + 1)
        np.testing.assert_array_equal(gaps, distances)


@pytest.mark.parametrize("proves", [True, False])
def test_the_tables_answer_few_queries_or_where_they_prove_the_first(
    proves: bool, large: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    real = tables.Tables.nearest

    def counted(self: tables.Tables, queries: UInt8Array, *rest: Any, **more: Any) -> Any:
        sizes.append(len(queries))
        found, proven = real(self, queries, *rest, **more)
        return found, proven & proves

    monkeypatch.setattr(tables.Tables, "nearest", counted)
    monkeypatch.setattr(multi_index, "_ROWS_SHARE", 1)  # they may look at as many as there are
    codes = clustered(1, 3000, 8)
    for count in (1, snapshot._FEW, snapshot._FEW + 1):
        ids, gaps = large.search_ids(codes[:count], 3)
        rows, distances = search_codes(codes[:count], codes, 3, kernel="numpy")
        np.testing.assert_array_equal(ids, rows + 1)
        np.testing.assert_array_equal(gaps, distances)
    large.search_ids(codes[:1], tables.MOST_K + 1)
    large.search_ids(codes[:1], 3, where="id > 5")
    whole = [snapshot._FEW + 1] if proves else []
    assert sizes == [1, snapshot._FEW, snapshot._FIRST, *whole]
    large.close()


def test_an_index_with_tables_answers_as_one_without(large: Index, path: Path) -> None:
    codes, alive = clustered(1, 3000, 8), np.ones(3000, bool)
    assert [entry.suffix for entry in sorted(path.glob("segment-*"))] == [".codes", ".tables"]
    check(large, codes, alive)
    large.remove([1, 101, 201])
    alive[[0, 100, 200]] = False
    check(large, codes, alive)
    more = clustered(2, 50, 8)
    large.add_codes(more)
    check(large, np.concatenate((codes, more)), np.concatenate((alive, np.ones(50, bool))))
    large.compact()  # keeps tables
    check(large, np.concatenate((codes, more)), np.concatenate((alive, np.ones(50, bool))))
    assert len(list(path.glob("*.tables"))) == 1
    large.compact(multi_index=False)
    assert list(path.glob("*.tables")) == []
    assert large.verify() == []
    large.close()


@pytest.mark.parametrize("at", [20, 43, 4096, -5])
def test_damaged_tables_are_made_again(at: int, large: Index, path: Path, told: list[str]) -> None:
    large.close()
    (file,) = path.glob("*.tables")
    data = bytearray(file.read_bytes())
    data[at] ^= 8
    file.write_bytes(data)
    with Index.open(path, told.append) as index:
        check(index, clustered(1, 3000, 8), np.ones(3000, bool))
        assert index.verify() == []
    assert len(told) == 1
    assert "made again from the database" in told[0]


@pytest.mark.parametrize("size", [None, 30, -1])
def test_tables_that_are_cut_or_gone_are_made_again(
    size: int | None, large: Index, path: Path, told: list[str]
) -> None:
    large.close()
    (file,) = path.glob("*.tables")
    if size is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:size])
    with Index.open(path, told.append) as index:
        check(index, clustered(1, 3000, 8), np.ones(3000, bool))
    assert "made again" in told[0]


@pytest.mark.parametrize(("bits", "count"), [(64, 50), (48, 300), (72, 300)])
def test_tables_where_they_would_not_pay(bits: int, count: int, small: None, path: Path) -> None:
    with Index.create(path, MODEL, bits) as index:
        index.add_codes(clustered(0, count, bits // 8))
        with refused(UsageError, "look-up tables pay for 57 to 64 or 121 to 128 bits and from 100"):
            index.compact(multi_index=True)


def test_tables_without_numba(small: None, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "has_numba", lambda: False)
    with Index.create(path, MODEL, 64) as index:
        index.add_codes(clustered(1, 300, 8))
        with pytest.raises(MissingDependency, match=r"fgdeploy\[search\]"):
            index.compact(multi_index=True)
        assert len(index) == 300
        assert index.verify() == []


def test_another_index_s_tables_are_not_taken(large: Index, path: Path, told: list[str]) -> None:
    other = path.with_name("other.fgi")
    with Index.create(other, MODEL, 64, told.append) as index:
        index.add_codes(clustered(3, 3000, 8))
        index.compact(multi_index=True)
    large.close()
    (mine,), (foreign,) = path.glob("*.tables"), other.glob("*.tables")
    mine.write_bytes(foreign.read_bytes())
    with Index.open(path, told.append) as again:
        check(again, clustered(1, 3000, 8), np.ones(3000, bool))
    assert "made again" in told[-1]
