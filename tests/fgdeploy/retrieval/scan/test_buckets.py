"""Short codes by bucket against the sorted list of all distances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fgdeploy.retrieval import Index, search_codes
from fgdeploy.retrieval.scan import buckets, search
from fgdeploy.retrieval.scan.buckets import Buckets
from fgdeploy.retrieval.store import derived, snapshot
from tests.checks import examples
from tests.fgdeploy.retrieval import naive


@examples(100)
@given(
    seed=st.integers(0, 2**32 - 1),
    query_count=st.integers(1, 5),
    count=st.one_of(st.integers(1, 40), st.integers(1, 2000)),
    width=st.sampled_from([1, 2]),
    different=st.sampled_from([1, 2, 7, None]),
    k=st.one_of(st.integers(1, 20), st.integers(1, 2100)),
)
@example(0, 3, 2000, 1, None, 2000)
@example(0, 3, 2000, 2, 1, 2001)
def test_buckets_give_the_head_of_the_sorted_list(
    seed: int, query_count: int, count: int, width: int, different: int | None, k: int
) -> None:
    queries, codes = naive.draw(seed, query_count, count, width, different)
    found = Buckets(codes).nearest(queries, min(k, count))
    naive.same(found, naive.search(queries, codes, k))


def test_a_code_that_no_row_has() -> None:
    codes = np.array([[0, 0], [255, 255], [0, 1]], np.uint8)
    queries = np.array([[255, 254], [0, 3]], np.uint8)
    naive.same(Buckets(codes).nearest(queries, 3), naive.search(queries, codes, 3))


@pytest.fixture
def sorted_codes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make three queries pay for buckets, and note the width of all codes that were sorted.

    As where numba is missing: the compiled scan is faster than buckets.
    """
    widths: list[int] = []

    class Noted(Buckets):
        def __init__(self, codes: np.ndarray) -> None:
            widths.append(codes.shape[1])
            super().__init__(codes)

    monkeypatch.setattr(search, "has_numba", lambda: False)
    monkeypatch.setattr(search, "_WORTH_BUCKETS", (3, 100))
    monkeypatch.setattr(search, "Buckets", Noted)
    return widths


@pytest.mark.parametrize("width", [1, 2])
def test_many_queries_on_short_codes_take_buckets(width: int, sorted_codes: list[int]) -> None:
    queries, codes = naive.draw(1, 4, 300, width)
    for part in (queries[:2], queries):
        naive.same(search_codes(part, codes, 20), naive.search(part, codes, 20))
    assert sorted_codes == [width]
    thin = codes[::2]
    naive.same(search_codes(queries, thin, 20), naive.search(queries, thin, 20))


def test_no_buckets_for_what_they_cannot_do(sorted_codes: list[int]) -> None:
    queries, codes = naive.draw(2, 4, 300, buckets.MAX_BYTES + 1)
    naive.same(search_codes(queries, codes, 20), naive.search(queries, codes, 20))
    queries, codes = naive.draw(2, 4, 300, 2)
    allowed = np.arange(300) % 3 == 0
    found = search_codes(queries, codes, 20, allowed=allowed)
    naive.same(found, naive.search(queries, codes, 20, allowed))
    naive.same(search_codes(queries, codes, 20, kernel="numpy"), naive.search(queries, codes, 20))
    naive.same(search_codes(queries, codes[:99], 20), naive.search(queries, codes[:99], 20))
    assert sorted_codes == []


@pytest.mark.skipif(not search.has_numba(), reason="numba is not installed")
def test_no_buckets_where_the_scan_is_compiled(
    sorted_codes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "has_numba", lambda: True)
    monkeypatch.setattr(search, "_WORTH_NUMBA", 0)
    monkeypatch.setattr(search, "_WORTH_COUNTING", 0)
    monkeypatch.setattr(search.ahead.ahead, "ready", lambda words: True)
    queries, codes = naive.draw(3, 4, 300, 2)
    naive.same(search_codes(queries, codes, 20), naive.search(queries, codes, 20))
    assert sorted_codes == []


def test_an_empty_gallery_of_short_codes(sorted_codes: list[int]) -> None:
    rows, distances = search_codes(np.zeros((5, 2), np.uint8), np.zeros((0, 2), np.uint8), 4)
    assert rows.shape == distances.shape == (5, 0)
    assert sorted_codes == []


def test_an_index_of_short_codes_with_many_queries(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "_BUCKETS_FROM", 100)
    monkeypatch.setattr(snapshot, "_BUCKETS_AFTER", 10)
    monkeypatch.setattr(derived, "TAIL_ROWS", 100)
    queries, codes = naive.draw(4, 20, 300, 2)
    answered: list[int] = []

    class Noted(Buckets):
        def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
            answered.append(len(queries))
            return super().nearest(queries, k)

    monkeypatch.setattr(snapshot, "Buckets", Noted)
    with Index.create(path, "ab" * 32, 16) as index:
        index.add_codes(codes)
        for part in (queries[:3], queries[:3], queries[:5], queries[:1], queries):
            ids, distances = index.search_ids(part, 9)
            naive.same((ids - 1, distances), naive.search(part, codes, 9))
        assert answered == [5, 1, 20]
        index.remove([7])
        ids, distances = index.search_ids(queries, 9)
        rows, gaps = naive.search(queries, codes, 9, np.arange(300) != 6)
        naive.same((ids - 1, distances), (rows, gaps))
        assert answered == [5, 1, 20]
