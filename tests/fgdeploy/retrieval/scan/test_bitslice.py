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

    places = np.arange(64, dtype=np.uint64)
    ours, theirs = (
        ((part[:, :, None] >> places) & np.uint64(1)).reshape(len(part), 16 * words, 4)
        for part in (as_words[1], as_words[0][admitted])
    )
    of_four = (ours[:, None] != theirs).sum(3)  # (queries, codes, groups of four)

    def expected(counts: np.ndarray) -> np.ndarray:
        """Return whether an admitted code is nearer than each limit, by these counts."""
        return counts.sum(2).min(axis=1, initial=999)[:, None] < np.arange(1, len(limits))

    lower = np.where(of_four == 4, 2, of_four)  # "at least two" twice, and the parity
    for number, groups in enumerate((16 * words, 15)[: 3 - words]):
        some = lower[:, :, :groups]
        # The parity of all is left out.
        some = np.concatenate([some, -(some.sum(2, keepdims=True) & 1)], axis=2)
        seen = slice(0, None if number == 0 else bitslice.HEAD_LIMIT)
        np.testing.assert_array_equal(answers[number][:, 1:][:, seen], expected(some)[:, seen])
        assert not (expected(of_four) & ~answers[number][:, 1:])[:, seen].any()


@pytest.mark.parametrize("words", [1, 2, 8])
def test_limits_are_numbers_in_bits(words: int) -> None:
    limits = bitslice.limits(words)
    assert set(np.unique(limits)) == {-1, 0}
    halves = (1 + limits) @ (1 << np.arange(bitslice.limit_bits(words)))
    # Half a bound below the limit is at most this; a limit of 0 has no such half.
    assert halves[1:].tolist() == [(limit - 1) // 2 for limit in range(1, 64 * words + 2)]
