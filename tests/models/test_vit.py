"""Backbones: made by name, refused where they are not plain, embedded exactly."""

from __future__ import annotations

import pytest
import torch

from fgdeploy.core.errors import CheckpointError, UsageError
from fgdeploy.models import vit
from fgdeploy.models.vit import FoldedEmbedding, Normalisation


@pytest.mark.parametrize(
    "backbone",
    [
        "deit_tiny_patch16_224",
        "deit_tiny_distilled_patch16_224",
        "deit3_small_patch16_224",
        "vit_small_patch14_reg4_dinov2",
        "vit_medium_patch16_clip_224",
    ],
)
def test_folded_embedding_is_exact(backbone: str) -> None:
    size = 56 if "14" in backbone else 48
    net = vit.create(backbone, size).double().requires_grad_(False)
    norm = Normalisation((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    frames = torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8)
    pixels = frames.permute(0, 3, 1, 2).double() / 255
    mean = torch.tensor(norm.mean, dtype=torch.float64).view(1, 3, 1, 1)
    std = torch.tensor(norm.std, dtype=torch.float64).view(1, 3, 1, 1)
    expected = vit.embed_tokens(net, (pixels - mean) / std)
    got = FoldedEmbedding(net, norm)(frames)
    assert got.shape == expected.shape
    assert (got - expected).abs().max() < 1e-12


def test_random_weights_follow_the_seed() -> None:
    first, again, other = (
        vit.create("deit_tiny_patch16_224", 32, seed=seed).state_dict()["blocks.3.attn.qkv.weight"]
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("backbone", "size", "pattern"),
    [
        ("deit_huge_patch99", 224, "timm knows no backbone 'deit_huge_patch99'.*--backbone"),
        ("resnet50", 224, "resnet50 cannot be made as a plain ViT"),
        ("vit_tiny_patch16_224", 0, "expected an image size above zero, got 0"),
        ("vit_tiny_patch16_224", 230, "230 is no multiple of .* patch size 16; choose 224 or 240"),
        ("vit_base_patch16_siglip_224", 224, "vit_base_patch16_siglip_224"),
        ("vit_srelpos_small_patch16_224", 224, "no plain ViT|cannot be made as a plain ViT"),
    ],
)
def test_refused_backbones(backbone: str, size: int, pattern: str) -> None:
    with pytest.raises(UsageError, match=pattern) as caught:
        vit.create(backbone, size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("deit_tiny_patch16_224", 224),
        ("deit_small_patch16_224", 448),
        ("deit3_small_patch16_224", 224),
    ],
)
def test_backbone_is_told_from_a_state_dict(backbone: str, size: int) -> None:
    assert vit.guess_backbone(vit.create(backbone, size).state_dict()) == (backbone, size)


@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("deit_tiny_patch16_224", 384),
        ("deit3_small_patch16_224", 224),
        ("vit_small_patch14_reg4_dinov2", 518),
    ],
)
def test_trained_size_is_told_from_the_positions(backbone: str, size: int) -> None:
    assert vit.trained_size(vit.create(backbone, size).state_dict()) == size
    assert vit.trained_size({}) is None


def test_unknown_shapes_ask_for_the_backbone() -> None:
    with pytest.raises(CheckpointError, match=r"no cls_token.*first keys are conv"):
        vit.guess_backbone({"conv.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"width 384.*patch 14.*--backbone"):
        vit.guess_backbone(vit.create("vit_small_patch14_dinov2", 56).state_dict())
