"""The rectangle around the chosen patches, in pixels; and their order, best first."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fgdeploy.models.reduce.order import best


class Rectangle(nn.Module):
    """The rectangle around the `top` patches of the best scores, of equal ones the first.

    grid: patches in (rows, columns); patch: side in pixels. inclusive: the last chosen row and
    column are inside; otherwise they are outside, unless nothing would be left, as GLSim's
    released code has it (docs/models.md). A module, so that its nodes have a name to pin.
    """

    row: Tensor
    column: Tensor

    def __init__(self, grid: tuple[int, int], patch: int, top: int, inclusive: bool) -> None:
        super().__init__()
        places = torch.arange(grid[0] * grid[1])
        self.register_buffer("row", (places // grid[1]).float(), persistent=False)
        self.register_buffer("column", (places % grid[1]).float(), persistent=False)
        self.patch, self.top, self.inclusive = float(patch), top, inclusive

    def forward(self, scores: Tensor) -> Tensor:
        """Return y0, x0, y1, x1 [B, 4] of scores [B, N]; y1 and x1 are the first outside."""
        chosen = best(scores, self.top).mask > 0
        sides = []
        for table in (self.row, self.column):
            places = table.to(scores.dtype)
            first = torch.where(chosen, places, float(places.shape[0])).amin(dim=1)
            last = torch.where(chosen, places, -1.0).amax(dim=1)
            low, high = first * self.patch, last * self.patch
            end = high + self.patch if self.inclusive else torch.maximum(high, low + self.patch)
            sides.append((low, end))
        (top, bottom), (left, right) = sides
        return torch.stack([top, left, bottom, right], dim=1)


class BestFirst(nn.Module):
    """The rows of the `top` best scores, in the order of their scores, equal ones by position.

    A module, so that its nodes have a name to pin.
    """

    def __init__(self, top: int) -> None:
        super().__init__()
        self.top = top

    def forward(self, scores: Tensor) -> Tensor:
        """Return numbers [B, top] of scores [B, N]."""
        rows = best(scores, self.top).rows
        values = scores.gather(1, rows)
        mine, other = values.unsqueeze(2), values.unsqueeze(1)
        place = torch.arange(self.top, device=scores.device)
        earlier = (place.unsqueeze(0) < place.unsqueeze(1)).unsqueeze(0)
        before = (other > mine) | ((other == mine) & earlier)  # [B, mine, other]
        rank = before.to(values.dtype).sum(dim=2)
        at_rank = rank.unsqueeze(1) == place.to(values.dtype).unsqueeze(1)  # [B, rank, row]
        ordered = torch.where(at_rank, rows.unsqueeze(1).to(values.dtype), 0.0).sum(dim=2)
        return ordered.to(torch.int64)
