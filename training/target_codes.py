"""Target codes: what the hashes of each training image are trained towards, fixed before training.

Two ways. `label_codes` is EET's: alternating optimisation on the labels alone (arXiv 2504.16691,
Eq. 13 to 16), which gives nearly one random code per class. `class_codes` looks at the features of
the untrained network: classes that look alike get codes that are nearer, but none too near.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import check_bits
from fgdeploy.core.errors import DataError
from fgdeploy.training.code_distances import WantedDistances, settle
from fgdeploy.training.discriminants import class_means

Signs = npt.NDArray[np.int8]
Labels = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def label_codes(
    labels: Labels, bits: int, seed: int = 42, iterations: int = 15, delta: float = 1e-4
) -> Signs:
    """Return a code of -1 and +1 for every training image, (n, bits), from its label alone.

    labels: (n,), 0..C-1. Minimises |Y - P V|^2 + delta |B - R V|^2 over B in {-1, +1}^(bits x n),
    P, V and an orthogonal R in turn (Eq. 13 to 16). Two slips of the paper are mended as in the
    authors' code: P needs the pseudo-inverse of V V^T, and the step for B is B = sign(R V), with
    sign(0) = +1. The one-hot Y is never written out: its products are sums over a class and copies.
    """
    check_bits(bits)
    if len(labels) == 0:
        raise DataError("there are no training images to make target codes for; add photos")
    chooser = np.random.default_rng(seed)
    count, classes = len(labels), int(labels.max()) + 1
    v = chooser.standard_normal((bits, count))
    codes = np.where(chooser.standard_normal((bits, count)) >= 0, 1.0, -1.0)
    rotation = _procrustes(codes @ v.T)
    for _ in range(iterations):
        codes = np.where(rotation @ v >= 0, 1.0, -1.0)
        p = _sum_by_class(v, labels, classes) @ np.linalg.pinv(v @ v.T)
        left = p.T @ p + delta * rotation.T @ rotation
        v = np.linalg.pinv(left) @ (p.T[:, labels] + delta * rotation.T @ codes)
        rotation = _procrustes(codes @ v.T)
    return np.asarray(codes.T, dtype=np.int8)


def _procrustes(product: FloatArray) -> FloatArray:
    """Return the orthogonal R that maximises tr(R^T B V^T) for `product` = B V^T."""
    left, _, right = np.linalg.svd(product)
    return np.asarray(left @ right)


def _sum_by_class(v: FloatArray, labels: Labels, classes: int) -> FloatArray:
    """Return Y V^T, (C, bits): the sum of the columns of each class."""
    sums = np.zeros((classes, len(v)))
    np.add.at(sums, labels, v.T)
    return sums


def class_codes(
    embeddings: npt.NDArray[np.floating],
    labels: Labels,
    bits: int,
    seed: int = 0,
    spacing: int | None = None,
) -> Signs:
    """Return a code of -1 and +1 for every class, (C, bits): the more alike, the nearer.

    embeddings: (n, D) of the untrained network; labels: (n,), 0..C-1, every class present. How
    unlike classes are is the distance of their means in LDA coordinates (`discriminants`). Codes
    start as the signs of the rotation that fits these means best (ITQ, Gong et al., CVPR 2011);
    then single bits are flipped until the codes' distances follow those of the means, with
    `spacing` or more bits between every two classes as far as that can be done (`settle`).
    Default spacing: `spacing_for`. Raises DataError without images.
    """
    check_bits(bits)
    if len(labels) == 0:
        raise DataError("there are no training images to make class codes for; add photos")
    means = class_means(np.asarray(embeddings, np.float64), labels)
    least = max(1, spacing_for(len(means), bits)) if spacing is None else spacing
    chooser = np.random.default_rng(seed)
    codes, leaning = _rotate_to_signs(_main_directions(means, bits, chooser), chooser)
    return settle(codes, leaning, WantedDistances(means, bits, least))


def spacing_for(classes: int, bits: int) -> int:
    """Return the least distance to ask for between class codes: 9 at 32 bits and 100 classes.

    Half of the bits is what unrelated codes differ in; a code book with a least distance d exists
    surely while C * (the codes within d - 1 of one) <= 2^bits (Gilbert-Varshamov). Asking for
    that much keeps it reachable without breaking the neighbourhoods apart.
    """
    from math import comb

    ball, radius = 0, 0
    while radius < bits // 2:
        ball += comb(bits, radius)
        if classes * ball > 2**bits:
            break
        radius += 1
    return radius


def _main_directions(means: FloatArray, bits: int, chooser: np.random.Generator) -> FloatArray:
    """Return the means' main directions, each as long as the means spread in it, (C, bits).

    Where the means have fewer directions than bits, columns of zeros follow, which a rotation
    fills. Without any direction (one class, or means that are all the same): random numbers.
    """
    left, values, _ = np.linalg.svd(means, full_matrices=False)
    rank = min(bits, int((values > 1e-9 * max(float(values[0]), 1e-300)).sum()))
    if rank == 0:
        return chooser.standard_normal((len(means), bits))
    found = np.zeros((len(means), bits))
    found[:, :rank] = left[:, :rank] * values[:rank]
    return found


def _rotate_to_signs(
    wanted: FloatArray, chooser: np.random.Generator, iterations: int = 100
) -> tuple[Signs, FloatArray]:
    """Return the signs of the best rotation of `wanted` and its values, mean size one."""
    bits = wanted.shape[1]
    rotation, _ = np.linalg.qr(chooser.standard_normal((bits, bits)))
    for _ in range(iterations):
        signs = np.where(wanted @ rotation >= 0, 1.0, -1.0)
        rotation = _procrustes(wanted.T @ signs)
    turned = wanted @ rotation
    leaning = turned / max(float(np.abs(turned).mean()), 1e-300)
    return np.where(turned >= 0, 1, -1).astype(np.int8), np.asarray(leaning)


def shared_codes(codes: Signs, labels: Labels) -> int:
    """Return how many classes have an image whose code an image of another class has too.

    codes: (n, bits), labels: (n,). Such classes cannot be told apart by their target codes.
    """
    packed = np.packbits(codes > 0, axis=1)
    _, which = np.unique(packed, axis=0, return_inverse=True)
    pairs = np.unique(np.stack([which.reshape(-1), labels]), axis=1)
    owners = np.bincount(pairs[0])
    return len(np.unique(pairs[1][owners[pairs[0]] > 1]))
