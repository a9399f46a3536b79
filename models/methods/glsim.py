"""GLSim: a second look at the patches that are most like the whole (arkel23/GLSim).

'Global-Local Similarity for Efficient Fine-Grained Image Recognition with Vision Transformers'.
The patches behind the last norm that are most like CLS span a box; the photo inside it, enlarged,
goes through the same ViT; an aggregator makes one embedding of both CLS rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.backbone.blocks import Block
from fgdeploy.models.backbone.embedding import Normalisation
from fgdeploy.models.backbone.vit import Geometry, ViT
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.heads.base import Features
from fgdeploy.models.looks.adapter import adapter_steps
from fgdeploy.models.looks.aggregator import (
    AggregatorShape,
    BlockAggregator,
    ConvolvedAggregator,
    pooled,
)
from fgdeploy.models.looks.crop import Crop
from fgdeploy.models.looks.rectangle import BestFirst, Rectangle
from fgdeploy.models.looks.similarity import Similarity
from fgdeploy.models.methods import glsim_files, glsim_keys
from fgdeploy.models.methods.base import Method, Photometry, Recipe
from fgdeploy.models.methods.glsim_options import ONCE, SELECT, TWICE, GLSimOptions
from fgdeploy.models.walk import Observer

# Names of tensors here and in checkpoints.
_NAMES = {
    "aggregator.reducer.": "reducer.",
    "aggregator.norm.": "aggregator_norm.",
    "aggregator.blocks.": "aggregator.",
}


class GLSim(Encoder):
    """A ViT that looks once, twice, or once and at the best patches again; options are resolved."""

    def __init__(self, vit: ViT, norm: Normalisation, options: GLSimOptions) -> None:
        like, shape = vit.blocks[-1], backbones.geometry(vit)
        super().__init__(vit, norm, adapter_steps(shape, options.adapter, vit.cls_token))
        self.options = options
        self._prefix = shape.prefix_tokens
        unused = {"anchor_class_token"}  # a token of the authors' that nothing reads
        if not options.norm:
            unused |= {f"norm.{name}" for name in vit.norm.state_dict()}
            vit.norm = nn.Identity()
        self.similarity = Similarity(options.metric)
        top = options.top or 1
        self.rectangle = Rectangle(shape.grid, shape.patch_size, top, options.inclusive_box)
        self.best_first = BestFirst(top)
        self.crop = Crop(int(vit.patch_embed.img_size[0]))
        self.cls_token_crops: nn.Parameter | None = None
        if options.own_cls:
            self.cls_token_crops = nn.Parameter(vit.cls_token.detach().clone())
        else:
            unused.add("cls_token_crops")
        self.aggregator = _aggregator(like, shape, options)
        self.unused = frozenset(unused)

    @property
    def width(self) -> int:
        """Return how wide an embedding is."""
        return int(self.aggregator.reads)

    def begin(self) -> None:
        """Start the aggregator so that CLS comes through; the second CLS token as the first."""
        self.aggregator.begin()
        if self.cls_token_crops is not None:
            with torch.no_grad():
                self.cls_token_crops.copy_(self.vit.cls_token)

    def forward(self, pixels: Tensor, observers: Sequence[Observer] = ()) -> Features:
        """Return the features of normalised pixels [B, 3, S, S].

        extras: `box` y0, x0, y1, x1 [B, 4] in pixels and `similarity` [B, G, G]. With `flip` the
        embedding is the mean over photo and mirror image, each with its own box; class and hash
        heads are linear, so that is the mean of their outputs, as the authors take it.
        """
        rows, extras = self._rows(pixels, observers)
        embedding = self.aggregator(rows)
        if self.options.flip:
            mirrored, _ = self._rows(pixels.flip(3), ())
            embedding = (embedding + self.aggregator(mirrored)) / 2
        return Features(embedding, extras)

    def _rows(
        self, pixels: Tensor, observers: Sequence[Observer]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the rows to aggregate [B, R, D], and what decided them."""
        look, every = self.options.look, self.options.tokens == "all"
        if look == ONCE:
            return self._tokens(pixels, every, observers), {}
        tokens = self._tokens(pixels, True, observers)
        values = self.similarity(tokens)
        scores = self.similarity.scores(values)
        grid = self.vit.patch_embed.grid_size
        extras = {"similarity": values.reshape(-1, int(grid[0]), int(grid[1]))}
        if look == SELECT:
            index = self.best_first(scores).unsqueeze(2).expand(-1, -1, tokens.shape[2])
            chosen = tokens[:, 1:].detach().gather(1, index)  # the authors let no gradient through
            return torch.cat([tokens[:, :1], chosen], dim=1), extras
        extras = {"box": self.rectangle(scores), **extras}
        crop = self.crop(pixels, extras["box"])
        again = self._tokens(crop, every, (), self.cls_token_crops)
        return torch.cat([tokens if every else tokens[:, :1], again], dim=1), extras

    def _tokens(
        self,
        pixels: Tensor,
        every: bool,
        observers: Sequence[Observer],
        cls: nn.Parameter | None = None,
    ) -> Tensor:
        """Return CLS, and the patches behind it where `every`, behind the last norm, [B, T, D]."""
        tokens = self.walk(self.vit.blocks, self.embed(pixels, cls), observers, all_rows=every)
        x = tokens.x
        if not every:
            x = x[:, :1]
        elif self._prefix > 1:
            x = torch.cat([x[:, :1], x[:, self._prefix :]], dim=1)
        normed: Tensor = self.vit.norm(x)
        return normed

    def _name(self, key: str) -> str:
        name = glsim_keys.in_block(super()._name(key))
        for start, called in _NAMES.items():
            if name.startswith(start):
                return called + name[len(start) :]
        return name


