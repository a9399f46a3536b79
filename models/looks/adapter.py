"""Bottlenecks beside attention and MLP of a block (path B of arkel23/GLSim).

    y = up(GELU(down(n)));   x + ls1 * proj(attention) + y of norm1;   x + ls2 * mlp + y of norm2

With a convolution of 3 x 3 and one more GELU within (`convpass`): over the grid of patches, and
over CLS as an image of one pixel, of which only the kernel's middle is seen.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgdeploy.core.errors import UsageError
from fgdeploy.models.backbone import blocks
from fgdeploy.models.backbone.blocks import Attended, Block
from fgdeploy.models.backbone.vit import Geometry
from fgdeploy.models.tokens import Tokens
from fgdeploy.models.walk import CLS_LAST, LastStep, Step

ADAPTERS = ("none", "plain", "convpass")
_SHARE = 96  # the channels within are the width over this


class Bottleneck(nn.Module):
    """What is added to rows that a norm of the block has seen; it starts at nothing.

    grid: of the patches, rows and columns, where there is a convolution; else None.
    """

    def __init__(self, width: int, grid: tuple[int, int] | None) -> None:
        super().__init__()
        inner = max(1, width // _SHARE)
        self.adapter_down = nn.Linear(width, inner)
        self.adapter_up = nn.Linear(inner, width)
        self.adapter_conv: nn.Conv2d | None = None
        if grid is not None:
            self.adapter_conv = nn.Conv2d(inner, inner, 3, padding=1)
        self.grid = grid
        nn.init.xavier_uniform_(self.adapter_down.weight)
        for value in (self.adapter_down.bias, self.adapter_up.weight, self.adapter_up.bias):
            nn.init.zeros_(value)

    def forward(self, n: Tensor) -> Tensor:
        """Return y [B, R, D] of normalised rows n [B, R, D]: all rows, or CLS alone."""
        z = F.gelu(self.adapter_down(n))
        if self.adapter_conv is not None:
            z = F.gelu(self._convolved(self.adapter_conv, z))
        y: Tensor = self.adapter_up(z)
        return y

    def _convolved(self, conv: nn.Conv2d, z: Tensor) -> Tensor:
        cls = F.linear(z[:, :1], conv.weight[:, :, 1, 1], conv.bias)
        if z.shape[1] == 1 or self.grid is None:
            return cls
        image = z[:, 1:].transpose(1, 2).reshape(-1, z.shape[2], *self.grid)
        return torch.cat([cls, conv(image).flatten(2).transpose(1, 2)], dim=1)


class AdapterStep(Step):
    """A block with bottlenecks beside its attention and its MLP.

    kind: `plain`, or `convpass` with the convolution. Raises UsageError where rows before the
    patches are more than CLS, which the convolution has no place for.
    """

    def __init__(self, shape: Geometry, kind: str) -> None:
        super().__init__()
        if kind == "convpass" and shape.prefix_tokens > 1:
            raise UsageError(
                f"--set adapter=convpass: the backbone has {shape.prefix_tokens} tokens before its "
                "patches, expected CLS alone; use adapter=plain or another --backbone"
            )
        grid = shape.grid if kind == "convpass" else None
        self.adapter_attn = Bottleneck(shape.width, grid)
        self.adapter_pwffn = Bottleneck(shape.width, grid)

    def forward(self, block: Block, tokens: Tokens) -> Tokens:
        """Run the block on all rows."""
        return self._all_rows(block, tokens)

    def _all_rows(self, block: Block, tokens: Tokens) -> Tokens:
        n, attended = _attended(block, tokens)
        return tokens.seeing(attended).having(self._complete(block, n, attended.x, attended.out))

    def _complete(self, block: Block, n: Tensor, x: Tensor, out: Tensor) -> Tensor:
        """Finish the block on rows x [B, R, D]; n: norm1 of them; out: what they attended."""
        merged = blocks.merge(block, x, out) + block.drop_path1(self.adapter_attn(n))
        m = blocks.enter_mlp(block, merged)
        fed = merged + block.drop_path2(block.ls2(block.mlp(m)))
        y: Tensor = fed + block.drop_path2(self.adapter_pwffn(m))
        return y


class LastAdapterStep(AdapterStep, LastStep):
    """The same in the last block: exact for the CLS row, which is all that is read behind it."""

    simplifications = LastStep.simplifications

    def forward(
        self, block: Block, tokens: Tokens, all_rows: bool = False, attention: bool = False
    ) -> Tokens:
        """Run the block; on the CLS row alone where that is enough."""
        if all_rows or not self.acts(CLS_LAST):
            return self._all_rows(block, tokens)
        if attention:
            n, attended = _attended(block, tokens)
            out, seen = attended.out[:, :1], tokens.seeing(attended)
        else:
            n = blocks.enter_attention(block, tokens.x)
            q = blocks.queries(block, n[:, :1], tokens.cls_place)
            k, v = blocks.keys_values(block, n, tokens.places)
            out = blocks.attention(block, q, k, v, tokens.bias())
            seen = tokens.having(tokens.x, attended=None)
        return seen.cls_alone(self._complete(block, n[:, :1], tokens.x[:, :1], out))


def _attended(block: Block, tokens: Tokens) -> tuple[Tensor, Attended]:
    """Return norm1 of all rows, and what they attended."""
    n, bias = blocks.enter_attention(block, tokens.x), tokens.bias()
    q, k, v = blocks.project_normed(block, n, tokens.places)
    out = blocks.attention(block, q, k, v, bias)
    return n, Attended(tokens.x, q, k, v, out, bias)


def adapter_steps(shape: Geometry, kind: str, like: Any) -> dict[int, Step]:
    """Return a step for every block by its number, none for the kind `none`.

    like: a tensor of the backbone, whose type and device the bottlenecks have.
    """
    if kind == "none":
        return {}
    kinds = {number: AdapterStep for number in range(1, shape.depth)}
    kinds[shape.depth] = LastAdapterStep
    return {number: made(shape, kind).to(like) for number, made in kinds.items()}
