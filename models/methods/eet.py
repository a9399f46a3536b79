"""EET: staged, content-based token pruning and a hash head (arXiv 2504.16691; WhiteJiang/EET).

Inside a pruning block every patch token gets a score from the block's own attention, the best k
stay, and CLS (with any register tokens) always stays. k is a constant per stage.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fgdeploy.core.json_schema import list_of, whole
from fgdeploy.models.backbone.embedding import Normalisation
from fgdeploy.models.backbone.vit import Geometry, ViT
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.methods.base import Method, Recipe
from fgdeploy.models.options import Options
from fgdeploy.models.reduce.keep import PINS, KeepBest
from fgdeploy.models.reduce.scores import token_scores
from fgdeploy.models.reduce.stages import Schedule, Stage, check, parse

# "after the 4th, 8th and 10th layers": 98, 49 and 12 of 196 patches, as the authors' code has it.
SCHEDULE = Schedule(((4, 1 / 2), (8, 1 / 4), (10, 1 / 16)))

# The paper's Table V: content-based token pruning, discriminative knowledge transfer and
# discriminative region guidance.
PARTS = ("ctp", "dkt", "drg")
_PAIRS = list_of(list_of(whole(1), 2, 2))  # stages in JSON


@dataclass(frozen=True)
class EETOptions(Options):
    """stages: where tokens are pruned and how many stay, None for the published schedule.

    transposed_mask: region guidance hides the mirrored patch, as the authors' code does.
    """

    stages: tuple[Stage, ...] | None = None
    transposed_mask: bool = False

    @classmethod
    def read(cls, name: str, text: str) -> Any:
        """Read stages as BLOCK:TOKENS pairs, or `none`."""
        return parse(text) if name == "stages" else super().read(name, text)

    def to_json(self) -> dict[str, Any]:
        """Return the stages as pairs of numbers."""
        stages = None if self.stages is None else [[one.block, one.keep] for one in self.stages]
        return {"stages": stages, "transposed_mask": self.transposed_mask}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> EETOptions:
        """Read pairs of numbers."""
        values = dict(entry)
        if values.get("stages") is not None:
            _PAIRS(values["stages"], "stages")
            values["stages"] = tuple(Stage(block, keep) for block, keep in values["stages"])
        return super().from_json(values)

    def resolved(self, geometry: Geometry) -> EETOptions:
        """Return the options with the stages of this backbone. Raises StageError."""
        if self.stages is None:
            stages = SCHEDULE.stages(geometry.depth, geometry.patches)
        else:
            stages = check(self.stages, geometry.depth, geometry.patches)
        return dataclasses.replace(self, stages=stages)

    def deciding(self, geometry: Geometry) -> dict[str, Any]:
        """Return the stages, written as in the fingerprints of all bundles so far."""
        stages = self.stages or ()
        arriving = [geometry.patches, *(stage.keep for stage in stages)]
        return {
            "stages": [
                {"block": stage.block, "tokens_in": count, "keep": stage.keep}
                for stage, count in zip(stages, arriving, strict=False)
            ]
        }

    def resized(self) -> EETOptions:
        """Let the published fractions decide anew, unless nothing is pruned."""
        return dataclasses.replace(self, stages=None) if self.stages else self

    def dense(self) -> EETOptions:
        """Return the options that prune nothing."""
        return dataclasses.replace(self, stages=())


def build(vit: ViT, norm: Normalisation, options: EETOptions) -> Encoder:
    """Return EET on `vit`; without stages it is the plain ViT."""
    return Encoder(vit, norm, steps(options.stages or ()))


def schedule(options: EETOptions, stages: Sequence[Stage], geometry: Geometry) -> dict[str, str]:
    """Return the option that prunes by these stages."""
    return {"stages": ",".join(map(str, stages)) or "none"}


def steps(stages: Sequence[Stage]) -> dict[int, KeepBest]:
    """Return the pruning blocks."""
    return {stage.block: KeepBest(stage.keep, token_scores) for stage in stages}


PAPER = Recipe(
    objective="fgdeploy.training.distillation:Distillation",
    epochs=90,
    batch=64,
    optimizer="momentum",  # timm's "sgd" is Nesterov's
    lr=1e-2,
    momentum=0.9,
    weight_decay=0.0,
    layer_decay=None,
    head_rate=1.0,
    warmup=500,
    least_area=0.08,  # torchvision's default
    parts=PARTS,
)

METHOD = Method(
    name="eet",
    backbone="deit_small_patch16_224",
    build=build,
    options=EETOptions,
    pins=PINS,
    recipes={"paper": PAPER},
    schedule=schedule,
)
