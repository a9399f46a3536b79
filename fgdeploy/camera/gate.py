"""Does a frame look different? Told from a small grey picture, before anything costs much.

Of each frame up to 32 x 24 means of cells are kept, from every n-th pixel each way. Against those
of the last frame that passed, a cell has changed if its brightness differs by more than 15 % (or
about 5 of 255 levels where it is dark) once the change that all cells share is taken out: noise,
exposure and slow changes of light pass no frame. Half the light, or twice, does.
0.4 ms for a frame of 1280 x 720 on one core (benchmarks/camera/gate.py).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fgdeploy.core.errors import UsageError
from fgdeploy.core.text import shown
from fgdeploy.photos.cell_means import cell_means

_ROWS, _COLUMNS = 24, 32
_PIXELS = 4  # of a cell each way that are looked at
_DARK = 32.0  # added to all levels, so that noise where it is dark is no change
_CHANGED = np.log2(1.15)  # from where on a cell has changed, in factors of two
_LIGHT = 0.7  # from where on all of the light has: about half or twice


class ChangeGate:
    """Passes a frame if at least `share` of its picture changed since the last that passed.

    share: above 0, at most 1: 0.02 is a fiftieth of the picture, such as a square of 14 % of each
    side. The first frame passes, and one of another size. Raises UsageError.
    """

    def __init__(self, share: float) -> None:
        if not 0 < share <= 1:
            raise UsageError(f"changed {shown(share)}: expected a share above 0, at most 1")
        self.share = share
        self._last: npt.NDArray[np.float64] | None = None

    def passes(self, pixels: npt.NDArray[np.uint8]) -> bool:
        """Tell whether a frame, uint8 (H, W) or (H, W, 3), passes; if so, it is the last now."""
        levels = _levels(pixels)
        if self._last is not None and changed_share(self._last, levels) < self.share:
            return False
        self._last = levels
        return True


def changed_share(before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]) -> float:
    """Return the share of cells that changed between two pictures, 1 where shapes differ."""
    if before.shape != after.shape:
        return 1.0
    difference = after - before
    shared = np.median(difference)
    if abs(shared) >= _LIGHT:
        return 1.0
    return float((np.abs(difference - shared) > _CHANGED).mean())


def _levels(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return the brightness of each cell, in factors of two."""
    height, width = pixels.shape[:2]
    step = max(1, min(height // (_ROWS * _PIXELS), width // (_COLUMNS * _PIXELS)))
    some = pixels[::step, ::step]
    channels = 1 if some.ndim == 2 else some.shape[2]
    grey = some if some.ndim == 2 else some.sum(axis=2, dtype=np.uint32)
    rows, columns = min(_ROWS, grey.shape[0]), min(_COLUMNS, grey.shape[1])
    means = cell_means(grey.astype(np.uint32, copy=False), rows, columns) / channels
    levels: npt.NDArray[np.float64] = np.log2(means + _DARK)
    return levels
