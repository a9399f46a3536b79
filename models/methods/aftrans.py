"""AFTrans: overlapping patches, and in training a second look where all heads agree.

'A free lunch from ViT: adaptive attention multi-scale fusion Transformer for fine-grained visual
recognition' (ICASSP 2022); no code of the authors is known. What the paper leaves open follows
docs/methods.md, section 4. The global branch alone predicts (the paper's Table 4: 91.5 against 91.0
with both), so a deployed network is a dense ViT on overlapping patches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fgdeploy.core.errors import UsageError
from fgdeploy.models.backbone.embedding import Normalisation
from fgdeploy.models.backbone.variant import Variant
from fgdeploy.models.backbone.vit import Geometry, ViT
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.looks.sacm import POOLS, SACM
from fgdeploy.models.looks.two_branches import LocalLook, TwoBranches
from fgdeploy.models.methods.base import Method, Photometry, Recipe
from fgdeploy.models.options import Options
from fgdeploy.models.weights.told import Told

GLOBAL, BOTH = "global", "both"
STRIDE = 12
_WORDS = {
    "branch": (GLOBAL, BOTH),
    "pool": POOLS,
    "sacm_grad": ("none", "reweight"),
}
# Sides that a photo usually has: a file whose positions fit one of them with overlapping patches
# is taken as such.
_USUAL = (224, 384, 448, 512)


@dataclass(frozen=True)
class AFTransOptions(Options):
    """keep: share of all entries of the fused attention that is chosen; ratio: layers per hidden
    gate; pool: what a layer's gate is told by.

    sacm_grad: `reweight` lets the gates learn, as the paper's words do not. local_size: the crop's
    side in pixels, None for half of the image's. branch: what a deployed network embeds by. rounds:
    of the search for connected patches with `branch=both`, None for twice the grid's side. stride:
    pixels from patch to patch.
    """

    keep: float = 0.4
    ratio: int = 4
    pool: str = "cls"
    sacm_grad: str = "none"
    local_size: int | None = None
    branch: str = GLOBAL
    rounds: int | None = None
    stride: int = STRIDE

    def resolved(self, geometry: Geometry) -> AFTransOptions:
        """Return the options with the rounds of this grid. Raises UsageError."""
        for name, known in _WORDS.items():
            if (text := getattr(self, name)) not in known:
                raise UsageError(f"--set {name}={text}: choose {' or '.join(known)}")
        if not 0 < self.keep <= 1:
            raise UsageError(f"--set keep={self.keep:g}: expected a share above 0 and up to 1")
        self._check("ratio", 1, geometry.depth)
        self._check("local_size", geometry.patch_size, 4096)
        self._check("rounds", 1, 1024)
        rounds = 2 * max(geometry.grid) if self.rounds is None else self.rounds
        return dataclasses.replace(self, rounds=rounds)

    def _check(self, name: str, least: int, most: int) -> None:
        value = getattr(self, name)
        if value is not None and not (type(value) is int and least <= value <= most):
            raise UsageError(
                f"--set {name}={value}: expected a whole number from {least} to {most}"
            )

    def deciding(self, geometry: Geometry) -> dict[str, Any]:
        """Return what decides a code: with the global branch alone, the stride is all."""
        if self.branch == GLOBAL:
            return {"options": {"branch": self.branch, "stride": self.stride}}
        return super().deciding(geometry)

    def resized(self) -> AFTransOptions:
        """Let the new image's size decide how large a crop is and how far its patches reach."""
        return dataclasses.replace(self, local_size=None, rounds=None)


def varied(options: AFTransOptions) -> Variant:
    """Return the backbone with overlapping patches."""
    return Variant(stride=options.stride)


def build(vit: ViT, norm: Normalisation, options: AFTransOptions) -> Encoder:
    """Return AFTrans on `vit`, with options that are resolved."""
    depth, patch = len(vit.blocks), int(vit.patch_embed.patch_size[0])
    size = options.local_size or max(int(vit.patch_embed.img_size[0]) // 2, patch)
    look = LocalLook(
        size, options.branch == BOTH, options.rounds or 1, options.sacm_grad == "reweight"
    )
    sacm = SACM(depth, max(1, depth // options.ratio), options.keep, options.pool)
    return TwoBranches(vit, norm, sacm, look)


def pinned(options: AFTransOptions) -> tuple[str, ...]:
    """Return what decides where the second look goes, where there is one."""
    if options.branch == GLOBAL:
        return ()
    return ("sacm*/*", "largest/*", "around/*", "crop.hats/*", *_SHARES[options.sacm_grad])


_SHARES: Mapping[str, tuple[str, ...]] = {"none": (), "reweight": ("shares/*",)}


def caution(options: AFTransOptions) -> str | None:
    """Return what the second look costs, where there is one."""
    if options.branch == GLOBAL:
        return None
    return (
        "branch=both looks at every photo twice: about a quarter more multiply-accumulates than "
        "branch=global, which the paper found to be as accurate; connected patches are searched in "
        f"{options.rounds} rounds, exact unless they wind further than that"
    )


def told(arguments: Mapping[str, Any], state: Mapping[str, Tensor], name: str) -> Told | None:
    """Return the image's size that the positions of overlapping patches tell, and what gates do."""
    try:
        patch = int(state["patch_embed.proj.weight"].shape[-1])
        side = _side(state["pos_embed"])
    except (KeyError, IndexError):
        return None
    ours = "local_pos_embed" in state
    fitting = [size for size in _sizes(side, patch) if ours or size in _USUAL]
    if not side or not fitting:
        return None
    return Told(size=fitting[0])


def _side(positions: Tensor) -> int:
    """Return the side of the square grid that has these positions behind CLS, 0 for none."""
    rows = int(positions.shape[1]) - 1
    side = round(max(rows, 0) ** 0.5)
    return side if side * side == rows else 0


def _sizes(side: int, patch: int) -> list[int]:
    """Return the sizes whose overlapping patches make such a grid and that patches divide."""
    least = STRIDE * (side - 1) + patch
    return [size for size in range(least, least + STRIDE) if size % patch == 0]


def claims(arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> bool:
    """Return whether a file holds the weights of a local branch or of SACM."""
    return any(name in state for name in ("local_cls_token", "sacm.fc1.weight"))


# The paper gives batch, warm-up and schedule; rate, clipping and transforms are TransFG's, on which
# it builds. TransFG takes 10,000 steps, which are 20 epochs of 12 photos a step on CUB's 5,994.
PAPER = Recipe(
    objective="fgdeploy.training.class_first:ClassFirst",
    epochs=20,
    batch=12,
    optimizer="momentum",  # timm's "sgd" is Nesterov's
    lr=0.03,
    momentum=0.9,
    weight_decay=0.0,
    layer_decay=None,
    head_rate=1.0,
    warmup=500,
    least_area=(448 / 600) ** 2,
    augment="fgdeploy.training.data:bilinear_square_crop_and_flip",
    clip_norm=1.0,
)

METHOD = Method(
    name="aftrans",
    backbone="vit_base_patch16_224.orig_in21k",
    build=build,
    options=AFTransOptions,
    photometry=Photometry(600 / 448, "bilinear", square=True),
    told=told,
    claims=claims,
    pins=pinned,
    outputs=lambda options: () if options.branch == GLOBAL else ("box",),
    variant=varied,
    caution=caution,
    recipes={"paper": PAPER},
)
