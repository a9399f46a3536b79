"""A method that nobody published, in one file, for tests/test_made_up_method.py.

It does what the frame must allow: a step before a block, one inside attention, one after; a suffix
token; a cache that makes tokens grow; weights of its own; an option; CLS rows of three blocks that
no norm has seen; a second pass over a crop; an extra output; precision pins; a key map.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fgdeploy.models.backbone import blocks
from fgdeploy.models.backbone.blocks import Block
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.heads.base import Features
from fgdeploy.models.methods.base import FAST, Method
from fgdeploy.models.options import Options
from fgdeploy.models.tokens import Tokens
from fgdeploy.models.walk import CLSRows, Observer, Step

SIZE, BITS, WIDTH, DEPTH = 64, 16, 64, 6  # timm's test_vit


@dataclass(frozen=True)
class MadeUpOptions(Options):
    """keep: tokens that are left before the second block; zoom: look at a crop as well."""

    keep: int = 9
    zoom: bool = True


class Pool(Step):
    """Before a block: patches become `keep` weighted means, by learned queries."""

    def __init__(self, keep: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(keep, WIDTH) * 0.1)

    def forward(self, block: Block, tokens: Tokens) -> Tokens:
        end = tokens.count - tokens.suffix
        patches = tokens.x[:, tokens.prefix : end]
        weights = (self.queries @ patches.transpose(1, 2)).softmax(dim=-1)
        parts = [tokens.x[:, : tokens.prefix], weights @ patches, tokens.x[:, end:]]
        return super().forward(block, tokens.having(torch.cat(parts, dim=1)))


class Choose(nn.Module):
    """Which rows may ask: those that CLS attends to most."""

    def __init__(self, keep: int) -> None:
        super().__init__()
        self.keep = keep

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        scores = blocks.softmax_products(q, k).mean(dim=1)[:, 0, 1:]
        return scores.topk(self.keep, dim=1, sorted=False).indices


class FewQueries(Step):
    """Inside attention: only the rows that CLS attends to most are queries, the rest end here."""

    def __init__(self, keep: int) -> None:
        super().__init__()
        self.choose = Choose(keep)

    def forward(self, block: Block, tokens: Tokens) -> Tokens:
        y = block.norm1(tokens.x)
        k, v = blocks.keys_values(block, y)
        rows = self.choose(blocks.queries(block, y[:, :1]), k)
        x, y = (blocks.take_rows(part, rows, 1) for part in (tokens.x, y))
        out = blocks.attention(block, blocks.queries(block, y), k, v)
        x = blocks.feed_forward(block, blocks.merge(block, x, out))
        return tokens.having(x, suffix=0, cache=(x[:, 1:].mean(dim=1, keepdim=True),))


class Recall(Step):
    """After a block: what an earlier step kept aside joins the tokens, through a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.adapt = nn.Linear(WIDTH, WIDTH)

    def forward(self, block: Block, tokens: Tokens) -> Tokens:
        after = super().forward(block, tokens)
        rows = [self.adapt(row) for row in after.cache]
        return after.having(torch.cat([after.x, *rows], dim=1), cache=())


class Looks:
    """Observes where CLS looks in the first block."""

    wants_attention = False

    def __call__(self, number: int, tokens: Tokens) -> None:
        if number == 1:
            assert tokens.attended is not None
            self.where = tokens.attended.cls_attention().mean(dim=1)[:, 1:-1]


class Crop(nn.Module):
    """The rectangle around the two patches that are looked at most, scaled up to the image."""

    row: Tensor
    column: Tensor

    def __init__(self, grid: int, patch: int) -> None:
        super().__init__()
        places = torch.arange(grid * grid)
        self.register_buffer("row", (places // grid).float(), persistent=False)
        self.register_buffer("column", (places % grid).float(), persistent=False)
        self.patch = float(patch)

    def forward(self, where: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        best = where.topk(2, dim=1).indices
        sides, box = [], []
        for table, length in ((self.row, pixels.shape[2]), (self.column, pixels.shape[3])):
            places = table[best]
            low = self.patch * places.amin(dim=1, keepdim=True)
            high = self.patch * (places.amax(dim=1, keepdim=True) + 1)
            steps = torch.arange(length, dtype=low.dtype) / (length - 1)
            at = low + steps * (high - low - 1)
            grid = torch.arange(length, dtype=low.dtype)
            sides.append((1 - (at.unsqueeze(2) - grid).abs()).relu())
            box += [low, high]
        crop = sides[0].unsqueeze(1) @ pixels @ sides[1].unsqueeze(1).transpose(2, 3)
        return torch.cat(box, dim=1), crop


class TwoLooks(Encoder):
    """The steps, twice, with a learned mean of CLS rows of three blocks."""

    def __init__(self, vit: Any, norm: Any, options: MadeUpOptions) -> None:
        steps = {2: Pool(options.keep), 3: FewQueries(4), 5: Recall()}
        super().__init__(vit, norm, steps, nn.Parameter(torch.randn(1, 1, WIDTH) * 0.02))
        self.mix = nn.Parameter(torch.tensor([0.5, 0.3, 0.2]))
        self.crop = Crop(int(vit.patch_embed.grid_size[0]), int(vit.patch_embed.patch_size[0]))
        self.zoom = options.zoom

    def forward(self, pixels: Tensor, observers: Sequence[Observer] = ()) -> Features:
        looks, rows = Looks(), CLSRows((2, 4, DEPTH))
        first = super().forward(pixels, [*observers, looks, rows])
        embedding = first.embedding + self.mix @ torch.stack(rows.rows, dim=1)
        box, crop = self.crop(looks.where, pixels)
        if self.zoom:
            embedding = embedding + super().forward(crop).embedding
        return Features(embedding, {"box": box})


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read what the authors would have saved: everything below `net`, the token `extra`."""
    if not any(key.startswith("net.") for key in state):
        return dict(state)
    return {
        {"extra": "suffix"}.get(key, key.removeprefix("net.")): value
        for key, value in state.items()
    }


MADE_UP = Method(
    name="made-up",
    backbone="test_vit",
    build=TwoLooks,
    options=MadeUpOptions,
    rename=_renamed,
    pins=("crop/*", "steps.*.choose/*"),
    outputs=("box",),
    recipes={"calm": dataclasses.replace(FAST, lr=1e-5, per_class=2)},
)


OWN = {"suffix", "mix", "steps.2.queries", "steps.5.adapt.weight", "steps.5.adapt.bias"}
