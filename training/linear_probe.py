"""What a linear classifier makes of the first look: ridge regression of the labels on embeddings.

The class head starts as it, and how many photos it tells when each is left out says how far the
untrained network is from the task.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

RIDGE = 3e-2  # over the mean square of the features
_AT_ONCE = 1 << 24  # predictions held at a time


@dataclass(frozen=True)
class Probe:
    """Weights (C, D) and bias (C,) of the regression on one-hot labels.

    told: share, 0..1, of the photos whose own class it would predict without them; of classes with
    two photos or more, None where there is none.
    """

    weights: Array
    bias: Array
    told: float | None


def fit(
    embeddings: npt.NDArray[np.floating],
    labels: npt.NDArray[np.int64],
    classes: int,
    ridge: float = RIDGE,
) -> Probe:
    """Return the ridge regression of one-hot labels on embeddings (n, D), in closed form.

    Leaving a photo out needs no second fit: with h its leverage and p its prediction, it would be
    (p - h y) / (1 - h) (Allen's PRESS, Technometrics 1974).
    """
    rows = np.concatenate([embeddings, np.ones((len(embeddings), 1))], axis=1).astype(np.float64)
    gram = rows.T @ rows
    penalty = ridge * np.trace(gram) / len(gram)
    sums = np.zeros((classes, rows.shape[1]))
    np.add.at(sums, labels, rows)
    solved = np.linalg.solve(gram + penalty * np.eye(len(gram)), np.eye(len(gram)))
    weights = sums @ solved
    return Probe(weights[:, :-1], weights[:, -1], _told(rows, solved, weights, labels))


def _told(
    rows: Array, solved: Array, weights: Array, labels: npt.NDArray[np.int64]
) -> float | None:
    of_several = np.bincount(labels)[labels] > 1
    if not of_several.any():
        return None
    right, step = 0, max(1, _AT_ONCE // len(weights))
    for start in range(0, len(rows), step):
        some, own = rows[start : start + step], labels[start : start + step]
        leverage = ((some @ solved) * some).sum(axis=1).clip(max=1 - 1e-9)
        predicted = some @ weights.T
        at = np.arange(len(some))
        predicted[at, own] = predicted[at, own] - leverage
        predicted /= (1 - leverage)[:, None]
        hit = predicted.argmax(axis=1) == own
        right += int((hit & of_several[start : start + step]).sum())
    return right / int(of_several.sum())
