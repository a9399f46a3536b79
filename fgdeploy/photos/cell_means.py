"""A picture as a few numbers: means of a grid of cells, for what compares whole pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def cell_means(grey: npt.NDArray[Any], rows: int, columns: int) -> npt.NDArray[np.float64]:
    """Return the means of cells of near equal size: (rows, columns) of values (H, W).

    Values are whole numbers whose sum fits their type. rows and columns: at most H and W.
    """
    found: npt.NDArray[Any] = grey
    sizes = []
    for axis, count in enumerate((rows, columns)):
        side = grey.shape[axis]
        starts = np.linspace(0, side, count, endpoint=False).astype(int)
        found = np.add.reduceat(found, starts, axis=axis)
        sizes.append(np.diff([*starts, side]))
    return found / np.outer(*sizes)
