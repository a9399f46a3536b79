"""Ways to order the nearest codes anew: what is refused, and what the pool does."""

from __future__ import annotations

import numpy as np
import pytest

from fgdeploy.core.errors import IndexStoreError, UsageError
from fgdeploy.retrieval import Index, Item
from fgdeploy.retrieval.store.rerank import POOL
from tests.checks import refused
from tests.fgdeploy.retrieval.embedded import WIDTH, add_embedded, ranks_right, row_of
from tests.fgdeploy.retrieval.samples import ZERO

ROW = np.ones((1, WIDTH), np.float32)


@pytest.fixture
def kept(index: Index) -> Index:
    index.embeddings.keep("float", WIDTH)
    add_embedded(index, range(60))
    return index


def test_the_pool_bounds_who_competes(kept: Index) -> None:
    ranks_right(kept, {f"kept://{n}": row_of(n) for n in range(60)})
    plain = [hit.id for hit in kept.search(ZERO, 60)[0]]
    for k, pool in ((1, 1), (3, 3), (3, 7), (2, None)):
        found = {hit.id for hit in kept.search(ZERO, k, embeddings=ROW, pool=pool)[0]}
        assert found <= set(plain[: pool or POOL * k])
        if pool == k:
            assert found == set(plain[:k])
    by_hash = kept.search(ZERO, 3, hashes=np.full((1, 32), -1.0), pool=5)[0]
    assert [hit.id for hit in by_hash] == plain[:3]  # with |h| = 1 the cost is the distance
    assert [hit.cost for hit in by_hash] == [hit.distance for hit in by_hash]


def test_equal_photos_stand_by_distance_and_id(index: Index) -> None:
    index.embeddings.keep("int8", WIDTH)
    items = [Item(f"kept://{n}", bytes([n % 3, 0, 0, 0]), sha256=str(n)) for n in range(40)]
    index.add(items, embeddings=np.repeat(row_of(1)[None], 40, 0))
    found = index.search(ZERO, 40, embeddings=-row_of(1)[None])[0]
    order = sorted((bin(n % 3).count("1"), n + 1) for n in range(40))
    assert [(hit.distance, hit.id) for hit in found] == order
    assert len({hit.cost for hit in found}) == 1
    assert found[0].cost == pytest.approx(2, abs=0.01)


def test_a_filter_comes_first(kept: Index) -> None:
    found = kept.search(ZERO, 60, embeddings=ROW, where="label = 'owl'")[0]
    everything = kept.search(ZERO, 60, embeddings=ROW)[0]
    assert [hit.id for hit in found] == [hit.id for hit in everything if hit.label == "owl"]


def test_many_queries_at_once_are_as_one_by_one(kept: Index) -> None:
    chooser = np.random.default_rng(0)
    queries = chooser.standard_normal((20, WIDTH)).astype(np.float32)
    codes = chooser.integers(0, 4, (20, 4), np.uint8)
    together = kept.search(codes, 4, embeddings=queries)
    for number, hits in enumerate(together):
        own = slice(number, number + 1)
        assert kept.search(codes[own], 4, embeddings=queries[own]) == [hits]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_every_kind_of_float(kind: type[np.floating], kept: Index) -> None:
    assert kept.search(ZERO, 3, embeddings=ROW.astype(kind)) == kept.search(ZERO, 3, embeddings=ROW)


def test_nothing_to_rank(index: Index) -> None:
    with refused(IndexStoreError, "keeps no embeddings, so nothing can be ranked by them; make"):
        index.search(ZERO, 3, embeddings=ROW)
    index.embeddings.keep("float", WIDTH)
    assert index.search(ZERO, 3, embeddings=ROW) == [[]]
    assert index.search(ZERO[:0], 3, embeddings=ROW[:0]) == []
    add_embedded(index, range(3))
    assert index.search(ZERO, 3, embeddings=ROW, where="id > 9") == [[]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_queries_that_are_no_numbers(bad: float, kept: Index) -> None:
    rows = np.ones((3, WIDTH))
    rows[2, 5] = bad
    words = "^embeddings: query 2 has NaN or infinite values; check the photo and the engine$"
    with refused(UsageError, words):
        kept.search(np.repeat(ZERO, 3, 0), embeddings=rows)


@pytest.mark.parametrize(
    ("rows", "got"),
    [
        (np.ones((1, 5)), r"float64 \(1, 5\)"),
        (np.ones((2, WIDTH)), rf"float64 \(2, {WIDTH}\)"),
        (np.ones(WIDTH), rf"float64 \({WIDTH},\)"),
        (np.ones((1, WIDTH), np.int64), rf"int64 \(1, {WIDTH}\)"),
        ([[1.0] * WIDTH], r"list \(\)"),
    ],
)
def test_queries_of_another_shape(rows: np.ndarray, got: str, kept: Index) -> None:
    with refused(UsageError, rf"^embeddings: expected float \(1, \d+\), got {got}; make them with"):
        kept.search(ZERO, embeddings=rows)


def test_two_ways_or_a_pool_without_one(kept: Index) -> None:
    with refused(UsageError, "hashes and embeddings order the answers in two ways; give one"):
        kept.search(ZERO, hashes=np.full((1, 32), -1.0), embeddings=ROW)
    with refused(UsageError, "^pool 30: nothing is re-ranked; give hashes or embeddings$"):
        kept.search(ZERO, pool=30)
    for pool in (9, 0, -1, True, 2.5):
        with refused(UsageError, rf"^pool {pool}: expected a whole number of k, 10, or more$"):
            kept.search(ZERO, 10, embeddings=ROW, pool=pool)  # type: ignore[arg-type]
