"""The largest connected part of a mask over the grid of patches, and the box around it.

Patches that touch at sides or corners are connected; of parts of one size the one that comes first,
row by row, is taken. `labelled` finds it with scipy, in training and for pictures; `Largest` with
fixed shapes, in graphs.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgdeploy.core.errors import MissingDependency

Mask = npt.NDArray[np.bool_]


def labelled(mask: Mask) -> Mask:
    """Return the largest part of a mask [rows, columns], none of an empty one."""
    try:
        from scipy import ndimage
    except ImportError:
        raise MissingDependency("scipy", "train", "finding connected patches") from None
    parts, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if not count:
        return np.zeros_like(mask, dtype=np.bool_)
    numbers, first, sizes = np.unique(parts, return_index=True, return_counts=True)
    order = sorted(range(len(numbers)), key=lambda at: (numbers[at] == 0, -sizes[at], first[at]))
    found: Mask = parts == numbers[order[0]]
    return found


def largest_parts(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the largest part of each mask [B, N] of ones and zeros over a grid, by scipy."""
    held = masks.detach().cpu().numpy().reshape(-1, *grid) > 0
    found = np.stack([labelled(mask) for mask in held]).reshape(len(held), -1)
    return torch.from_numpy(found).to(masks)


class Largest(nn.Module):
    """The largest part of masks [B, N] of ones and zeros, with fixed shapes.

    grid: patches in (rows, columns). Each patch starts with a number of its own and `rounds` times
    takes the greatest around it in the mask, so that a part ends with one number: exact where no
    patch is more than `rounds` steps from the first one of its part, along patches of that part;
    else such a part counts as several. A module, so that its nodes have a name to pin.
    """

    falling: Tensor

    def __init__(self, grid: tuple[int, int], rounds: int) -> None:
        super().__init__()
        self.grid, self.rounds = grid, rounds
        numbers = torch.arange(grid[0] * grid[1], 0, -1).float()
        self.register_buffer("falling", numbers.view(1, 1, *grid), persistent=False)

    def forward(self, masks: Tensor) -> Tensor:
        """Return masks [B, N] of the largest parts."""
        inside = masks.view(-1, 1, *self.grid).to(self.falling.dtype)
        numbers = self.falling * inside
        for _ in range(self.rounds):
            numbers = F.max_pool2d(numbers, 3, stride=1, padding=1) * inside
        flat, inside = numbers.flatten(1), inside.flatten(1)
        same = (flat.unsqueeze(2) == flat.unsqueeze(1)).to(flat.dtype)
        sizes = same.sum(dim=2) * inside
        largest = (sizes == sizes.amax(dim=1, keepdim=True)).to(flat.dtype) * inside
        first = (flat * largest).amax(dim=1, keepdim=True)
        return (flat == first).to(masks.dtype) * inside.to(masks.dtype)


class Around(nn.Module):
    """The box around patches: [stride r0, stride r1 + patch) and the same of columns.

    grid: patches in (rows, columns). A module, so that its nodes have a name to pin.
    """

    row: Tensor
    column: Tensor

    def __init__(self, grid: tuple[int, int], stride: int, patch: int) -> None:
        super().__init__()
        places = torch.arange(grid[0] * grid[1])
        self.register_buffer("row", (places // grid[1]).float(), persistent=False)
        self.register_buffer("column", (places % grid[1]).float(), persistent=False)
        self.stride, self.patch = float(stride), float(patch)

    def forward(self, masks: Tensor) -> Tensor:
        """Return y0, x0, y1, x1 [B, 4] in pixels of masks [B, N] that are not empty."""
        sides = []
        for places in (self.row, self.column):
            first = torch.where(masks > 0, places, float(len(places))).amin(dim=1)
            last = torch.where(masks > 0, places, -1.0).amax(dim=1)
            sides.append((self.stride * first, self.stride * last + self.patch))
        (top, bottom), (left, right) = sides
        return torch.stack([top, left, bottom, right], dim=1)
