"""Small networks and images for the tests of models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fgdeploy.models.backbone import vit
from fgdeploy.models.backbone.embedding import Normalisation
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.methods import eet
from fgdeploy.models.methods.eet import EETOptions
from fgdeploy.models.reduce.stages import Stage

NORM = Normalisation((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
# One of each kind: plain; two prefix tokens; layer scale, positions without CLS; four registers;
# a norm before the blocks and no patch bias.
BACKBONES = (
    "deit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "deit3_small_patch16_224",
    "vit_small_patch14_reg4_dinov2",
    "vit_medium_patch16_clip_224",
)


def size_of(backbone: str) -> int:
    """Return a small image size that the patches divide."""
    return 70 if "14" in backbone else 64


def randomised(name: str, size: int, dtype: torch.dtype = torch.float64) -> Any:
    """A ViT whose every parameter matters: biases and norms too are random."""
    net = vit.create(name, size).to(dtype)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise.to(dtype) * 0.05)
    return net.requires_grad_(False)


def images(count: int, size: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return normalised pixels [count, 3, size, size]."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64).to(dtype)


def pruned(net: Any, stages: Sequence[Stage] = ()) -> Encoder:
    """Return EET on a ViT."""
    return eet.build(net, NORM, EETOptions(stages=tuple(stages)))
