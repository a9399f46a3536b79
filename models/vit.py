"""Plain timm Vision Transformers: made by name, checked, and embedded into tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import Tensor, nn

from fgdeploy.core.errors import CheckpointError, UsageError
from fgdeploy.models.macs import Shape

# A timm VisionTransformer; its class carries no types.
ViT = Any


def create(backbone: str, image_size: int, classes: int = 0, seed: int = 0) -> ViT:
    """Make a timm ViT with seeded random weights, in eval mode, that pools its CLS token.

    classes: outputs of the class head; 0 for none. Raises UsageError for a name that timm does
    not know, an architecture that is no plain ViT with a CLS token, or a size that the patches do
    not divide.
    """
    if not timm.is_model(backbone):
        close = ", ".join(timm.list_models(f"*{backbone.split('_')[0]}*patch16_224*")[:4])
        raise UsageError(
            f"timm knows no backbone {backbone!r}{f' (it has {close}, ...)' if close else ''}; "
            "choose another --backbone"
        )
    if image_size < 1:
        raise UsageError(f"expected an image size above zero, got {image_size}")
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
            )
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(
            f"{backbone} cannot be made as a plain ViT at {image_size} pixels ({reason}); "
            "choose a vit_* or deit* backbone and a size that its patches divide"
        ) from None
    _check_plain(vit, backbone, image_size)
    _open_layer_scales(vit)
    return vit.eval()


def _open_layer_scales(vit: Any) -> None:
    """Let every block of a random model act: timm starts layer scales near zero, for training."""
    with torch.no_grad():
        for block in vit.blocks:
            for scale in (block.ls1, block.ls2):
                if hasattr(scale, "gamma"):
                    scale.gamma.fill_(1.0)


def _check_plain(vit: Any, backbone: str, image_size: int) -> None:
    block = vit.blocks[0] if len(getattr(vit, "blocks", ())) else None
    attention = getattr(block, "attn", None)
    plain = (
        isinstance(vit, timm.models.VisionTransformer)
        and type(block).__name__ == "Block"
        and type(attention).__name__ == "Attention"
        and getattr(attention, "gate", None) is None
        and vit.cls_token is not None
        and vit.pos_embed is not None
        and not vit.dynamic_img_size
    )
    if not plain:
        raise UsageError(
            f"{backbone} is no plain ViT with a CLS token; choose a vit_* or deit* backbone"
        )
    patch = patch_size(vit)
    if image_size % patch:
        raise UsageError(
            f"image size {image_size} is no multiple of {backbone}'s patch size {patch}; "
            f"choose {image_size // patch * patch or patch} or {(image_size // patch + 1) * patch}"
        )


def patch_size(vit: ViT) -> int:
    """Return the side of a patch in pixels."""
    height, width = vit.patch_embed.patch_size
    if height != width:
        raise UsageError(f"expected square patches, the backbone has {height}x{width}")
    return int(height)


def shape(vit: ViT) -> Shape:
    """Return the sizes that MACs depend on."""
    mlp = vit.blocks[0].mlp
    inner = sum(p.shape[0] * p.shape[1] for p in mlp.parameters() if p.ndim == 2)
    return Shape(
        width=int(vit.embed_dim),
        depth=len(vit.blocks),
        patch_size=patch_size(vit),
        patches=int(vit.patch_embed.num_patches),
        prefix_tokens=int(vit.num_prefix_tokens),
        mlp_ratio=inner / (2 * vit.embed_dim**2),
    )


def embed_tokens(vit: ViT, images: Tensor) -> Tensor:
    """Return the embedded tokens [B, T, D] of normalised images [B, 3, S, S], CLS first."""
    x = vit._pos_embed(vit.patch_embed(images))
    tokens: Tensor = vit.norm_pre(vit.patch_drop(x))
    return tokens


@dataclass(frozen=True)
class Normalisation:
    """Mean and std per RGB channel, for pixels in 0..1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def normalisation(vit: ViT) -> Normalisation:
    """Return the mean and std that timm records for the backbone's weights."""
    config = vit.pretrained_cfg
    mean, std = config["mean"], config["std"]
    return Normalisation((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


class FoldedEmbedding(nn.Module):
    """`embed_tokens` of raw frames: mean and std in the patch weights, fixed tokens as constants.

    Exact: the patch convolution is linear and unpadded, and adding tokens and positions does not
    depend on the image. Input uint8 [B, S, S, 3] RGB; output [B, T, D].
    """

    prefix: Tensor
    position: Tensor

    def __init__(self, vit: ViT, norm: Normalisation) -> None:
        super().__init__()
        conv = vit.patch_embed.proj
        with torch.no_grad():
            weight = conv.weight.double()
            mean = torch.tensor(norm.mean, dtype=torch.float64).view(1, 3, 1, 1)
            std = torch.tensor(norm.std, dtype=torch.float64).view(1, 3, 1, 1)
            bias = -(weight * (mean / std)).sum(dim=(1, 2, 3))
            if conv.bias is not None:
                bias = bias + conv.bias.double()
            self.conv = nn.Conv2d(3, conv.out_channels, conv.kernel_size, conv.stride)
            self.conv.to(conv.weight.dtype)
            self.conv.weight.copy_(weight / (255.0 * std))
            assert self.conv.bias is not None
            self.conv.bias.copy_(bias)
            width, patches = int(vit.embed_dim), int(vit.patch_embed.num_patches)
            nothing = torch.zeros(1, patches, width, dtype=conv.weight.dtype)
            fixed = vit._pos_embed(nothing)
        count = int(vit.num_prefix_tokens)
        self.register_buffer("prefix", fixed[:, :count].clone())
        self.register_buffer("position", fixed[:, count:].clone())
        self.norm = vit.patch_embed.norm
        self.norm_pre = vit.norm_pre

    def forward(self, frames: Tensor) -> Tensor:
        """Return embedded tokens; the cast comes first, as TensorRT transposes no uint8."""
        pixels = frames.to(self.conv.weight.dtype).permute(0, 3, 1, 2)
        patches = self.norm(self.conv(pixels).flatten(2).transpose(1, 2)) + self.position
        tokens = torch.cat([self.prefix.expand(patches.shape[0], -1, -1), patches], dim=1)
        embedded: Tensor = self.norm_pre(tokens)
        return embedded


def trained_size(state: dict[str, Tensor]) -> int | None:
    """Return the image size that a checkpoint's positions were trained at, None if unclear."""
    try:
        rows, patch = state["pos_embed"].shape[1], state["patch_embed.proj.weight"].shape[-1]
    except (KeyError, IndexError):
        return None
    for others in (0, 1, 2, 5):  # no CLS row, CLS, CLS and distillation, CLS and four registers
        side = round(max(rows - others, 0) ** 0.5)
        if side and side * side == rows - others:
            return int(side * patch)
    return None


# (width, depth) of the plain DeiT family that EET is published on.
_FAMILY = {(192, 12): "tiny", (384, 12): "small", (768, 12): "base"}


def guess_backbone(state: dict[str, Tensor]) -> tuple[str, int]:
    """Return (timm name, image size) for a DeiT/ViT state dict, from its shapes alone.

    Raises CheckpointError where the shapes fit no known plain ViT; then --backbone decides.
    """
    try:
        width = int(state["cls_token"].shape[-1])
        patch = int(state["patch_embed.proj.weight"].shape[-1])
        rows = int(state["pos_embed"].shape[1])
    except (KeyError, IndexError):
        first = ", ".join(list(state)[:3])
        raise CheckpointError(
            "the checkpoint has no cls_token, pos_embed and patch_embed.proj.weight (its first "
            f"keys are {first}), so its backbone cannot be told; rename its keys to timm's"
        ) from None
    depth = 1 + max(
        (int(m[1]) for key in state if (m := re.match(r"blocks\.(\d+)\.", key))), default=-1
    )
    size = _FAMILY.get((width, depth))
    scaled = "blocks.0.ls1.gamma" in state
    positions = rows if scaled else rows - 1
    side = round(positions**0.5)
    if size is None or patch != 16 or side * side != positions or (scaled and size == "tiny"):
        raise CheckpointError(
            f"a checkpoint of width {width}, depth {depth}, patch {patch} and {rows} positions is "
            "no plain DeiT; name its backbone with --backbone"
        )
    family = "deit3" if scaled else "deit"
    return f"{family}_{size}_patch16_224", side * patch
