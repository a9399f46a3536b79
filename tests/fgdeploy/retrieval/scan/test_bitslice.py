"""The bit planes alone: a search with wrong ones can be right, as it looks twice, but slow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.fgdeploy.retrieval import naive

numba = pytest.importorskip("numba")
bitslice = pytest.importorskip("fgdeploy.retrieval.scan.bitslice")


@pytest.fixture(scope="module")
def both() -> Any:
    """Return compiled: both questions about a block, for each query and limit."""
    any_closer, slice_block, spread = bitslice.any_closer, bitslice.slice_block, bitslice.spread
    perhaps_closer = bitslice.perhaps_closer

    @numba.njit
    def compiled(
        codes: Any, bits: Any, memory: Any, offsets: Any, limits: Any, answers: Any, shape: Any
    ) -> None:
        table = memory.ctypes.data + 64
        spread(bits.ctypes.data, memory.ctypes.data)
        slice_block(codes.ctypes.data, 8 * 512, table, shape)
        for query in range(len(offsets)):
            offset = offsets[query].ctypes.data
            for limit in range(len(limits)):
                bound = limits[limit].ctypes.data
                found = any_closer(table, offset, bound, memory.ctypes.data, shape)
                answers[0, query, limit] = found != 0
                if len(shape) == 1:
                    found = perhaps_closer(table, offset, bound, memory.ctypes.data)
                    answers[1, query, limit] = found != 0

    return compiled


@pytest.mark.parametrize("words", [1, 2])
@pytest.mark.parametrize("share", [1.0, 0.02, 0.0])
def test_whether_any_code_is_closer_than_the_limit(both: Any, words: int, share: float) -> None:
    queries, codes = naive.draw(words, 40, bitslice.BLOCK, 8 * words)
    queries[:30] = codes[:30]  # at distance 0, or near
    queries[10:20, -1] ^= 0x11  # in the last bits, which the head does not see
    queries[20:25] ^= 0xFF
    admitted = np.random.default_rng(words).random(bitslice.BLOCK) < share
    as_words = codes.view(np.uint64), queries.view(np.uint64)
    limits = bitslice.limits(words)
    answers = np.zeros((2, len(queries), len(limits)), bool)
    both(
        np.ascontiguousarray(as_words[0].T),
        np.packbits(admitted, bitorder="little").view(np.uint64),
        np.empty(bitslice.scratch_words(words) + 8, np.uint64),
        bitslice.offsets(as_words[1]),
        limits,
        answers,
        (0,) * words,
    )

    def expected(bits: int) -> np.ndarray:
        """Return whether an admitted code is nearer than each limit in the first so many bits."""
        places = np.arange(64, dtype=np.uint64)
        ours, theirs = (
            ((part[:, :, None] >> places) & np.uint64(1)).reshape(len(part), 64 * words)[:, :bits]
            for part in (as_words[1], as_words[0][admitted])
        )
        gaps = (ours[:, None] != theirs).sum(2)
        return gaps.min(axis=1, initial=999)[:, None] < np.arange(len(limits))

    np.testing.assert_array_equal(answers[0], expected(64 * words))
    if words == 1:
        head = slice(0, bitslice.HEAD_LIMIT + 1)
        np.testing.assert_array_equal(answers[1][:, head], expected(54)[:, head])
        assert not (answers[0] & ~answers[1])[:, head].any()


@pytest.mark.parametrize("words", [1, 2, 8])
def test_limits_are_numbers_in_bits(words: int) -> None:
    limits = bitslice.limits(words)
    assert set(np.unique(limits)) == {-1, 0}
    numbers = -limits @ (1 << np.arange(bitslice.limit_bits(words)))
    assert numbers.tolist() == list(range(64 * words + 2))
