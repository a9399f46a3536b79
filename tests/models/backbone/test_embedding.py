"""From frames to tokens: as published, and with mean, std and fixed tokens folded in."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fgdeploy.models.backbone import vit
from fgdeploy.models.backbone.embedding import (
    Embedding,
    FoldedEmbedding,
    Normalisation,
    Pixels,
    normalisation,
)
from fgdeploy.models.simplify import simplified
from tests.models.samples import BACKBONES, NORM


@pytest.mark.parametrize("suffix", [None, 3])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_folded_embedding_is_exact(backbone: str, suffix: int | None) -> None:
    size = 56 if "14" in backbone else 48
    net = vit.create(backbone, size).double().requires_grad_(False)
    width = int(net.embed_dim)
    rows = None
    if suffix is not None:
        rows = nn.Parameter(torch.randn(1, suffix, width, dtype=torch.float64), False)
    frames = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    mean = torch.tensor(NORM.mean, dtype=torch.float64).view(1, 3, 1, 1)
    std = torch.tensor(NORM.std, dtype=torch.float64).view(1, 3, 1, 1)
    plain = Embedding(net, NORM, rows)
    expected = plain((frames.double() / 255 - mean) / std)
    folded = simplified(plain, frozenset({"fold-normalisation"}))
    assert isinstance(folded, FoldedEmbedding)
    got = folded(frames.double())
    assert got.x.shape == expected.x.shape
    assert (got.x - expected.x).abs().max() < 1e-12
    assert got.prefix == expected.prefix == net.num_prefix_tokens
    assert got.suffix == expected.suffix == (suffix or 0)
    if rows is not None and isinstance(net.norm_pre, nn.Identity):
        assert torch.equal(got.x[:, -suffix:], rows.expand(2, -1, -1))  # type: ignore[operator]


def test_the_embedding_is_timm_s() -> None:
    net = vit.create("test_vit", 64).double().requires_grad_(False)
    pixels = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    entered: list[torch.Tensor] = []
    hook = net.blocks[0].register_forward_pre_hook(lambda block, args: entered.append(args[0]))
    net.forward_features(pixels)
    hook.remove()
    tokens = Embedding(net, NORM)(pixels)
    assert torch.equal(tokens.x, entered[0])
    assert (tokens.count, tokens.patches) == (17, 16)


def test_pixels_by_hand() -> None:
    frames = torch.randint(0, 256, (2, 3, 5, 5), dtype=torch.uint8)
    pixels = Pixels(NORM)
    expected = torch.stack(
        [(frames[:, c].double() / 255 - NORM.mean[c]) / NORM.std[c] for c in range(3)],
        dim=1,
    )
    assert torch.allclose(pixels(frames).double(), expected, rtol=0, atol=1e-6)
    assert pixels(frames).dtype == torch.float32
    assert pixels.double()(frames).dtype == torch.float64
    raw = simplified(pixels, frozenset({"fold-normalisation"}))
    assert torch.equal(raw(frames), frames.double())
    assert torch.equal(simplified(pixels, frozenset())(frames), pixels(frames))
    assert not pixels.state_dict()  # what a backbone is normalised by is in no checkpoint


def test_mean_and_std_are_those_of_the_backbone() -> None:
    assert normalisation(vit.create("deit_tiny_patch16_224", 32)) == Normalisation(
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )
    assert normalisation(vit.create("test_vit", 32)) == Normalisation((0.5,) * 3, (0.5,) * 3)
