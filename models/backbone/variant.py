"""How the ViT of a method differs from the one that timm makes under a name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fgdeploy.core.errors import UsageError
from fgdeploy.models.backbone import rotary


@dataclass(frozen=True)
class Variant:
    """What a ViT has otherwise than timm's of its name; None is timm's.

    stride: pixels from patch to patch (AFTrans and TransFG let patches overlap). norm_eps: of every
    LayerNorm in backbone and blocks. heads, width, depth: of the attention, of a token, in blocks;
    mlp_ratio: inner width of an MLP over `width`; patch: its side in pixels.
    """

    stride: int | None = None
    norm_eps: float | None = None
    heads: int | None = None
    width: int | None = None
    depth: int | None = None
    mlp_ratio: float | None = None
    patch: int | None = None

    def arguments(self) -> dict[str, Any]:
        """Return what timm is told when it makes the model. Raises UsageError for odd numbers."""
        names = {
            "num_heads": self.heads,
            "embed_dim": self.width,
            "depth": self.depth,
            "mlp_ratio": self.mlp_ratio,
            "patch_size": self.patch,
        }
        given = {name: value for name, value in names.items() if value is not None}
        if wrong := [name for name, value in given.items() if not 0 < value <= 1 << 16]:
            raise UsageError(f"a ViT's {wrong[0]} of {given[wrong[0]]}: expected 1 to 65536")
        if self.width is not None and self.heads is not None and self.width % self.heads:
            raise UsageError(
                f"{self.heads} heads do not divide a width of {self.width}; give another number"
            )
        return given

    def apply(self, vit: Any, image_size: int, seed: int) -> None:
        """Change a ViT that timm made for `image_size`. Raises UsageError for a stride that fails.

        seed: of the positions of a grid that the stride makes larger.
        """
        if self.stride is not None:
            _set_stride(vit, image_size, self.stride, seed)
        if self.norm_eps is not None:
            for module in vit.modules():
                if isinstance(module, nn.LayerNorm):
                    module.eps = self.norm_eps


def _set_stride(vit: Any, image_size: int, stride: int, seed: int) -> None:
    """Cut patches every `stride` pixels, what is left at the right and below is not seen.

    Positions of the larger grid are new random rows.
    """
    if rotary.is_in(vit):
        raise UsageError(
            f"a stride of {stride}: patches that overlap have no rotary positions; choose a "
            "--backbone with learned ones, such as vit_small_patch16_224"
        )
    conv = vit.patch_embed.proj
    patch = int(conv.kernel_size[0])
    if not 1 <= stride <= patch:
        raise UsageError(
            f"a stride of {stride} does not cut {image_size} pixels into patches of {patch}; "
            f"expected 1 to {patch}"
        )
    if image_size < patch:
        raise UsageError(
            f"image size {image_size} is smaller than a patch of {patch} pixels; choose {patch} or "
            "more, such as 224"
        )
    side = (image_size - patch) // stride + 1
    conv.stride = (stride, stride)
    vit.patch_embed.grid_size = (side, side)
    vit.patch_embed.num_patches = side * side
    rows = side * side + (0 if vit.no_embed_class else int(vit.num_prefix_tokens))
    generator = torch.Generator().manual_seed(seed)
    fresh = torch.randn(1, rows, int(vit.embed_dim), generator=generator) * 0.02
    vit.pos_embed = nn.Parameter(fresh.to(vit.pos_embed))
