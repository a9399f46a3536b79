"""The largest connected part of a mask: by scipy, by the graph's rounds, and by hand."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from fgdeploy.core.errors import MissingDependency
from fgdeploy.models.looks.component import Around, Largest, Mask, labelled, largest_parts
from tests.checks import refused
from tests.models.methods.reference_aftrans import box_of, largest_component

# Corners connect; of two parts of four the upper one is taken.
DRAWN = """
##..
..#.
...#
....
.##.
.##.
"""
SPIRAL = """
#######
......#
#####.#
#...#.#
#.###.#
#.....#
#######
"""


def _read(drawn: str) -> Mask:
    return np.array([[one == "#" for one in row] for row in drawn.split()])


def _random(count: int, side: int, density: float) -> list[Mask]:
    chooser = np.random.default_rng(int(side * 100 * density))
    return [chooser.random((side, side)) < density for _ in range(count)]


def test_drawn_ones() -> None:
    found = labelled(_read(DRAWN))
    assert (
        found.tolist()
        == [[*map(bool, row)] for row in ([1, 1, 0, 0], [0, 0, 1, 0])]
        + [[False, False, False, True]]
        + [[False] * 4] * 3
    )
    assert labelled(np.zeros((2, 2), bool)).sum() == 0
    assert labelled(np.ones((2, 3), bool)).all()


@pytest.mark.parametrize("side", [1, 5, 18, 37])
@pytest.mark.parametrize("density", [0.05, 0.3, 0.41, 0.6, 0.9])
def test_all_three_agree_on_random_masks(side: int, density: float) -> None:
    masks = [mask for mask in _random(4, side, density) if mask.any()]
    if not masks:
        masks = [np.ones((side, side), bool)]
    given = torch.tensor(np.stack(masks)).flatten(1).float()
    expected = np.stack([largest_component(mask) for mask in masks])
    by_scipy = largest_parts(given, (side, side))
    assert (by_scipy.numpy().reshape(expected.shape) == expected).all()
    by_rounds = Largest((side, side), 2 * side)(given)
    assert (by_rounds.numpy().reshape(expected.shape) == expected).all()
    box = Around((side, side), 12, 16)(by_rounds)
    assert box.tolist() == [[*map(float, box_of(part, 12, 16))] for part in expected]


def test_a_grid_need_not_be_square() -> None:
    mask = _read(DRAWN)
    given = torch.tensor(mask).view(1, -1).float()
    assert (Largest((6, 4), 6)(given).view(6, 4).numpy() == labelled(mask)).all()
    assert Around((6, 4), 12, 16)(given).tolist() == [[0, 0, 76, 52]]


def test_parts_that_wind_further_than_the_rounds_are_cut() -> None:
    """Documented: the spiral is one part, 34 steps long, and needs as many rounds."""
    mask = _read(SPIRAL)
    given = torch.tensor(mask).view(1, -1).float()
    whole = labelled(mask)
    assert whole.sum() == mask.sum()
    assert (Largest((7, 7), 34)(given).view(7, 7).numpy() == whole).all()
    assert Largest((7, 7), 7)(given).sum() < whole.sum()


def test_it_asks_for_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with refused(MissingDependency, "finding connected patches needs the package scipy"):
        labelled(_read(DRAWN))
