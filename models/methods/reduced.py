"""Encoders with a token reduction, and each reduction as a method by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.backbone.embedding import Normalisation
from fgdeploy.models.backbone.vit import ViT
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.heads.aggregate import Aggregate, WeightedAggregate
from fgdeploy.models.heads.base import Features
from fgdeploy.models.methods import clca_files, clca_keys
from fgdeploy.models.methods.base import ByEpoch, Method, Photometry, Recipe
from fgdeploy.models.reduce.reduction import ReducedOptions, Reduction
from fgdeploy.models.walk import CLSRows, Observer, Step

# The authors evaluate on squares scaled by 1 / 0.875, bicubic, with ImageNet's mean and std.
PHOTOMETRY = Photometry(resize_ratio=1 / 0.875, interpolation="bicubic", square=True)
BACKBONE = "deit_small_patch16_224"
# CLCA's training, for every reduction; its 45 epochs of cosine and 5 of cooldown are 50 here.
PAPER = Recipe(
    objective="fgdeploy.training.class_first:ClassFirst",
    epochs=50,
    batch=32,
    optimizer="adamw",
    lr=1e-4,
    momentum=0.9,
    weight_decay=0.05,
    layer_decay=None,
    head_rate=1.0,
    warmup=0,
    least_area=0.875**2,
    augment="fgdeploy.training.data:square_crop_and_flip",
    parts=("ctp",),
    by_epoch=ByEpoch(warmup=2, start=0.01, least=0.1, cooldown=5),
    drop_last=True,
)


class Reduced(Encoder):
    """A ViT whose steps reduce tokens; CLS of several blocks is aggregated where that is wanted.

    reducing: the blocks that reduce, from 1: their CLS rows and the last one's are aggregated. The
    final norm is left out then. Weights of a reduction are called `stages.S.…`, S from 0.
    """

    def __init__(
        self,
        vit: ViT,
        norm: Normalisation,
        steps: Mapping[int, Step],
        reducing: Sequence[int] = (),
        clr: int = 0,
        aggregate: Aggregate | WeightedAggregate | None = None,
    ) -> None:
        suffix = nn.Parameter(torch.randn(1, clr, int(vit.embed_dim)) * 0.02) if clr else None
        super().__init__(vit, norm, steps, suffix)
        self._stages = {f"steps.{block}": f"stages.{n}" for n, block in enumerate(reducing)}
        self._watched = (*reducing, len(vit.blocks))
        self.aggregate = aggregate
        if aggregate is not None:
            self.unused = frozenset(f"norm.{name}" for name in vit.norm.state_dict())
            vit.norm = nn.Identity()

    @property
    def width(self) -> int:
        """Return how wide an embedding is."""
        return super().width if self.aggregate is None else self.aggregate.width

    def begin(self) -> None:
        """Start CLR as CLS with a random position, the aggregate as the last block's CLS."""
        if isinstance(self.aggregate, Aggregate):
            self.aggregate.begin()
        if (suffix := self.embed.suffix) is not None:
            with torch.no_grad():
                suffix.add_(self.vit.cls_token)

    def forward(self, pixels: Tensor, observers: Sequence[Observer] = ()) -> Features:
        """Return the features of normalised pixels [B, 3, S, S]."""
        if self.aggregate is None:
            return super().forward(pixels, observers)
        cls = CLSRows(self._watched)
        tokens = self.walk(self.vit.blocks, self.embed(pixels), [*observers, cls])
        feature = self.aggregate(torch.stack(cls.rows, dim=2))
        return Features(feature, penalties=tokens.penalties, readouts=tokens.readouts)

    def _name(self, key: str) -> str:
        name = super()._name(key).replace(".inner.", ".")
        if name == "suffix":
            return "clr"
        block = ".".join(name.split(".")[:2])
        return name.replace(block, self._stages.get(block, block), 1)


def alone(reduction: Reduction) -> Method:
    """Return a reduction as a method by itself: no cache, CLS of the last block alone."""

    def build(vit: ViT, norm: Normalisation, options: ReducedOptions) -> Encoder:
        shape = backbones.geometry(vit)
        start = shape.patches + shape.prefix_tokens
        steps = reduction.steps(options, shape, start=start)
        return Reduced(vit, norm, steps, options.blocks or ())

    names = [f.name for f in dataclasses.fields(reduction.options)]
    return Method(
        name=reduction.name,
        backbone=BACKBONE,
        build=build,
        options=reduction.options,
        photometry=PHOTOMETRY,
        rename=clca_keys.rename,
        told=clca_files.teller(reduction.name, names),
        claims=clca_files.claim(reduction.name),
        pins=reduction.pinned,
        caution=reduction.caution,
        recipes={"paper": PAPER},
        schedule=reduction.scheduled,
    )
