"""Embeddings in 8 bits: whole numbers from -127 to 127 with one scale for each row.

Symmetric: 0 stays 0, x is near scale * n. With the scale as it is stored, no value is cut off and
each is off by half a scale at most. So a row of width D and length L is off by at most
scale * sqrt(D) / 2, and its direction by at most the angle whose sine is that over L (`angle_of`);
no cosine with it changes by more than this angle, in radians.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MOST = 127

Int8Rows = npt.NDArray[np.int8]
Scales = npt.NDArray[np.float32]


def quantised(rows: npt.NDArray[np.float32]) -> tuple[Int8Rows, Scales]:
    """Return finite rows (N, D) as int8 (N, D) and their scales (N,); 0 for a row of zeros."""
    wide = rows.astype(np.float64)
    largest = np.abs(wide).max(axis=1, initial=0.0)
    scales = (largest / MOST).astype(np.float32)
    short = scales.astype(np.float64) * MOST < largest  # rounded down: the largest would be cut off
    scales[short] = np.nextafter(scales[short], np.float32(np.inf))
    steps = np.where(scales > 0, scales, 1).astype(np.float64)
    return np.rint(wide / steps[:, None]).astype(np.int8), scales


def restored(rows: Int8Rows, scales: Scales) -> npt.NDArray[np.float64]:
    """Return what rows (N, D) and scales (N,) stand for, float64 (N, D), without rounding."""
    return rows.astype(np.float64) * scales.astype(np.float64)[:, None]


def angle_of(rows: npt.NDArray[np.float32], scales: Scales) -> npt.NDArray[np.float64]:
    """Return the bound (N,), in radians, on how far quantising turns each row (N, D)."""
    length = np.sqrt(np.sum(rows.astype(np.float64) ** 2, axis=1))
    error = scales * np.sqrt(rows.shape[1]) / 2
    sine = np.divide(error, length, out=np.zeros_like(length), where=length > 0)
    return np.asarray(np.arcsin(np.minimum(sine, 1.0)))
