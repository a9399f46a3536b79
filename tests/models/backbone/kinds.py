"""The kinds of plain ViTs that timm has, one name of each, shrunk to three narrow blocks."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from fgdeploy.models.backbone import vit
from fgdeploy.models.backbone.variant import Variant

NARROW = Variant(width=32, heads=2, depth=3)

# One of each set of marks (`marks`); test_plain_all_of_timm.py holds that no name is of another.
KINDS = (
    "deit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",  # a second row that is no patch
    "deit3_small_patch16_224",  # layer scale, class token without a position
    "flexivit_small",  # class token without a position
    "vit_base_patch16_224_miil",  # no biases in q, k and v
    "vit_base_patch16_clip_224",  # a norm before the blocks, no bias of patches
    "vit_base_patch16_clip_quickgelu_224",
    "vit_small_patch14_dinov2",  # layer scale
    "vit_small_patch14_reg4_dinov2",  # and registers, without positions
    "vit_giant_patch14_dinov2",  # a gated MLP
    "vit_giant_patch14_reg4_dinov2",
    "vit_base_patch16_radio_v3",  # registers, no last norm
    "vit_huge_patch16_radio_v3",  # the same without layer scale
    "vit_intern300m_patch14_448",  # layer scale, no last norm
    "beit3_base_patch16_224",  # norms within attention and MLP, mean of the patches in timm
    "eva_large_patch14_196",  # mean of the patches in timm
)


def marks(model: Any) -> tuple[Any, ...]:
    """Return what tells the kind of a ViT of timm's, sizes aside."""
    block, patches = model.blocks[0], model.patch_embed
    attn, mlp = block.attn, block.mlp
    modules = (
        *(model, block, block.norm1, block.ls1, attn, attn.q_norm, attn.norm, mlp, mlp.act),
        *(mlp.norm, patches, patches.norm, model.norm_pre, model.norm, model.fc_norm),
    )
    return (
        *(type(module).__name__ for module in modules),
        *(part.bias is None for part in (patches.proj, attn.qkv, attn.proj, mlp.fc1, mlp.fc2)),
        *(model.num_reg_tokens > 0, model.no_embed_class, getattr(mlp, "gate_last", None)),
        attn.gate is None,
    )


def shrunk(backbone: str, side: int = 4) -> Any:
    """Return a random ViT of the kind of `backbone` with side x side patches, in float64.

    Every parameter matters: biases, norms and layer scales are random too.
    """
    with torch.device("meta"):
        patch = timm.create_model(backbone, pretrained=False, depth=1).patch_embed.patch_size[0]
    return stirred(vit.create(backbone, patch * side, 0, 0, NARROW))


def stirred(net: nn.Module) -> Any:
    """Return a network in float64 whose parameters have all been moved, without gradients."""
    generator = torch.Generator().manual_seed(1)
    net = net.double()
    with torch.no_grad():
        for parameter in net.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise * 0.1)
    return net.requires_grad_(False).eval()
