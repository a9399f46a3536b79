"""Re-ranking: the costs, their order, and hashes that do not belong to the queries."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdeploy.core.codes import hamming, pack
from fgdeploy.core.errors import UsageError
from fgdeploy.retrieval import Index, Item
from fgdeploy.retrieval.store import rerank
from tests.checks import examples, refused
from tests.fgdeploy.retrieval.samples import MODEL


def plain_cost(hash_: list[float], code: bytes) -> float:
    """The sum of |h_j| over the bits that differ, one by one."""
    return math.fsum(
        abs(value)
        for bit, value in enumerate(hash_)
        if (value > 0) != bool(code[bit // 8] >> (7 - bit % 8) & 1)
    )


@examples(60)
@given(
    bits=st.sampled_from([1, 7, 8, 12, 64, 65, 512]),
    queries=st.integers(0, 4),
    candidates=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_costs_against_a_plain_loop(bits: int, queries: int, candidates: int, seed: int) -> None:
    chooser = np.random.default_rng(seed)
    hashes = chooser.standard_normal((queries, bits)).astype(np.float32)
    codes = np.packbits(chooser.random((queries, candidates, bits)) < 0.5, axis=2)
    found = rerank.costs(hashes, codes)
    assert found.shape == (queries, candidates)
    for query in range(queries):
        for place in range(candidates):
            expected = plain_cost(hashes[query].tolist(), codes[query, place].tobytes())
            assert found[query, place] == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("bits", [8, 12, 63, 512])
def test_of_equal_weights_the_cost_is_the_distance(bits: int) -> None:
    chooser = np.random.default_rng(bits)
    hashes = np.where(chooser.random((5, bits)) < 0.5, 1.0, -1.0)
    codes = np.packbits(chooser.random((9, bits)) < 0.5, axis=1)
    found = rerank.costs(hashes, np.broadcast_to(codes, (5, *codes.shape)))
    assert np.array_equal(found, hamming(pack(hashes), codes))


def test_a_value_of_nought_is_a_bit_that_costs_nothing() -> None:
    hashes = np.array([[0.0, 1, -1, 1, 1, 1, 1, 1]])
    codes = np.array([[[0b0101_1111], [0b1101_1111], [0b0001_1111]]], np.uint8)
    assert rerank.costs(hashes, codes).tolist() == [[0.0, 0.0, 1.0]]


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("k", [1, 3, 40, 100])
def test_answers_are_ordered_by_cost_distance_and_id(
    k: int, segments: bool, tmp_path: Path
) -> None:
    chooser = np.random.default_rng(k)
    bits = 16
    codes = np.packbits(chooser.random((60, bits)) < 0.5, axis=1)
    codes[::3] = codes[0]  # ties
    hashes = np.round(chooser.standard_normal((4, bits)) * 4) / 4  # more ties
    queries = pack(hashes)
    with Index.create(tmp_path / "gallery.fgi", MODEL, bits) as index:
        index.add(Item(None, code.tobytes()) for code in codes)
        if segments:
            index.compact()
        index.remove([5, 6, 31])
        kept = [(item.id, item.code) for item in index.items()]
        plain = index.search(queries, min(rerank.POOL * k, 57))
        for query, hits, pool in zip(
            range(4), index.search(queries, k, hashes=hashes), plain, strict=True
        ):
            costs = {n: plain_cost(hashes[query].tolist(), code) for n, code in kept}
            competing = sorted((costs[hit.id], hit.distance, hit.id) for hit in pool)
            assert [(hit.cost, hit.distance, hit.id) for hit in hits] == competing[:k]
            assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
        assert index.search(queries, k)[0][0].cost is None


@pytest.mark.parametrize("where", [None, "label = 'none'"])
def test_nothing_to_rank(where: str | None, tmp_path: Path) -> None:
    hashes = np.ones((2, 16))
    with Index.create(tmp_path / "gallery.fgi", MODEL, 16) as index:
        assert index.search(pack(hashes), 3, hashes=hashes, where=where) == [[], []]
        index.add([Item(None, b"ab")])
        found = index.search(pack(hashes), 3, hashes=hashes, where=where)
        assert [len(hits) for hits in found] == ([1, 1] if where is None else [0, 0])
        assert index.search(pack(hashes)[:0], 3, hashes=hashes[:0], where=where) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_hashes_that_are_no_numbers(bad: float) -> None:
    hashes = np.ones((3, 16), np.float32)
    hashes[1, 4] = bad
    with refused(UsageError, "hashes: query 1 has NaN or infinite values; check the photo and"):
        rerank.check_hashes(hashes, np.full((3, 2), 255, np.uint8), 16)


@pytest.mark.parametrize(
    ("hashes", "got"),
    [
        (np.ones((3, 15)), r"float64 \(3, 15\)"),
        (np.ones((2, 16)), r"float64 \(2, 16\)"),
        (np.ones(16), r"float64 \(16,\)"),
        (np.ones((3, 16), np.int64), r"int64 \(3, 16\)"),
        (np.ones((3, 16), np.uint8), r"uint8 \(3, 16\)"),
        (np.ones((3, 16), np.bool_), r"bool \(3, 16\)"),
        ([[1.0] * 16] * 3, r"list \(\)"),
        ("hashes", r"str \(\)"),
    ],
)
def test_hashes_of_another_shape_or_type(hashes: object, got: str) -> None:
    with refused(UsageError, rf"^hashes: expected float \(3, 16\), got {got}$"):
        rerank.check_hashes(hashes, np.full((3, 2), 255, np.uint8), 16)  # type: ignore[arg-type]


def test_hashes_of_other_queries() -> None:
    hashes = np.ones((3, 16))
    codes = np.full((3, 2), 255, np.uint8)
    rerank.check_hashes(hashes, codes, 16)
    codes[2, 1] ^= 1
    with refused(UsageError, "hashes and codes are not of the same queries; give both of one run"):
        rerank.check_hashes(hashes, codes, 16)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_every_kind_of_float(kind: type[np.floating], tmp_path: Path) -> None:
    hashes = np.ones((1, 16), kind)
    with Index.create(tmp_path / "gallery.fgi", MODEL, 16) as index:
        index.add([Item(None, b"\xff\xfe")])
        assert index.search(pack(hashes), hashes=hashes)[0][0].cost == 1.0
