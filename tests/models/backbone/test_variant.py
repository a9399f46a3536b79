"""What a method's ViT has otherwise than timm's."""

from __future__ import annotations

import pytest
import torch

from fgdeploy.core.errors import UsageError
from fgdeploy.models.backbone import vit
from fgdeploy.models.backbone.variant import Variant
from tests.checks import refused


def test_patches_may_overlap() -> None:
    net = vit.create("test_vit", 64, variant=Variant(stride=12))
    shape = vit.geometry(net)
    assert (shape.grid, shape.patches, shape.stride, shape.patch_size) == ((5, 5), 25, 12, 16)
    assert net.pos_embed.shape[1] == net.num_prefix_tokens + 25
    with torch.no_grad():
        tokens = net.patch_embed(torch.randn(2, 3, 64, 64))
        assert tokens.shape == (2, 25, 64)
        assert net(torch.randn(2, 3, 64, 64)).shape[0] == 2
    again, other = (
        vit.create("test_vit", 64, seed=seed, variant=Variant(stride=12)) for seed in (0, 1)
    )
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


@pytest.mark.parametrize("stride", [0, -1, 17, 32])
def test_strides_that_do_not_fit(stride: int) -> None:
    words = f"a stride of {stride} does not cut 64 pixels into patches of 16; expected 1 to 16"
    with refused(UsageError, words):
        vit.create("test_vit", 64, variant=Variant(stride=stride))


def test_every_norm_gets_the_method_s_eps() -> None:
    for given, expected in ((1e-12, {1e-12}), (None, {1e-6})):
        net = vit.create("test_vit", 64, variant=Variant(norm_eps=given))
        norms = [m for m in net.modules() if isinstance(m, torch.nn.LayerNorm)]
        assert len(norms) == 2 * 6 + 1
        assert {module.eps for module in norms} == expected


def test_a_stride_leaves_out_what_it_does_not_reach() -> None:
    net = vit.create("test_vit", 64, variant=Variant(stride=7))
    assert vit.geometry(net).grid == (7, 7)  # 6 * 7 + 16 = 58 of 64 pixels
    with torch.no_grad():
        assert net.patch_embed(torch.randn(1, 3, 64, 64)).shape == (1, 49, 64)


def test_sizes_of_its_own() -> None:
    variant = Variant(heads=3, width=48, depth=2, mlp_ratio=2.0, patch=8)
    shape = vit.geometry(net := vit.create("vit_tiny_patch16_224", 32, variant=variant))
    assert (shape.width, shape.depth, shape.mlp_ratio, shape.patch_size) == (48, 2, 2.0, 8)
    assert net.blocks[0].attn.num_heads == 3
    with torch.no_grad():
        assert net(torch.randn(1, 3, 32, 32)).shape == (1, 48)


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        (Variant(heads=5, width=48), "5 heads do not divide a width of 48; give another number"),
        (Variant(depth=0), "a ViT's depth of 0: expected 1 to 65536"),
        (Variant(heads=1 << 20), "a ViT's num_heads of 1048576"),
        (Variant(heads=5), "at 32 pixels, num_heads 5; choose .*, and heads that divide the width"),
        (Variant(width=50), "at 32 pixels, embed_dim 50; choose .*, and heads that divide"),
        (Variant(patch=64), "image size 32 is no multiple of .* patch size 64; choose 64$"),
    ],
)
def test_sizes_that_are_none(variant: Variant, words: str) -> None:
    with refused(UsageError, words):
        vit.create("vit_tiny_patch16_224", 32, variant=variant)
