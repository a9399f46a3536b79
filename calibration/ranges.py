"""How far an activation reaches: the value that becomes 127 in INT8.

Symmetric: zero is zero, -127..127 spans -limit..limit. Each method proposes limits for the values
of one tensor; where it proposes several, the one is taken with the least error of the layer behind.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
LEVELS = 127
PERCENTILE = 99.99
_BINS = 2048


def minmax(magnitudes: Floats, top: float) -> list[float]:
    """Return the largest magnitude that was seen."""
    return [top]


def percentile(magnitudes: Floats, top: float) -> list[float]:
    """Return the magnitude that 99.99 % of the values do not pass."""
    return [float(np.percentile(magnitudes, PERCENTILE))]


def mse(magnitudes: Floats, top: float) -> list[float]:
    """Return limits from half the largest magnitude up to it, for the layer's error to choose."""
    return [top * part for part in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)]


def entropy(magnitudes: Floats, top: float) -> list[float]:
    """Return the limit with the least Kullback-Leibler divergence from the values' histogram.

    As in S. Migacz, "8-bit inference with TensorRT" (GTC 2017): a histogram of 2048 bins is cut
    after i bins, its tail goes to the last one, and what 128 levels keep of it is compared.
    """
    counts, edges = np.histogram(magnitudes, bins=_BINS, range=(0.0, top))
    tails = counts[::-1].cumsum()[::-1]
    best = (np.inf, top)
    for end in range(LEVELS + 1, _BINS + 1, 8):
        reference = counts[:end].astype(np.float64)
        reference[-1] += tails[end] if end < _BINS else 0
        best = min(best, (_divergence(reference, counts[:end]), float(edges[end])))
    return [best[1]]


def _divergence(reference: Floats, counts: npt.NDArray[np.integer]) -> float:
    """Return KL(reference || counts merged into 128 levels and spread over their used bins)."""
    level = np.arange(len(counts)) * (LEVELS + 1) // len(counts)
    used = counts > 0
    mass = np.bincount(level, counts, LEVELS + 1)
    width = np.bincount(level, used, LEVELS + 1)
    kept = np.where(used, (mass / np.maximum(width, 1))[level], 0.0)
    p, q = reference / reference.sum(), kept / max(kept.sum(), 1.0)
    here = p > 0
    # A bin that only the tail filled has no mass in q; the floor makes it dear, not infinite.
    return float((p[here] * np.log(p[here] / np.maximum(q[here], 1e-9))).sum())


RANGES: dict[str, Callable[[Floats, float], list[float]]] = {
    "mse": mse,
    "minmax": minmax,
    "percentile": percentile,
    "entropy": entropy,
}


def step_of(limit: float) -> float:
    """Return the step of a limit, one that FP16 holds exactly: all graphs then share one grid."""
    smallest = float(np.finfo(np.float16).tiny)
    return float(np.float16(np.clip(limit / LEVELS, smallest, np.finfo(np.float16).max)))


def quantise(values: Floats, step: float | Floats) -> Floats:
    """Return values on the grid of `step`, -128..127 steps, as floats."""
    grid: Floats = np.clip(np.rint(values / step), -128, LEVELS) * step
    return grid
