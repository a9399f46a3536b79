"""Plain timm Vision Transformers: made by name, checked and measured."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor

from fgdeploy.core.errors import CheckpointError, UsageError
from fgdeploy.models.backbone import plain
from fgdeploy.models.backbone.eva_blocks import dress, is_eva
from fgdeploy.models.backbone.variant import Variant

# A timm VisionTransformer; its class carries no types.
ViT = Any
TIMMS = Variant()


@dataclass(frozen=True)
class Geometry:
    """The sizes of a ViT: D, blocks, patch side and stride in pixels, patches in (rows, columns).

    prefix_tokens: rows before the patches; mlp_ratio: inner width of an MLP over D.
    """

    width: int
    depth: int
    patch_size: int
    grid: tuple[int, int]
    prefix_tokens: int = 1
    mlp_ratio: float = 4.0
    stride: int | None = None

    @property
    def patches(self) -> int:
        """Return the number of patch tokens."""
        return self.grid[0] * self.grid[1]


def create(
    backbone: str,
    image_size: int,
    classes: int = 0,
    seed: int = 0,
    variant: Variant = TIMMS,
) -> ViT:
    """Make a timm ViT with seeded random weights, in eval mode, that pools its CLS token.

    classes: outputs of the class head; 0 for none. variant: what it has otherwise. Raises
    UsageError for a name that timm does not know, an architecture that is no plain ViT with a CLS
    token, or a size that the patches do not divide.
    """
    plain.check_name(backbone)
    if image_size < 1:
        raise UsageError(f"expected an image size above zero, got {image_size}")
    arguments = variant.arguments()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            vit = timm.create_model(
                backbone,
                pretrained=False,
                num_classes=classes,
                img_size=image_size,
                global_pool="token",
                dynamic_img_size=False,
                **arguments,
            )
    except (TypeError, AssertionError, ValueError, RuntimeError):
        plain.check_kind(backbone)
        sizes = "".join(f", {name} {value:g}" for name, value in arguments.items())
        raise UsageError(
            f"{backbone} cannot be made at {image_size} pixels{sizes}; choose a size that its "
            f"patches divide, such as 224{', and heads that divide the width' if sizes else ''}"
        ) from None
    _check_plain(vit, backbone, image_size, variant.stride is not None)
    if is_eva(vit):
        dress(vit)
    _open_layer_scales(vit)
    variant.apply(vit, image_size, seed)
    return vit.eval()


def _open_layer_scales(vit: Any) -> None:
    """Let every block of a random model act: timm starts layer scales near zero, for training."""
    with torch.no_grad():
        for block in vit.blocks:
            for name, gamma in block.named_parameters():
                if name in ("ls1.gamma", "ls2.gamma", "gamma_1", "gamma_2"):
                    gamma.fill_(1.0)


def _check_plain(vit: Any, backbone: str, image_size: int, strided: bool) -> None:
    """strided: patches lie a given stride apart, and what is left at the edges is not seen."""
    if (reason := plain.why_not(vit)) is not None:
        raise plain.refusal(backbone, reason)
    patch = patch_size(vit)
    if image_size % patch and not strided:
        below = image_size // patch * patch
        raise UsageError(
            f"image size {image_size} is no multiple of {backbone}'s patch size {patch}; "
            f"choose {f'{below} or ' if below else ''}{below + patch}"
        )


def patch_size(vit: ViT) -> int:
    """Return the side of a patch in pixels."""
    height, width = vit.patch_embed.patch_size
    if height != width:
        raise UsageError(f"expected square patches, the backbone has {height}x{width}")
    return int(height)


def geometry(vit: ViT) -> Geometry:
    """Return the sizes of a ViT."""
    mlp = vit.blocks[0].mlp
    inner = sum(p.shape[0] * p.shape[1] for p in mlp.parameters() if p.ndim == 2)
    rows, columns = vit.patch_embed.grid_size
    return Geometry(
        width=int(vit.embed_dim),
        depth=len(vit.blocks),
        patch_size=patch_size(vit),
        grid=(int(rows), int(columns)),
        prefix_tokens=int(vit.num_prefix_tokens),
        mlp_ratio=inner / (2 * vit.embed_dim**2),
        stride=int(vit.patch_embed.proj.stride[0]),
    )


def trained_size(state: Mapping[str, Tensor], stride: int | None = None) -> int | None:
    """Return the image size that a checkpoint's positions were trained at, None if unclear.

    stride: pixels from patch to patch, None for the patch's side.
    """
    try:
        rows, patch = state["pos_embed"].shape[1], state["patch_embed.proj.weight"].shape[-1]
    except (KeyError, IndexError):
        return None
    for others in (0, 1, 2, 5):  # no CLS row, CLS, CLS and distillation, CLS and four registers
        side = round(max(rows - others, 0) ** 0.5)
        if side and side * side == rows - others:
            return int((side - 1) * (stride or patch) + patch)
    return None


# (width, depth) of the plain DeiT family that EET is published on.
_FAMILY = {(192, 12): "tiny", (384, 12): "small", (768, 12): "base"}
# ... and those of DINOv2, with patches of 14 pixels and layer scale.
_DINOV2 = {(384, 12): "small", (768, 12): "base", (1024, 24): "large", (1536, 40): "giant"}


def guess_backbone(state: dict[str, Tensor]) -> tuple[str, int]:
    """Return (timm name, image size) for a DeiT/ViT state dict, from its shapes alone.

    Raises CheckpointError where the shapes fit no known plain ViT; then --backbone decides.
    """
    try:
        width = int(state["cls_token"].shape[-1])
        patch = int(state["patch_embed.proj.weight"].shape[-1])
        rows = int(state["pos_embed"].shape[1])
    except (KeyError, IndexError):
        if "cls_token" in state and "pos_embed" not in state:
            raise CheckpointError(
                "the checkpoint has no pos_embed, as models with rotary positions have none, so "
                "its backbone cannot be told; name it with --backbone, such as "
                "vit_small_patch16_dinov3"
            ) from None
        first = ", ".join(list(state)[:3])
        raise CheckpointError(
            "the checkpoint has no cls_token, pos_embed and patch_embed.proj.weight (its first "
            f"keys are {first}), so its backbone cannot be told; rename its keys to timm's "
            "(--rename)"
        ) from None
    depth = 1 + max(
        (int(m[1]) for key in state if (m := re.match(r"blocks\.(\d+)\.", key))), default=-1
    )
    scaled = "blocks.0.ls1.gamma" in state
    if patch == 14 and scaled and (found := _guess_dinov2(state, width, depth, rows)):
        return found
    size = _FAMILY.get((width, depth))
    distilled = "dist_token" in state
    positions = rows if scaled else rows - 1 - distilled
    side = round(max(positions, 0) ** 0.5)
    known = size is not None and not (scaled and (size == "tiny" or distilled))
    if not known or patch != 16 or not side or side * side != positions:
        raise CheckpointError(
            f"a checkpoint of width {width}, depth {depth}, patch {patch} and {rows} positions is "
            "no plain DeiT; name its backbone with --backbone"
        )
    family = "deit3" if scaled else "deit"
    kind = "_distilled" if distilled else ""
    return f"{family}_{size}{kind}_patch16_224", side * patch


def _guess_dinov2(
    state: dict[str, Tensor], width: int, depth: int, rows: int
) -> tuple[str, int] | None:
    """Return (timm name, image size) of a DINOv2 with or without four registers, None for others.

    With registers it has no position for CLS. What has no last norm is InternViT.
    """
    size = _DINOV2.get((width, depth))
    registers = state["reg_token"].shape[1] if "reg_token" in state else 0
    positions = rows if registers else rows - 1
    side = round(max(positions, 0) ** 0.5)
    fits = registers in (0, 4) and side and side * side == positions
    if size is None or not fits or "norm.weight" not in state:
        return None
    return f"vit_{size}_patch14_{'reg4_' if registers else ''}dinov2", side * 14
