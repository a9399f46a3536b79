"""What makes one embedding of the rows that several looks gave (GLSim's aggregator)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from timm.models.vision_transformer import Block as TimmBlock
from torch import Tensor, nn

from fgdeploy.models.backbone import blocks
from fgdeploy.models.backbone.blocks import Block
from fgdeploy.models.simplify import Simplifiable, Simplification

FIRST_ROW = Simplification(
    "first-row",
    "behind the aggregator only its first row is read, and all but keys and values work row by row",
    "queries, proj, MLP and norm of the aggregator's other rows",
)

POOLS = ("cls", "mean", "both")


@dataclass(frozen=True)
class AggregatorShape:
    """width: R, what rows are reduced to; heads: of its blocks; layers: how many blocks.

    norm_eps: of the last norm, None for no such norm. pool: what is read of the R rows: the first
    (`cls`), the mean of all (`mean`), or the first beside the mean of the others (`both`).
    """

    width: int
    heads: int
    layers: int = 1
    norm_eps: float | None = 1e-6
    pool: str = "cls"


class BlockAggregator(Simplifiable):
    """Rows [B, R, D] through a reducer, pre-norm blocks without positions, and a norm.

    like: a block of the backbone, whose norms, layer scales and activation these have too. The
    reducer is there where widths differ. begun: its weights are new.
    """

    simplifications = (FIRST_ROW,)

    def __init__(self, like: Block, shape: AggregatorShape) -> None:
        super().__init__()
        entering = int(like.norm1.weight.shape[0])
        self.pool, self.reads = shape.pool, shape.width * (2 if shape.pool == "both" else 1)
        same = shape.width == entering
        self.reducer = nn.Identity() if same else nn.Linear(entering, shape.width)
        self.blocks = nn.ModuleList(_block(like, shape) for _ in range(shape.layers))
        self.norm = _norm(shape)
        self.begun = False

    def forward(self, rows: Tensor) -> Tensor:
        """Return the embedding [B, R], or [B, 2 R]."""
        x = self.reducer(rows)
        short = self.pool == "cls" and self.acts(FIRST_ROW)
        for number, block in enumerate(self.blocks, start=1):
            if short and number == len(self.blocks):
                x = blocks.run_cls_only(block, x)
            else:
                x = blocks.complete(block, blocks.attend(block, x))
        return pooled(self.norm(x[:, :1] if short else x), self.pool)

    def begin(self) -> None:
        """Start so that the first row comes through, with about the mean of all beside it.

        Queries and keys are small, so attention is even; values pass unchanged; the MLP adds
        nothing yet. Our choice: the authors' start is random and needs a longer training.
        """
        self.begun = True
        with torch.no_grad():
            for block in self.blocks:
                _pass_on(block)
            if isinstance(self.reducer, nn.Linear):
                nn.init.orthogonal_(self.reducer.weight)
                self.reducer.bias.zero_()


class ConvolvedAggregator(nn.Module):
    """Rows [B, R, D] to one by a convolution over all of them, between norms (GLSim).

    depthwise: each channel by itself, then GELU and a product over channels (`dwsc`); otherwise
    one convolution over channels and rows (`conv`). `norm` is the last.
    """

    def __init__(self, width: int, rows: int, depthwise: bool) -> None:
        super().__init__()
        self.reads = width
        self.norm_in = nn.LayerNorm(width)
        self.mix = nn.Conv1d(width, width, rows, groups=width if depthwise else 1)
        self.between = nn.LayerNorm(width) if depthwise else None
        self.point = nn.Conv1d(width, width, 1) if depthwise else None
        self.norm = nn.LayerNorm(width)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the embedding [B, D]."""
        x = self.mix(self.norm_in(rows).transpose(1, 2)).transpose(1, 2)
        if self.between is not None and self.point is not None:
            x = nn.functional.gelu(self.between(x).transpose(1, 2))
            x = self.point(x).transpose(1, 2)
        found: Tensor = self.norm(x)[:, 0]
        return found

    def begin(self) -> None:
        """Start so that the first row comes through, and the point convolution passes it on."""
        width = self.reads
        with torch.no_grad():
            self.mix.weight.zero_()
            if self.mix.groups == 1:
                self.mix.weight[:, :, 0] = torch.eye(width)
            else:
                self.mix.weight[:, :, 0] = 1.0
            if self.point is not None:
                self.point.weight.copy_(torch.eye(width).unsqueeze(2))
            for conv in (self.mix, self.point):
                if conv is not None and conv.bias is not None:
                    conv.bias.zero_()


def pooled(x: Tensor, pool: str) -> Tensor:
    """Return what is read of rows x [B, R, D]."""
    if pool == "mean":
        return x.mean(dim=1)
    if pool == "both":
        return torch.cat([x[:, 0], x[:, 1:].mean(dim=1)], dim=1)
    return x[:, 0]


def _norm(shape: AggregatorShape) -> nn.Module:
    return nn.Identity() if shape.norm_eps is None else nn.LayerNorm(shape.width, shape.norm_eps)


def _block(like: Block, shape: AggregatorShape) -> Block:
    """Return a block with the backbone's kinds of layers, and an MLP of four times its width."""
    scaled, norm = hasattr(like.ls1, "gamma"), cast(Any, type(like.norm1))
    return TimmBlock(
        shape.width,
        shape.heads,
        mlp_ratio=4.0,
        qkv_bias=blocks.has_bias(like),
        qk_norm=not isinstance(like.attn.q_norm, nn.Identity),
        proj_bias=like.attn.proj.bias is not None,
        init_values=1.0 if scaled else None,
        act_layer=type(like.mlp.act),
        norm_layer=partial(norm, eps=float(like.norm1.eps)),
    )


def _pass_on(block: Block) -> None:
    width = int(block.norm1.weight.shape[0])
    std = 0.02
    nn.init.trunc_normal_(block.attn.qkv.weight[: 2 * width], std=std)
    for eye in (block.attn.qkv.weight[2 * width :], block.attn.proj.weight):
        eye.copy_(torch.eye(width))
    nn.init.trunc_normal_(block.mlp.fc1.weight, std=std)
    block.mlp.fc2.weight.zero_()
    for layer in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
        if layer.bias is not None:
            layer.bias.zero_()
