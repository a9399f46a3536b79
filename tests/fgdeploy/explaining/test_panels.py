"""What is drawn: where it is dark, clear, tinted and outlined, and what stands under it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fgdeploy.explaining import panels
from fgdeploy.explaining.explanation import Explanation, Kept, Seen
from fgdeploy.explaining.panels import SIDE

COLOUR = (120, 200, 40)


def _drawn(seen: Seen) -> dict[str, Any]:
    frame = np.full((64, 64, 3), COLOUR, np.uint8)
    found = panels.draw(Explanation("a.jpg", frame, seen))
    assert found[0].caption == "photo"
    assert (np.asarray(found[0].image) == COLOUR).all()
    return {panel.caption: np.asarray(panel.image).astype(int) for panel in found[1:]}


def _middle(image: Any, row: int, column: int, grid: tuple[int, int]) -> Any:
    """Return the pixel in the middle of a patch."""
    rows, columns = grid
    return image[int((row + 0.5) * SIDE / rows), int((column + 0.5) * SIDE / columns)].tolist()


def test_dropped_patches_are_dark_and_kept_ones_as_they_are() -> None:
    grid = (3, 4)
    shares = np.zeros((2, 12))
    shares[0, 5], shares[1, 11] = 1, 1
    ((caption, image),) = _drawn(Seen(grid, kept=(Kept(4, shares),))).items()
    assert caption == "behind block 4: 2 of 12 patches"
    for patch in range(12):
        found = _middle(image, *divmod(patch, 4), grid)
        assert found == list(COLOUR) if patch in (5, 11) else max(found) < 60
    assert (image[-(-SIDE // 3), SIDE // 4 + 2 : SIDE // 2 - 2] == 255).all()  # on a dark photo too


def test_patches_that_share_a_row_have_one_tint_and_an_outline() -> None:
    shares = np.zeros((3, 16))
    shares[0, [0, 1, 4, 5]] = 1  # a square above left, beside another, above a row alone
    shares[1, [2, 3, 6, 7]] = 1
    shares[2, 8] = 1
    ((caption, image),) = _drawn(Seen((4, 4), kept=(Kept(7, shares),))).items()
    assert caption == "behind block 7: 3 rows for 9 patches"
    one, other, alone, gone = (
        _middle(image, *place, (4, 4)) for place in ((0, 0), (0, 2), (2, 0), (3, 3))
    )
    assert one == _middle(image, 1, 1, (4, 4)) and other == _middle(image, 1, 3, (4, 4))
    assert one != other and alone == list(COLOUR) and max(gone) < 60
    assert list(COLOUR) not in (one, other)
    assert (image[10:200, SIDE // 2] == 255).all()  # between the two
    assert (image[10:200, SIDE // 4] != 255).any(axis=1).all()  # not within one


def test_a_row_may_hold_the_greater_part_of_a_patch() -> None:
    shares = np.array([[0.9, 0.4, 0.2, 0.1], [0.1, 0.6, 0.8, 0.9]])
    ((_, image),) = _drawn(Seen((1, 4), kept=(Kept(1, shares),))).items()
    tints = [_middle(image, 0, column, (1, 4)) for column in range(4)]
    assert tints[1] == tints[2] == tints[3] != tints[0]


@pytest.mark.parametrize("groups", [2, 7, 30, 100])
def test_neighbours_have_different_colours_where_seven_suffice(groups: int) -> None:
    field = np.random.default_rng(groups).integers(-1, groups, (14, 14))
    colours = panels._coloured(field)
    clashes = sum(
        int(((a != b) & (a >= 0) & (b >= 0) & (x == y)).sum())
        for a, b, x, y in (
            (field[1:], field[:-1], colours[1:], colours[:-1]),
            (field[:, 1:], field[:, :-1], colours[:, 1:], colours[:, :-1]),
        )
    )
    # a group of one or two scattered fields has eight neighbours at most
    assert clashes == 0 if groups in (2, 7, 100) else clashes < 40
    for group in range(groups):
        assert len(set(colours[field == group].tolist())) <= 1


def test_a_map_runs_from_blue_to_yellow() -> None:
    values = np.array([[0.25, 0.5], [0.75, 1.25]])
    ((caption, image),) = _drawn(Seen((2, 2), maps={"similarity": values})).items()
    assert caption == "similarity, 0.25 to 1.25"
    red, _, blue = _middle(image, 0, 0, (2, 2))
    assert blue > red
    red, green, blue = _middle(image, 1, 1, (2, 2))
    assert min(red, green) > blue
    light = [sum(_middle(image, *place, (2, 2))) for place in ((0, 0), (0, 1), (1, 0), (1, 1))]
    assert light == sorted(light)


def test_a_map_of_ones_and_zeros_is_a_mask() -> None:
    values = np.array([[0.0, 1.0], [1.0, 0.0]])
    ((caption, image),) = _drawn(Seen((2, 2), maps={"component": values})).items()
    assert caption == "component"
    assert _middle(image, 0, 1, (2, 2)) == list(COLOUR)
    assert max(_middle(image, 0, 0, (2, 2))) < 60


def test_a_map_without_differences_is_drawn_too() -> None:
    ((caption, _),) = _drawn(Seen((2, 2), rollout=np.full((2, 2), 0.3))).items()
    assert caption == "attention rollout"


def test_a_box_is_outlined_on_the_map_and_clear_on_the_photo() -> None:
    box = np.array([8.0, 16.0, 40.0, 64.0])  # y0, x0, y1, x1 of 64 pixels
    drawn = _drawn(Seen((2, 2), maps={"similarity": np.eye(2) / 2}, boxes={"box": box}))
    scale = SIDE // 64
    image = drawn["box"]
    inside = image[8 * scale + 6 : 40 * scale - 6, 16 * scale + 6 : 64 * scale - 6]
    assert (inside == COLOUR).all()
    assert image[: 8 * scale - 1].max() < 60 and image[:, : 16 * scale - 1].max() < 60
    for shown in (image, drawn["similarity, 0 to 0.5"]):
        assert shown[8 * scale, 30 * scale].tolist() == [230, 159, 0]


@pytest.mark.parametrize("box", [(8, 8, 8, 16), (20, 8, 10, 16), (0, np.nan, 8, 8)])
def test_a_box_without_area_is_called_empty(box: tuple[float, ...]) -> None:
    ((caption, image),) = _drawn(Seen((2, 2), boxes={"box": np.array(box)})).items()
    assert caption == "box: empty" and image.max() < 60


def test_numbers_that_are_none_are_said_to_be_so() -> None:
    ((caption, _),) = _drawn(Seen((1, 2), maps={"s": np.array([[np.nan, 1.0]])})).items()
    assert caption == "s: not finite"


def test_many_panels_take_several_rows() -> None:
    maps = {f"map {number}": np.eye(2) for number in range(6)}
    frame = np.zeros((32, 32, 3), np.uint8)
    found = panels.picture(Explanation("a.jpg", frame, Seen((2, 2), maps)))
    assert found.width == 5 * (SIDE + 12) + 12 and found.height == 2 * (SIDE + 34) + 12
