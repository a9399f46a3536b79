"""Means of cells, against the plain way."""

from __future__ import annotations

import numpy as np
import pytest

from fgdeploy.photos.cell_means import cell_means


@pytest.mark.parametrize(("height", "width", "rows", "columns"), [(7, 5, 3, 5), (24, 32, 4, 8)])
def test_against_slices(height: int, width: int, rows: int, columns: int) -> None:
    grey = np.random.default_rng(0).integers(0, 700, (height, width)).astype(np.uint32)
    found = cell_means(grey, rows, columns)
    downs, acrosses = ([int(side * n / of) for n in range(of + 1)] for side, of in
                       ((height, rows), (width, columns)))  # fmt: skip
    for row in range(rows):
        for column in range(columns):
            cell = grey[downs[row] : downs[row + 1], acrosses[column] : acrosses[column + 1]]
            assert found[row, column] == pytest.approx(cell.mean())