class NoAggregator(nn.Module):
    """Rows as they are: what is read of them is the embedding."""

    def __init__(self, shape: Geometry, options: GLSimOptions) -> None:
        super().__init__()
        width = options.width or shape.width
        self.reducer = nn.Identity() if width == shape.width else nn.Linear(shape.width, width)
        self.pool, self.reads = options.pool, width * (2 if options.pool == "both" else 1)

    def forward(self, rows: Tensor) -> Tensor:
        """Return the embedding of rows [B, R, D]."""
        return pooled(self.reducer(rows), self.pool)

    def begin(self) -> None:
        """Leave the reducer as it is drawn."""


def _aggregator(
    like: Block, shape: Geometry, options: GLSimOptions
) -> BlockAggregator | ConvolvedAggregator | NoAggregator:
    if options.convolves:
        rows = {TWICE: 2, SELECT: 1 + (options.top or 1), ONCE: 1}[options.look]
        return ConvolvedAggregator(shape.width, rows, options.aggregator == "dwsc")
    if options.aggregator == "none":
        return NoAggregator(shape, options)
    width = options.width or shape.width
    usual = options.usual_heads(shape.width) or like.attn.num_heads
    last = options.last_eps if options.last_eps is not None else like.norm1.eps
    return BlockAggregator(
        like,
        AggregatorShape(
            width=width,
            heads=options.aggregator_heads or usual,
            layers=options.layers,
            norm_eps=last if options.aggregator_norm else None,
            pool=options.pool,
        ),
    )


def build(vit: ViT, norm: Normalisation, options: GLSimOptions) -> GLSim:
    """Return GLSim on `vit`."""
    return GLSim(vit, norm, options)


def pinned(options: GLSimOptions) -> tuple[str, ...]:
    """Return the pins: similarity, box and interpolation weights decide."""
    if options.look == ONCE:
        return ()
    return (
        "similarity/*",
        *(("rectangle/*", "crop*") if options.look == TWICE else ("best_first/*",)),
    )


def outputs(options: GLSimOptions) -> tuple[str, ...]:
    """Return what the graph gives beside code, hash and embedding."""
    return {TWICE: ("box", "similarity"), SELECT: ("similarity",), ONCE: ()}[options.look]


# Backbone ViT-B/16 of ImageNet-21k; lr is the one of CUB, of 0.03, 0.01, 0.003 and 0.001.
PAPER = Recipe(
    objective="fgdeploy.training.smoothed:SmoothedDeep",
    epochs=50,
    batch=8,
    optimizer="sgd",  # Nesterov's, in timm
    lr=0.01,
    momentum=0.9,
    weight_decay=0.0,
    layer_decay=None,
    head_rate=1.0,
    warmup=500,
    least_area=1.34**-2,
    augment="fgdeploy.training.data:square_crop_and_trivial",
    clip_norm=1.0,
    first_lr=1e-6,
    last_lr=1e-5,
)

METHOD = Method(
    name="glsim",
    backbone="vit_base_patch16_224.orig_in21k",
    build=build,
    options=GLSimOptions,
    photometry=Photometry(resize_ratio=1.34, interpolation="bicubic", square=True),
    pins=pinned,
    half=("aggregator*",),
    outputs=outputs,
    variant=GLSimOptions.backbone,
    rename=glsim_keys.rename,
    told=glsim_files.tell,
    claims=glsim_files.claims,
    recipes={"paper": PAPER},
)
