"""Each kind of plain ViT that timm has: dense as timm has it, pruned as a reference has it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import timm
import torch
from timm.layers import RmsNorm
from torch import nn

from fgdeploy.models.heads.base import NoHead
from fgdeploy.models.network import Network
from fgdeploy.models.plan import block_macs, record
from fgdeploy.models.reduce.stages import Stage
from fgdeploy.models.simplify import declared, simplified
from tests.models.backbone.kinds import KINDS, shrunk, stirred
from tests.models.backbone.reference_plain import Kind, forward, gelu, quick_gelu, silu_gate
from tests.models.samples import images, pruned

STAGES = (Stage(1, 9), Stage(2, 4))
KEEP = {stage.block: stage.keep for stage in STAGES}


def _normed_queries() -> Any:
    """A kind that no name has yet: queries and keys normalised, by their root mean square."""
    return stirred(
        timm.models.VisionTransformer(
            img_size=64,
            embed_dim=32,
            depth=3,
            num_heads=2,
            num_classes=0,
            qk_norm=True,
            proj_bias=False,
            reg_tokens=2,
            norm_layer=RmsNorm,
        )
    )


def _vit(kind: str) -> Any:
    return _normed_queries() if kind == "qk_norm" else shrunk(kind)


def _told(net: Any) -> Kind:
    """Return what the names of the weights do not tell."""
    mlp, norm = net.blocks[0].mlp, net.blocks[0].norm1
    activations = {"GELU": gelu, "QuickGELU": quick_gelu, "SiLU": silu_gate}
    patch = int(net.patch_embed.patch_size[0])
    return Kind(2, patch, float(norm.eps), activations[type(mlp.act).__name__])


def _expected(net: Any, photo: torch.Tensor, keep: dict[int, int]) -> npt.NDArray[np.float64]:
    weights = {name: value.numpy() for name, value in net.state_dict().items()}
    return forward(_told(net), weights, photo.numpy(), keep)


@pytest.mark.parametrize("kind", [*KINDS, "qk_norm"])
def test_a_kind_is_timm_s_when_dense_and_the_reference_s_when_pruned(kind: str) -> None:
    net = _vit(kind)
    photos = images(2, int(net.patch_embed.img_size[0]))
    features = net.forward_features(photos)
    np.testing.assert_allclose(features[0].numpy(), _expected(net, photos[0], {}), atol=1e-11)
    dense = pruned(net)
    assert (dense(photos).embedding - features[:, 0]).abs().max() < 1e-12

    encoder = pruned(net, STAGES)
    names = frozenset(declared(encoder)) - {"fold-normalisation"}  # takes other pixels
    for active in (frozenset[str](), names):
        found = simplified(encoder, active)(photos).embedding.numpy()
        for row, photo in zip(found, photos, strict=True):
            np.testing.assert_allclose(row, _expected(net, photo, KEEP)[0], rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", [*KINDS, "qk_norm"])
def test_frames_are_folded_exactly(kind: str) -> None:
    """Mean, std and fixed rows too, in double precision."""
    net = _vit(kind)
    side = int(net.patch_embed.img_size[0])
    frames = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
    network = Network(pruned(net, STAGES), NoHead()).double()
    published, deployed = network.published(), network.deployed()
    one, two = (each(each.pixels(frames)).embedding for each in (published, deployed))
    assert (one - two).abs().max() < 1e-11 * one.abs().max()


@pytest.mark.parametrize(
    ("kind", "inner"), [("deit_tiny_patch16_224", 8), ("vit_giant_patch14_dinov2", 5.3125 * 1.5)]
)
def test_multiply_accumulates_of_a_gated_mlp_count_both_halves(kind: str, inner: float) -> None:
    """Its second product has half the width of the first's: D x h and h/2 x D."""
    net = _vit(kind)
    side, rows = int(net.patch_embed.img_size[0]), 17
    network = Network(pruned(net), NoHead()).float().to("meta")
    patches = 16 * 3 * int(net.patch_embed.patch_size[0]) ** 2 * 32
    attention = block_macs(32, rows, rows, rows, 0)
    assert record(network.published(), side).macs == patches + 3 * (
        attention + int(rows * inner * 32**2)
    )


def test_every_learnt_part_of_a_kind_gets_a_gradient() -> None:
    for kind in ("vit_giant_patch14_reg4_dinov2", "beit3_base_patch16_224"):
        net: nn.Module = shrunk(kind).requires_grad_(True)
        encoder = pruned(net, STAGES)
        size = int(encoder.vit.patch_embed.img_size[0])
        encoder(images(2, size)).embedding.square().sum().backward()
        assert [name for name, value in net.named_parameters() if value.grad is None] == []
