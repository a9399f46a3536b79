"""Backbones: made by name, measured, refused where they are not plain."""

from __future__ import annotations

import pytest
import torch

from fgdeploy.core.errors import CheckpointError, UsageError
from fgdeploy.models.backbone import vit
from fgdeploy.models.backbone.vit import Geometry


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
        ("resnet50", 224, "resnet50 is of the family ResNet, no plain ViT; .*--backbone"),
        ("vit_tiny_patch16_224", 0, "expected an image size above zero, got 0"),
        ("vit_tiny_patch16_224", 230, "230 is no multiple of .* patch size 16; choose 224 or 240"),
        (
            "vit_base_patch16_siglip_224",
            224,
            "pools its patches by attention .* no class token, .*; choose",
        ),
        ("vit_srelpos_small_patch16_224", 224, "of the family VisionTransformerRelPos"),
        ("vit_small_patch14_dinov2", 225, "225 pixels|225 is no multiple"),
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
    with pytest.raises(CheckpointError, match=r"width 384.*patch 8.*--backbone"):
        vit.guess_backbone(vit.create("vit_small_patch8_224", 56).state_dict())


@pytest.mark.parametrize(
    ("backbone", "size", "expected"),
    [
        ("deit_tiny_patch16_224", 224, Geometry(192, 12, 16, (14, 14), 1, 4.0, 16)),
        ("deit_tiny_distilled_patch16_224", 64, Geometry(192, 12, 16, (4, 4), 2, 4.0, 16)),
        ("vit_small_patch14_reg4_dinov2", 70, Geometry(384, 12, 14, (5, 5), 5, 4.0, 14)),
    ],
)
def test_the_sizes_of_a_backbone(backbone: str, size: int, expected: Geometry) -> None:
    assert vit.geometry(vit.create(backbone, size)) == expected
    assert expected.patches == expected.grid[0] * expected.grid[1]
