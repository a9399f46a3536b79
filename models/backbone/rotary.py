"""Rotary positions: each pair of channels of a query or key is turned by angles of its patch.

    turned = x cos + partner(x) sin,   partner: (a, b) -> (-b, a) in each pair of channels

A row carries the number of its patch, from 1, through all that is dropped around it; number 0 is of
rows without a position (CLS, registers, rows that stand for many patches), which are not turned.
B. Heo et al., "Rotary Position Embedding for Vision Transformer" (arXiv 2403.13298); O. Simeoni et
al., "DINOv3" (arXiv 2508.10104). Angles are timm's of evaluation, in training too.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgdeploy.core.errors import UsageError
from fgdeploy.models.simplify import Simplifiable, Simplification

FOLD_ANGLES = Simplification(
    "fold-angles",
    "the patches' coordinates are the same in every image, so learned frequencies give constants",
    "sines and cosines of every head in every block",
)


class Turned(nn.Module):
    """Turns queries and keys by the angles of their rows.

    half: the partner of channel i of d is i + d/2; else channels 2i and 2i + 1 are a pair.
    """

    def __init__(self, half: bool) -> None:
        super().__init__()
        self.by_halves = half

    def tables(self) -> tuple[Tensor, Tensor]:
        """Return sines and cosines by place, [N + 1, H, d] or [N + 1, 1, d]; 0 turns nothing."""
        raise NotImplementedError

    def forward(self, places: Tensor | None, *parts: Tensor) -> list[Tensor]:
        """Return queries or keys [B, H, R, d] turned. places: [R] or [B, R], 0..N.

        Raises UsageError without places: a step of the method does not pass them on.
        """
        if places is None:
            raise UsageError(
                "the backbone's positions are rotary and a step of the method does not say which "
                "patches its rows are; choose a --backbone with learned positions, such as "
                "vit_small_patch16_224"
            )
        sin, cos = (_rows(table, places) for table in self.tables())
        return [(x * cos + self._partner(x) * sin).to(x.dtype) for x in parts]

    def _partner(self, x: Tensor) -> Tensor:
        if self.by_halves:
            first, second = x.chunk(2, dim=-1)
            return torch.cat([-second, first], dim=-1)
        _, heads, rows, size = x.shape
        even, odd = x.reshape(-1, heads, rows, size // 2, 2).unbind(dim=-1)
        return torch.stack([-odd, even], dim=-1).reshape(-1, heads, rows, size)


def _rows(table: Tensor, places: Tensor) -> Tensor:
    """Return the rows of a table that are at `places`, to multiply with [B, H, R, d]."""
    _, heads, size = table.shape
    taken = F.embedding(places, table.flatten(1))  # one plain gather in a graph
    if places.ndim == 1:
        return taken.reshape(places.shape[0], heads, size).transpose(0, 1)
    return taken.reshape(-1, places.shape[1], heads, size).transpose(1, 2)


class FixedAngles(Turned):
    """Angles that no training changes, the same in every head, or those of one trained network."""

    sin: Tensor
    cos: Tensor

    def __init__(self, sin: Tensor, cos: Tensor, half: bool) -> None:
        super().__init__(half)
        self.register_buffer("sin", sin, persistent=False)
        self.register_buffer("cos", cos, persistent=False)

    def tables(self) -> tuple[Tensor, Tensor]:
        """Return the tables as they are held."""
        return self.sin, self.cos


class LearnedAngles(Turned, Simplifiable):
    """Angles of learned frequencies, two for each pair of channels of a head (RoPE-Mixed).

    rope: timm's module, which holds them for all blocks; block: which one this is of, from 0.
    """

    simplifications = (FOLD_ANGLES,)

    def __init__(self, rope: Any, block: int) -> None:
        super().__init__(half=False)
        self.active = frozenset({FOLD_ANGLES.name})
        self.rope, self.block = rope, block

    def tables(self) -> tuple[Tensor, Tensor]:
        """Return the tables [N + 1, H, d] of the frequencies as they are now."""
        first, second = self.rope.freqs[:, self.block]  # [H, d/2] each
        kind = torch.promote_types(first.dtype, torch.float32)
        x, y = (axis.to(kind)[:, None, None] for axis in (self.rope.t_x, self.rope.t_y))
        angles = x * first.to(kind) + y * second.to(kind)
        wide = angles.repeat_interleave(2, dim=-1)
        return _with_none(wide.sin(), 0.0), _with_none(wide.cos(), 1.0)

    def folded(self) -> nn.Module:
        """Return the module with its angles as constants."""
        if not self.acts(FOLD_ANGLES):
            return self
        with torch.no_grad():
            return FixedAngles(*self.tables(), half=False)


def _with_none(table: Tensor, value: float) -> Tensor:
    """Return the table [N, ...] with a row for place 0."""
    return torch.cat([torch.full_like(table[:1], value), table])


def of(vit: Any) -> list[Turned] | None:
    """Return what turns queries and keys in each block of timm's Eva, None where nothing does.

    The angles are those of the model's image size.
    """
    rope, depth = vit.rope, len(vit.blocks)
    if rope is None:
        return None
    if hasattr(rope, "freqs"):
        return [LearnedAngles(rope, block) for block in range(depth)]
    with torch.no_grad():
        sin, cos = rope.eval().get_embed().detach().unsqueeze(1).chunk(2, dim=-1)
        half = bool(vit.blocks[0].attn.rotate_half)
        shared = FixedAngles(_with_none(sin, 0.0), _with_none(cos, 1.0), half)
    return [shared] * depth


def is_in(vit: Any) -> bool:
    """Return whether a backbone's positions are rotary."""
    return getattr(vit.blocks[0].attn, "turn", None) is not None


def places(vit: Any, prefix: int, suffix: int, device: torch.device) -> Tensor | None:
    """Return the places [T] of embedded rows, patches between `prefix` and `suffix` others.

    None where the backbone's positions are not rotary.
    """
    if not is_in(vit):
        return None
    numbers = torch.arange(int(vit.patch_embed.num_patches) + 1, device=device)
    none = numbers[:1]
    return torch.cat([none.expand(prefix), numbers[1:], none.expand(suffix)])


def take_places(places: Tensor, rows: Tensor, prefix: int, suffix: int = 0) -> Tensor:
    """Return the places [B, R] of the rows that `blocks.take_rows` takes.

    places: [T], the same in every image, or [B, T].
    """
    at = rows + prefix
    if places.ndim == 1:
        taken = F.embedding(at, places.unsqueeze(1)).squeeze(2)
    else:
        taken = places.gather(1, at)
    parts = [taken]
    if prefix:
        parts.insert(0, places[..., :prefix].expand(at.shape[0], -1))
    if suffix:
        parts.append(places[..., places.shape[-1] - suffix :].expand(at.shape[0], -1))
    return torch.cat(parts, dim=1) if len(parts) > 1 else taken


def unplaced_behind(places: Tensor, count: int) -> Tensor:
    """Return places [T] or [B, T] with `count` more rows behind that have none."""
    return torch.cat([places, places.new_zeros((*places.shape[:-1], count))], dim=-1)
