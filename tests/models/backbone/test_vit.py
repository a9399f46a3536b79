"""Backbones: made by name, measured, refused where they are not plain."""

from __future__ import annotations

import pytest
import torch

from fgdeploy.core.errors import CheckpointError, UsageError
from fgdeploy.models.backbone import vit
from fgdeploy.models.backbone.vit import Geometry
from tests.checks import refused


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
        ("vit_base_patch16_siglip_224", 224, "pools its patches and has no class token; choose"),
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
    with pytest.raises(CheckpointError, match=r"width 384.*patch 14.*--backbone"):
        vit.guess_backbone(vit.create("vit_small_patch14_dinov2", 56).state_dict())


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


def test_patches_may_overlap() -> None:
    net = vit.create("test_vit", 64, stride=12)
    shape = vit.geometry(net)
    assert (shape.grid, shape.patches, shape.stride, shape.patch_size) == ((5, 5), 25, 12, 16)
    assert net.pos_embed.shape[1] == net.num_prefix_tokens + 25
    with torch.no_grad():
        tokens = net.patch_embed(torch.randn(2, 3, 64, 64))
        assert tokens.shape == (2, 25, 64)
        assert net(torch.randn(2, 3, 64, 64)).shape[0] == 2
    again, other = (vit.create("test_vit", 64, seed=seed, stride=12) for seed in (0, 1))
    assert torch.equal(net.pos_embed, again.pos_embed)
    assert not torch.equal(net.pos_embed, other.pos_embed)
    # A token sees the pixels of its place, at steps of the stride.
    picture = torch.zeros(1, 3, 64, 64)
    picture[:, :, 12:28, 24:40] = 1.0
    conv = net.patch_embed.proj
    with torch.no_grad():
        seen = net.patch_embed(picture)[0, 1 * 5 + 2]
        expected = conv.weight.sum(dim=(1, 2, 3)) + conv.bias
    assert torch.allclose(seen, expected, atol=1e-4)


@pytest.mark.parametrize("stride", [0, -1, 7, 17, 32])
def test_strides_that_do_not_fit(stride: int) -> None:
    words = f"a stride of {stride} does not cut 64 pixels into patches of 16; expected 1 to 16, div"
    with refused(UsageError, words):
        vit.create("test_vit", 64, stride=stride)


def test_every_norm_gets_the_method_s_eps() -> None:
    for given, expected in ((1e-12, {1e-12}), (None, {1e-6})):
        net = vit.create("test_vit", 64, norm_eps=given)
        norms = [m for m in net.modules() if isinstance(m, torch.nn.LayerNorm)]
        assert len(norms) == 2 * 6 + 1
        assert {module.eps for module in norms} == expected
