"""Explanations drawn: the photo, and beside it each thing that is seen, with captions.

Colours are told apart without red and green: the palette of Okabe and Ito for groups and boxes, a
ramp from blue to yellow for maps, whose lightness rises too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from fgdeploy.core.text import counted
from fgdeploy.explaining.explanation import Explanation, Kept, Numbers

SIDE = 448  # pixels of a panel
_GAP, _CAPTION, _FONT = 12, 34, 18
_PER_ROW = 5
_GROUPS = np.array(
    [
        (230, 159, 0),
        (86, 180, 233),
        (0, 158, 115),
        (240, 228, 66),
        (0, 114, 178),
        (213, 94, 0),
        (204, 121, 167),
    ],
    dtype=np.float64,
)
_ORANGE = (230, 159, 0)
_LOW, _MIDDLE, _HIGH = (np.array(one) for one in ((0, 32, 81), (124, 123, 120), (253, 234, 69)))
_TINT, _DARK, _HEAT = 0.5, 0.22, 0.65  # share of a group's colour, of a dropped patch, of a map

Pixels = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Panel:
    """One picture, SIDE pixels square, and what stands under it."""

    caption: str
    image: Image.Image


def draw(explanation: Explanation) -> list[Panel]:
    """Return the photo, its maps, boxes, kept patches and rollout, in this order."""
    seen = explanation.seen
    photo = Image.fromarray(explanation.frame).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    scale = SIDE / explanation.frame.shape[0]
    boxes = {name: [float(side) * scale for side in box] for name, box in seen.boxes.items()}
    panels = [Panel("photo", photo)]
    for name, values in seen.maps.items():
        panels.append(_map_panel(name, values, photo))
    for panel in panels[1:]:
        for box in boxes.values():
            _outline(panel.image, box)
    for name, box in boxes.items():
        panels.append(Panel(name if _has_area(box) else f"{name}: empty", _boxed(photo, box)))
    for kept in seen.kept:
        panels.append(Panel(_told(kept), _kept(photo, kept, seen.grid)))
    if seen.rollout is not None:
        panels.append(Panel("attention rollout", _heated(photo, seen.rollout)))
    return panels


def picture(explanation: Explanation) -> Image.Image:
    """Return all panels side by side, in rows of five, with their captions."""
    panels = draw(explanation)
    columns = min(len(panels), _PER_ROW)
    rows = -(-len(panels) // columns)
    sheet = Image.new(
        "RGB",
        (_GAP + columns * (SIDE + _GAP), _GAP + rows * (SIDE + _CAPTION)),
        "white",
    )
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT)
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        left, top = _GAP + column * (SIDE + _GAP), _GAP + row * (SIDE + _CAPTION)
        sheet.paste(panel.image, (left, top))
        pen.text((left, top + SIDE + 4), panel.caption, fill="black", font=font)
    return sheet


def _told(kept: Kept) -> str:
    count, of = int(kept.patches.sum()), kept.shares.shape[1]
    if kept.alone.sum() == count:
        return f"behind block {kept.block}: {count} of {of} patches"
    return f"behind block {kept.block}: {counted(kept.rows, 'row')} for {count} patches"


def _map_panel(name: str, values: Numbers, photo: Image.Image) -> Panel:
    if np.isin(values, (0, 1)).all():
        inside = _over_pixels(values > 0)
        shown = np.where(inside[..., None], _array(photo), _darkened(_array(photo)))
        return Panel(name, _image(shown))
    if not np.isfinite(values).all():
        return Panel(f"{name}: not finite", _image(_darkened(_array(photo))))
    return Panel(f"{name}, {values.min():.3g} to {values.max():.3g}", _heated(photo, values))


def _heated(photo: Image.Image, values: Numbers) -> Image.Image:
    """Lay a map over the photo in grey: blue where it is least, yellow where it is greatest."""
    low, high = float(values.min()), float(values.max())
    level = (values - low) / (high - low) if high > low else np.zeros_like(values)
    level = _over_pixels(level)[..., None]
    half = np.minimum(2 * level, 1), np.maximum(2 * level - 1, 0)
    ramp = _LOW + half[0] * (_MIDDLE - _LOW) + half[1] * (_HIGH - _MIDDLE)
    return _image(_HEAT * ramp + (1 - _HEAT) * _grey(photo))


def _kept(photo: Image.Image, kept: Kept, grid: tuple[int, int]) -> Image.Image:
    """Darken what was dropped, tint what shares a row with others, outline such groups."""
    holders, alone = kept.holders.reshape(grid), kept.alone.reshape(grid)
    grouped = (holders >= 0) & ~alone
    shown = _array(photo)
    tints = _GROUPS[_coloured(np.where(grouped, holders, -1))]
    tint = _over_pixels(grouped)[..., None]
    shown = np.where(tint, _TINT * _over_pixels(tints) + (1 - _TINT) * _grey(photo), shown)
    shown = np.where(_over_pixels(holders < 0)[..., None], _darkened(_array(photo)), shown)
    dropped_apart = np.where(holders < 0, -2, -1)  # on a dark photo too
    shown[_edges(_over_pixels(np.where(grouped, holders, dropped_apart)))] = 255
    return _image(shown)


def _coloured(groups: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Return a colour's number for each field of a grid of groups, so that neighbours differ.

    Greedily, the greatest group first, which gets the first colour; where the neighbours of one use
    all colours, it gets the one that the fewest of them use. -1 is no group.
    """
    colours: dict[int, int] = {}
    names, sizes = np.unique(groups[groups >= 0], return_counts=True)
    for place, group in enumerate(names[np.argsort(-sizes, kind="stable")].tolist()):
        uses = [0] * len(_GROUPS)
        for other in _neighbours(groups, group):
            if other in colours:
                uses[colours[other]] += 1
        turn = place % len(_GROUPS)  # not the same few colours everywhere
        order = [*range(turn, len(_GROUPS)), *range(turn)]
        colours[group] = min(order, key=uses.__getitem__)
    return np.array([[colours.get(group, 0) for group in row] for row in groups.tolist()])


