"""A part of an image enlarged or reduced to fixed sides: two products with hat weights.

docs/methods.md, section 2.5: a bilinear resize is linear in the pixels, and rows and columns are
apart, so that every shape is fixed whatever the box.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from fgdeploy.models.reduce.layers import Product


class Hats(nn.Module):
    """Weights of a bilinear interpolation that spreads a part of a side over a whole new side.

    side: of the image in pixels; size: the new side, None for the same. Output i lies at
    i (h - 1) / (size - 1) in a part of h pixels, so the corners of the part become the corners of
    the result (align_corners). A module, so that its nodes have a name to pin.
    """

    def __init__(self, side: int, size: int | None = None) -> None:
        super().__init__()
        self.side, self.size = side, side if size is None else size

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Return [B, size, side] for parts from `low` up to, but not with, `high` [B, 1].

        Counted from `low`, places are whole numbers and small, so float32 loses least. Each row
        sums to one.
        """
        places = torch.arange(self.side, device=low.device).to(low.dtype)
        steps = torch.arange(self.size, device=low.device).to(low.dtype)
        last = high - low - 1
        at = torch.minimum(steps * last / max(self.size - 1, 1), last).unsqueeze(2)
        return (1 - (at - (places - low).unsqueeze(1)).abs()).relu()


class Crop(nn.Module):
    """Pixels [B, 3, S, S] inside a box as [B, 3, size, size], bilinear with align_corners.

    side: S; size: None for S. Equal to slicing and resizing, and to normalising before or behind
    it, as weights sum to one. In float32 at least, under autocast too: half precision would move
    pixels.
    """

    def __init__(self, side: int, size: int | None = None) -> None:
        super().__init__()
        self.hats = Hats(side, size)
        self.across, self.down = Product(), Product()

    def forward(self, pixels: Tensor, box: Tensor) -> Tensor:
        """Return the crops of y0, x0, y1, x1 [B, 4] in pixels, the last two behind the part."""
        top, left, bottom, right = box.chunk(4, dim=1)
        with in_full(pixels):
            rows, columns = self.hats(top, bottom), self.hats(left, right)
            held = pixels.to(rows.dtype)
            side, size = self.hats.side, self.hats.size
            wide = self.across(held.reshape(-1, 3 * side, side), columns.transpose(1, 2))
            crop: Tensor = self.down(rows.unsqueeze(1), wide.reshape(-1, 3, side, size))
        return crop


def in_full(like: Tensor) -> AbstractContextManager[object]:
    """Return a context in which autocast does not lower what is computed."""
    kind = like.device.type
    if torch.compiler.is_exporting() or like.is_meta or not torch.is_autocast_enabled(kind):
        return contextlib.nullcontext()
    return torch.autocast(kind, enabled=False)
