"""Target codes: what the hashes of each training image are trained towards, fixed before training.

Two ways. `label_codes` is EET's: alternating optimisation on the labels alone (arXiv 2504.16691,
Eq. 13 to 16), which gives nearly one random code per class. `class_codes` looks at the features of
the untrained network: no two classes get codes that are too near, and where there are more classes
than bits, those that look alike are nearer than others.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fgdeploy.core.codes import check_bits
from fgdeploy.core.errors import DataError

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
    """Return a code of -1 and +1 for every class, (C, bits), well apart from each other.

    embeddings: (n, D) of the untrained network; labels: (n,), 0..C-1, every class present. The
    class means, whitened by the spread within the classes (LDA), are rotated to the signs that
    fit them best (ITQ, Gong et al., CVPR 2011), so that classes that look alike are nearer, where
    there are more classes than bits; fewer classes have room to be all alike far. Then bits that
    are least sure are flipped until every two codes differ in `spacing` bits or more, as far as
    that can be done. Default spacing: `spacing_for`. Raises DataError without images.
    """
    check_bits(bits)
    if len(labels) == 0:
        raise DataError("there are no training images to make class codes for; add photos")
    classes = int(labels.max()) + 1
    chooser = np.random.default_rng(seed)
    means = _discriminative_means(np.asarray(embeddings, np.float64), labels, classes)
    wanted = _balanced_directions(means, bits, chooser)
    codes, leaning = _rotate_to_signs(wanted, chooser)
    least = max(1, spacing_for(classes, bits)) if spacing is None else spacing
    return _space_out(codes, leaning, least)


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


def _discriminative_means(rows: FloatArray, labels: Labels, classes: int) -> FloatArray:
    """Return class means in coordinates where the spread within classes is one, (C, D)."""
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)[:, None]
    means = np.zeros((classes, rows.shape[1]))
    np.add.at(means, labels, rows)
    means /= counts
    within = rows - means[labels]
    scatter = within.T @ within / len(rows)
    # Shrunk towards a sphere: with few images the scatter alone is close to singular.
    shrunk = scatter + 0.1 * (np.trace(scatter) / len(scatter) + 1e-12) * np.eye(len(scatter))
    values, vectors = np.linalg.eigh(shrunk)
    return np.asarray((means - means.mean(axis=0)) @ (vectors / np.sqrt(values)))


def _balanced_directions(means: FloatArray, bits: int, chooser: np.random.Generator) -> FloatArray:
    """Return `bits` columns of equal length that span the means' main directions, (C, bits).

    Where the means have fewer directions than bits, further random mixtures of them follow.
    """
    left, values, _ = np.linalg.svd(means, full_matrices=False)
    rank = int((values > 1e-9 * max(float(values[0]), 1e-300)).sum())
    main = left[:, : min(bits, rank)]
    if main.shape[1] == bits:
        return main
    if rank == 0:  # one class, or means that are all the same
        return chooser.standard_normal((len(means), bits))
    mixed = main @ chooser.standard_normal((main.shape[1], bits - main.shape[1]))
    return np.concatenate([main, mixed / np.linalg.norm(mixed, axis=0)], axis=1)


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


def _space_out(codes: Signs, leaning: FloatArray, spacing: int, sweeps: int = 200) -> Signs:
    """Flip single bits, the least sure first, until codes differ in `spacing` bits if they can.

    Coordinate descent on sum over pairs of max(0, spacing - distance)^2, plus a small price for
    leaving the side that the features lean to.
    """
    codes = codes.astype(np.int64)
    bits = codes.shape[1]
    for _ in range(sweeps):
        moved = False
        for row, code in enumerate(codes):
            distance = (bits - codes @ code) // 2
            distance[row] = bits + spacing  # itself
            near = np.flatnonzero(distance <= spacing)  # others cannot come too near by one bit
            now = np.square(spacing - distance[near]).sum()
            after = distance[near, None] + codes[near] * code  # +1 where equal, else -1
            then = np.square(np.maximum(spacing - after, 0)).sum(axis=0)
            price = (then - now) + 0.2 * code * leaning[row]
            best = int(price.argmin())
            if price[best] < -1e-9:
                codes[row, best] *= -1
                moved = True
        if not moved:
            break
    return codes.astype(np.int8)


def shared_codes(codes: Signs, labels: Labels) -> int:
    """Return how many classes have an image whose code an image of another class has too.

    codes: (n, bits), labels: (n,). Such classes cannot be told apart by their target codes.
    """
    packed = np.packbits(codes > 0, axis=1)
    _, which = np.unique(packed, axis=0, return_inverse=True)
    pairs = np.unique(np.stack([which.reshape(-1), labels]), axis=1)
    owners = np.bincount(pairs[0])
    return len(np.unique(pairs[1][owners[pairs[0]] > 1]))
