"""Weights to INT8 so that rounding errors cancel on the inputs that the layer really sees."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fgdeploy.calibration.ranges import LEVELS, step_of

Doubles = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.int8]
_BLOCK = 64
_DAMP = 0.01  # of the mean diagonal, as published


def steps_of(weight: Doubles) -> Doubles:
    """Return the step of each output channel of a weight (K, N), as (N,)."""
    return np.array([step_of(limit) for limit in np.abs(weight).max(axis=0)])


def nearest(weight: Doubles, steps: Doubles) -> Bytes:
    """Round each weight (K, N) by itself."""
    rounded: Bytes = np.clip(np.rint(weight / steps), -LEVELS, LEVELS).astype(np.int8)
    return rounded


def compensated(weight: Doubles, steps: Doubles, rows: Doubles) -> Bytes:
    """Round the weight (K, N) input by input, and let the inputs to come make up for the error.

    rows: (R, K) inputs of the layer, times the square root of their weight. E. Frantar et al.,
    "GPTQ" (ICLR 2023), algorithm 1, with the inputs of most energy first.
    """
    gram = rows.T @ rows
    diagonal = np.diag(gram).copy()
    gram[np.diag_indices_from(gram)] += _DAMP * diagonal.mean() + 1e-12
    order = np.argsort(-diagonal)
    inverse = np.linalg.inv(gram[np.ix_(order, order)])
    upper = np.linalg.cholesky((inverse + inverse.T) / 2).T
    left, rounded = weight[order].copy(), np.zeros(weight.shape, np.int8)
    for start in range(0, len(left), _BLOCK):
        stop = min(start + _BLOCK, len(left))
        errors = np.zeros((stop - start, weight.shape[1]))
        for row in range(start, stop):
            rounded[row] = nearest(left[row], steps)
            error = (left[row] - rounded[row] * steps) / upper[row, row]
            left[row:stop] -= np.outer(upper[row, row:stop], error)
            errors[row - start] = error
        left[stop:] -= upper[start:stop, stop:].T @ errors
    result = np.empty_like(rounded)
    result[order] = rounded
    return result
