"""Cosines in float64, each summed in one order: equal rows have equal cosines, wherever they stand.

A product of matrices would be faster, but adds up in an order that depends on the row's place.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Unit = npt.NDArray[np.float64]


def unit(rows: npt.NDArray[Any]) -> Unit:
    """Return rows (..., D) at length 1, float64; a row of zeros stays one.

    Its cosine with all others is then 0.
    """
    wide = np.ascontiguousarray(rows, np.float64)
    length = np.sqrt(np.sum(wide * wide, axis=-1, keepdims=True))
    return np.asarray(wide / np.where(length > 0, length, 1.0))


def cosines(one: Unit, other: Unit) -> npt.NDArray[np.float64]:
    """Return the cosines (...) of two arrays of unit rows (..., D) that broadcast."""
    return np.asarray(np.sum(one * other, axis=-1))
