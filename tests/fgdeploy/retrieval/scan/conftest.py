"""What tests of both scans share: small chunks, and which rows are allowed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from fgdeploy.retrieval.scan import search

needs_numba = pytest.mark.skipif(not search.has_numba(), reason="numba is not installed")


CHUNK = 4096  # the smallest that any width allows


MANY = 8, 24  # queries from which on codes of one and of two words are bit-sliced


@pytest.fixture(scope="module")
def small_chunks() -> object:
    """Let threads take few rows at once, so that a small gallery has several chunks."""
    with pytest.MonkeyPatch.context() as patch:
        if search.has_numba():
            from fgdeploy.retrieval.scan import scan_numba

            assert scan_numba.CHUNK % CHUNK == 0
            assert tuple(scan_numba._MANY[words] for words in (1, 2)) == MANY
            patch.setattr(scan_numba, "CHUNK", CHUNK)
            patch.setattr(scan_numba, "_THREAD_WORK", 1)
        yield


def mask(seed: int, count: int, share: float | None) -> npt.NDArray[np.bool_] | None:
    """Return which rows are allowed: a share of them, but one row at least unless it is 0."""
    if share is None:
        return None
    allowed = np.random.default_rng(seed).random(count) < share
    if share:
        allowed[seed % count] = True
    return allowed
