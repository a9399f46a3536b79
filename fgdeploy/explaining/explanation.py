"""What a model looked at in one photo, as numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fgdeploy.core import atomic

Numbers = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Kept:
    """What the rows behind a block (from 1) stand for.

    shares: [rows, N], what part of each of the N patches a row holds. A patch that no row holds was
    dropped; a row that holds several was merged or mixed of them.
    """

    block: int
    shares: Numbers

    @property
    def rows(self) -> int:
        """Return how many rows hold patches."""
        return len(self.shares)

    @property
    def patches(self) -> npt.NDArray[np.bool_]:
        """Return which patches are held, [N]."""
        return np.asarray(self.shares.sum(axis=0) > 0)

    @property
    def alone(self) -> npt.NDArray[np.bool_]:
        """Return which patches have a row that holds nothing else, [N]."""
        single = (self.shares > 0).sum(axis=1) == 1
        return np.asarray(self.shares[single].sum(axis=0) > 0)

    @property
    def holders(self) -> npt.NDArray[np.intp]:
        """Return the row that holds most of each patch, [N]; -1 where none does."""
        if not self.rows:
            return np.full(self.shares.shape[1], -1)
        return np.where(self.patches, self.shares.argmax(axis=0), -1)


@dataclass(frozen=True)
class Seen:
    """What a model says of one frame. grid: patches in (rows, columns).

    maps: by name, [rows, columns]; boxes: by name, (y0, x0, y1, x1) in pixels of the frame; kept:
    behind each block that changed what rows stand for; rollout: [rows, columns].
    """

    grid: tuple[int, int]
    maps: Mapping[str, Numbers] = field(default_factory=dict)
    boxes: Mapping[str, Numbers] = field(default_factory=dict)
    kept: tuple[Kept, ...] = ()
    rollout: Numbers | None = None


@dataclass(frozen=True)
class Explanation:
    """What a model looked at in a photo. frame: uint8 (S, S, 3), the photo as the model saw it."""

    name: str
    frame: npt.NDArray[np.uint8]
    seen: Seen

    def picture(self) -> Image.Image:
        """Return the photo and all that is seen of it, side by side, with captions."""
        from fgdeploy.explaining import panels

        return panels.picture(self)

    def save(self, target: str | Path) -> None:
        """Write the picture as a PNG, atomically."""
        with atomic.new_file(Path(target)) as stream:
            self.picture().save(stream, "PNG", optimize=True)


def shapes_of_interest(
    shapes: Mapping[str, tuple[int, ...]], grid: tuple[int, int]
) -> tuple[list[str], list[str]]:
    """Return which tensors of an image are maps of the patches and which are boxes, by their shape.

    A map is as large as the grid; a box is called so and has four numbers.
    """
    maps = [name for name, shape in shapes.items() if shape == grid]
    boxes = [name for name, shape in shapes.items() if shape == (4,) and "box" in name]
    return maps, boxes


def seen_in(tensors: Mapping[str, npt.NDArray[Any]], grid: tuple[int, int], **further: Any) -> Seen:
    """Return what the tensors of one image show."""
    shapes = {name: value.shape for name, value in tensors.items()}
    maps, boxes = shapes_of_interest(shapes, grid)
    return Seen(
        grid,
        {name: tensors[name].astype(np.float64) for name in maps},
        {name: tensors[name].astype(np.float64) for name in boxes},
        **further,
    )