def _neighbours(groups: npt.NDArray[Any], group: int) -> set[int]:
    wide = np.pad(groups, 1, constant_values=-1)
    inside = wide == group
    near = np.zeros_like(inside)
    for axis in (0, 1):
        for step in (1, -1):
            near |= np.roll(inside, step, axis)
    return set(wide[near & ~inside].tolist()) - {-1}


def _edges(fields: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return the pixels left of or above which another field begins."""
    edges = np.zeros(fields.shape, bool)
    edges[1:] |= fields[1:] != fields[:-1]
    edges[:, 1:] |= fields[:, 1:] != fields[:, :-1]
    return edges


def _boxed(photo: Image.Image, box: list[float]) -> Image.Image:
    top, left, bottom, right = box
    rows, columns = np.arange(SIDE)[:, None] + 0.5, np.arange(SIDE)[None] + 0.5
    inside = (rows > top) & (rows < bottom) & (columns > left) & (columns < right)
    shown = _image(np.where(inside[..., None], _array(photo), _darkened(_array(photo))))
    _outline(shown, box)
    return shown


def _has_area(box: list[float]) -> bool:
    top, left, bottom, right = box
    return bottom > top and right > left


def _outline(image: Image.Image, box: list[float]) -> None:
    if not _has_area(box):
        return
    top, left, bottom, right = (min(max(side, 0), SIDE - 1) for side in box)
    for colour, width in (("black", 5), (_ORANGE, 3)):
        ImageDraw.Draw(image).rectangle((left, top, right, bottom), outline=colour, width=width)


def _over_pixels(fields: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a grid of fields [rows, columns, ...] as pixels [SIDE, SIDE, ...]."""
    rows, columns = (np.arange(SIDE) * count // SIDE for count in fields.shape[:2])
    found: npt.NDArray[Any] = fields[rows[:, None], columns[None]]
    return found


def _darkened(photo: Pixels) -> Pixels:
    return _DARK * photo


def _grey(photo: Image.Image) -> Pixels:
    return _array(photo.convert("L").convert("RGB"))


def _array(image: Image.Image) -> Pixels:
    return np.asarray(image, np.float64).copy()


def _image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8))


def shown_ways(explanation: Explanation) -> Iterator[str]:
    """Yield what the panels of an explanation mean, a sentence each."""
    seen = explanation.seen
    if seen.maps or seen.rollout is not None:
        yield "Maps run from blue, the least, to yellow, the greatest."
    if any(not kept.patches.all() for kept in seen.kept):
        yield "Dark patches were dropped."
    if any(kept.alone.sum() < kept.patches.sum() for kept in seen.kept):
        yield "Tinted patches share a row with others; one colour may stand for several rows."
