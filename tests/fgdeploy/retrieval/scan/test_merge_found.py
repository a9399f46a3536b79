"""What several searches found, merged: the same as one search over all codes, ties and all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fgdeploy.core.errors import UsageError
from fgdeploy.retrieval import search_codes
from fgdeploy.retrieval.scan.merge_found import merge_nearest, search_parts
from fgdeploy.retrieval.scan.search import Found
from tests.checks import examples, refused
from tests.fgdeploy.retrieval import naive


@examples(200)
@given(
    seed=st.integers(0, 2**32 - 1),
    queries=st.integers(0, 5),
    count=st.integers(0, 60),
    width=st.integers(1, 64),
    different=st.sampled_from([1, 2, 3, 50]),
    k=st.integers(1, 70),
    cuts=st.lists(st.integers(0, 60), max_size=6),
)
@example(seed=0, queries=2, count=9, width=8, different=1, k=4, cuts=[3, 3, 9])
@example(seed=1, queries=1, count=0, width=8, different=1, k=4, cuts=[0])
def test_parts_of_codes_give_what_all_codes_give(
    seed: int, queries: int, count: int, width: int, different: int, k: int, cuts: list[int]
) -> None:
    wanted, codes = naive.draw(seed, queries, count, width, different)
    parts = np.split(codes, sorted(min(cut, count) for cut in cuts))
    naive.same(search_parts(wanted, parts, k), naive.search(wanted, codes, k))


@examples(200)
@given(
    seed=st.integers(0, 2**32 - 1),
    shards=st.integers(1, 6),
    different=st.sampled_from([1, 2, 5]),
    k=st.integers(1, 40),
)
def test_ids_that_lie_scattered_over_the_parts(
    seed: int, shards: int, different: int, k: int
) -> None:
    """Ties are ordered by id, in whichever part they lie; merging in stages changes nothing."""
    wanted, codes = naive.draw(seed, 3, 50, 4, different)
    owner = np.random.default_rng(seed).integers(0, shards, len(codes))
    found: list[Found] = []
    for shard in range(shards):
        ids = np.flatnonzero(owner == shard)
        rows, distances = search_codes(wanted, codes[ids], k)
        found.append((ids[rows], distances))
    whole = merge_nearest(found, k)
    naive.same(whole, search_codes(wanted, codes, k))
    staged = found[0]
    for part in found[1:]:
        staged = merge_nearest([staged, part], k)
    naive.same(staged, whole)


def test_of_equal_ids_the_earlier_part_stands_first() -> None:
    """Which cannot be seen in ids and distances, so each part finds its own number of answers."""
    one = np.array([[5, 7]]), np.array([[1, 1]], np.uint16)
    other = np.array([[5, 9]]), np.array([[1, 0]], np.uint16)
    ids, distances = merge_nearest([one, other], 9)
    assert ids.tolist() == [[9, 5, 5, 7]]
    assert distances.tolist() == [[0, 1, 1, 1]]


def test_what_cannot_be_merged() -> None:
    one = np.zeros((2, 3), np.int64), np.zeros((2, 3), np.uint16)
    fewer = np.zeros((1, 3), np.int64), np.zeros((1, 3), np.uint16)
    torn = np.zeros((2, 3), np.int64), np.zeros((2, 2), np.uint16)
    with refused(UsageError, "there is nothing to merge; give what one search found, or more"):
        merge_nearest([], 1)
    for part in (fewer, torn, (one[0][0], one[1][0])):
        with refused(UsageError, r"expected ids and distances \(Q, M\) of the same Q queries"):
            merge_nearest([one, part], 1)
    for k in (0, -1, 1.5):
        with refused(UsageError, "expected at least one result"):
            merge_nearest([one], k)  # type: ignore[arg-type]
    queries = np.zeros((1, 4), np.uint8)
    with refused(UsageError, "queries have 4 bytes, codes 8"):
        search_parts(queries, [np.zeros((2, 4), np.uint8), np.zeros((2, 8), np.uint8)], 1)
    with refused(UsageError, "expected at least one result"):
        search_parts(queries, [], 0)


@pytest.mark.parametrize("kernel", ["numpy", "numba"])
def test_both_kernels(kernel: str) -> None:
    if kernel == "numba":
        pytest.importorskip("numba")
    wanted, codes = naive.draw(3, 4, 700, 8, 40)
    found = search_parts(wanted, [codes[:1], codes[1:400], codes[400:]], 50, kernel=kernel)
    naive.same(found, naive.search(wanted, codes, 50))
