"""The order of all codes: as if their ids had been sorted, in blocks of one size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgdeploy.retrieval import Index
from fgdeploy.retrieval.scan.search import Allowed
from fgdeploy.retrieval.store import segment
from fgdeploy.retrieval.store.merging import in_order, joined
from fgdeploy.retrieval.store.snapshot import Listed, Part
from tests.checks import examples
from tests.fgdeploy.retrieval.samples import BITS, photo

BLOCK = 8


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment, "BLOCK_ROWS", BLOCK)
        yield


@examples(300)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.lists(st.integers(0, 40), min_size=0, max_size=5),
    spread=st.sampled_from([1, 3, 10**15]),
    apart=st.booleans(),
    dead=st.sampled_from([None, 0.0, 0.3, 1.0]),
)
def test_all_live_rows_in_order(
    seed: int, rows: list[int], spread: int, apart: bool, dead: float | None
) -> None:
    """Parts one behind the other or mixed; rows that are void in one may be live in another."""
    chooser = np.random.default_rng(seed)
    ids = np.sort(chooser.choice(sum(rows) * spread + 1, sum(rows), replace=False))
    if not apart:
        ids = chooser.permutation(ids)
    parts, live = [], []
    for own in np.split(ids, np.cumsum(rows)[:-1]) if rows else []:
        own = np.sort(own)
        codes = chooser.integers(0, 256, (len(own), 3), np.uint8)
        keep = chooser.random(len(own)) >= (dead or 0)
        parts.append(Part(Listed(own, codes), None if dead is None else Allowed(keep)))
        live.append((own[keep], codes[keep]))
    blocks = list(in_order(parts))
    assert [len(block[0]) for block in blocks[:-1]] == [BLOCK] * (len(blocks) - 1)
    assert all(0 < len(block[0]) == len(block[1]) <= BLOCK for block in blocks)
    expected = np.concatenate([np.empty(0, np.int64), *(pair[0] for pair in live)])
    codes = np.concatenate([np.empty((0, 3), np.uint8), *(pair[1] for pair in live)])
    order = np.argsort(expected)
    got = [np.concatenate([pair[n] for pair in blocks]) for n in (0, 1)] if blocks else [[], []]
    np.testing.assert_array_equal(got[0], expected[order])
    if blocks:
        np.testing.assert_array_equal(got[1], codes[order])


def test_no_more_than_a_block_of_each_part_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    widest = 0
    real = joined

    def watched(found: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        nonlocal widest
        widest = max(widest, sum(len(piece[0]) for piece in found))
        return real(found)

    monkeypatch.setattr("fgdeploy.retrieval.store.merging.joined", watched)
    every = np.arange(3000)
    parts = [Part(Listed(every[n::3], np.zeros((1000, 1), np.uint8)), None) for n in range(3)]
    assert sum(len(block[0]) for block in in_order(parts)) == 3000
    assert widest <= 4 * BLOCK  # one of each part, and what was left of the last


def test_compacting_reads_no_code_from_the_database(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add(photo(str(number), number) for number in range(50))
    index.compact()
    index.remove([3, 4, 30])
    before = list(index.items())

    def never(*_: object) -> object:
        raise AssertionError("all codes were read from the database")

    monkeypatch.setattr("fgdeploy.retrieval.store.derived.blocks_of", never)
    index.compact()
    assert (index.stats().dead, index.stats().segments[0][1]) == (0, 47)
    assert list(index.items()) == before
    found = index.search_ids(np.zeros((1, BITS // 8), np.uint8), 99)[0]
    assert sorted(found[0].tolist()) == [item.id for item in before]
