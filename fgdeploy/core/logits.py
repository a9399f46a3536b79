"""Class logits: the best classes of a photo, and how probable they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fgdeploy.core.errors import EngineError

FloatArray = npt.NDArray[np.floating[Any]]


def best(logits: FloatArray, k: int) -> npt.NDArray[np.int64]:
    """Return the numbers of the k best classes, int64 (N, min(k, C)), of logits (N, C).

    By score, the highest first, then by number. Raises EngineError for NaN or infinite logits.
    """
    _check(logits)
    order = np.argsort(-logits.astype(np.float64), axis=1, kind="stable")
    return order[:, :k].astype(np.int64)


def softmax(logits: FloatArray) -> npt.NDArray[np.float64]:
    """Return the probabilities (N, C) of logits (N, C). Raises EngineError as `best`."""
    _check(logits)
    rows = logits.astype(np.float64)
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _check(logits: FloatArray) -> None:
    if not np.isfinite(logits).all():
        raise EngineError(
            "the engine gave NaN or infinite class logits; its precision does not hold; run "
            "another with --backend"
        )
