"""Codes whose distances follow those of points: what is wanted, and bit by bit towards it.

The sum over pairs of (distance - wanted)^2 is what metric multidimensional scaling minimises
(stress, Kruskal 1964), here over corners of a cube, by the exact gain of every single flip.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Signs = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float32]
# Times C: two codes nearer than the spacing cost more than all that one bit can gain elsewhere.
NEARNESS = 10.0
# What it costs to leave the side that the features lean to: such bits are harder to learn.
LEANING = 1.0
# Of all pairs, those this near are wanted at the least distance: one odd pair decides nothing.
NEAREST = 0.01
# More than the most that codes can differ in on average, in bits per bit, keeps bits balanced.
HALVING = 1 / 32
_BLOCK, _SAMPLE = 256, 1000


class WantedDistances:
    """Which distance is wanted between codes: a line in the distance of points, from `spacing` on.

    Codes whose bits each split C classes in halves differ in bits/2 C/(C-1) on average. A little
    more is wanted of the average pair, so that bits stay near halves. The nearest hundredth of the
    pairs is wanted at `spacing`, and none nearer.
    """

    def __init__(self, points: npt.NDArray[np.float64], bits: int, spacing: int) -> None:
        self.bits, self.spacing = bits, spacing
        size = float(np.abs(points).max(initial=0.0)) or 1.0  # squares of any scale are numbers
        self._points = np.asarray(points / size, np.float32)
        self._squares = np.square(self._points).sum(axis=1)
        count = len(points)
        self._middle = bits / 2 * count / max(count - 1, 1) + HALVING * bits
        few = np.unique(np.linspace(0, count - 1, min(count, _SAMPLE)).astype(np.int64))
        pairs = np.triu_indices(len(few), 1)
        far = self._far(few)[:, few][pairs]
        self._mean = float(far.mean()) if len(far) else 0.0
        below = self._mean - float(np.quantile(far, NEAREST)) if len(far) else 0.0
        room = max(self._middle - spacing, 0.0)
        # Where even the nearest are about as far as the rest, there is no likeness to carry.
        self._slope = room / below if below > 1e-3 * self._mean else 0.0

    def blocks(self) -> Iterator[tuple[int, Floats]]:
        """Yield the first row and the wanted distances of blocks of rows, (up to 256, C)."""
        for start in range(0, len(self._points), _BLOCK):
            far = self._far(np.arange(start, min(start + _BLOCK, len(self._points))))
            yield (
                start,
                np.clip(self._middle + self._slope * (far - self._mean), self.spacing, self.bits),
            )

    def _far(self, rows: npt.NDArray[np.int64]) -> Floats:
        squares = self._squares[rows, None] + self._squares
        squares -= 2 * self._points[rows] @ self._points.T
        return np.asarray(np.sqrt(np.maximum(squares, 0)), np.float32)


def settle(
    codes: Signs, leaning: npt.NDArray[np.float64], wanted: WantedDistances, sweeps: int = 100
) -> Signs:
    """Flip single bits, the best first, until no flip brings the distances nearer to the wanted.

    codes: (C, bits) of -1 and +1; leaning: (C, bits), mean size 1, the values whose signs they
    are. A distance below the spacing costs more than all else, so it stays only where it cannot be
    helped. Of more than 200 classes there are fewer sweeps: 40,000 / C, but three.
    """
    classes = len(codes)
    columns = np.ascontiguousarray(codes.T, np.float32)  # (bits, C)
    price_of_side = (LEANING * (classes - 1) * leaning).astype(np.float32)
    shared = columns @ columns.T  # of each two bits: in how many classes they agree, less the rest
    for _ in range(max(3, min(sweeps, 40_000 // classes))):
        flips = 0
        for start, block in wanted.blocks():
            for row, distances in enumerate(block, start):
                side = price_of_side[row]
                flips += _settle_one(columns, shared, row, distances, side, wanted.spacing)
        if flips == 0:
            break
    return np.ascontiguousarray(columns.T).astype(np.int8)


def _settle_one(
    columns: Floats, shared: Floats, row: int, wanted: Floats, price_of_side: Floats, spacing: int
) -> int:
    """Flip bits of one code while that pays, and return how many."""
    bits, classes = columns.shape
    code = columns[:, row].copy()
    distance = (bits - code @ columns) / 2
    error = distance - wanted
    error[row], distance[row] = 0, 2 * bits  # itself
    pull = columns @ error
    flips = 0
    # (e + s)^2 - e^2 = 2 s e + 1 over the others; s is +1 where a bit is the same, else -1
    while flips < 4 * bits:
        price = 2 * code * pull + (classes - 1) + price_of_side * code
        near = np.flatnonzero(distance <= spacing)  # others cannot come too near by one bit
        if len(near):
            after = distance[near] + code[:, None] * columns[:, near]
            then = np.square(np.maximum(spacing - after, 0)).sum(axis=1)
            price += NEARNESS * classes * (then - np.square(spacing - distance[near]).sum())
        best = int(price.argmin())
        if price[best] > -1e-3 * classes:
            break
        step = code[best] * columns[best]
        step[row] = 0
        distance += step
        pull += code[best] * shared[best] - code  # columns @ step
        shared[best] -= 2 * code[best] * code
        shared[best, best] = classes
        shared[:, best] = shared[best]
        code[best] = columns[best, row] = -code[best]
        flips += 1
    return flips
