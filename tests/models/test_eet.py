"""EET against a plain float64 reference, written from the method's description alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fgdeploy.models import blocks, vit
from fgdeploy.models.eet import SCHEDULE, eet, token_scores
from fgdeploy.models.staged import PUBLISHED, Shortcuts
from fgdeploy.models.stages import Stage

Array = npt.NDArray[np.float64]


def _layer_norm(x: Array, weight: Array, bias: Array, eps: float = 1e-6) -> Array:
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * weight + bias


def _gelu(x: Array) -> Array:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def _softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _reference(
    state: dict[str, Array], image: Array, heads: int, patch: int, keep: dict[int, int]
) -> tuple[Array, list[int]]:
    """One image [3, S, S] to the normalised CLS row; also the tokens that enter each block.

    `keep` maps 0-based blocks to patch tokens, selected after the whole block.
    """
    side = image.shape[1] // patch
    rows = []
    for row in range(side):
        for column in range(side):
            tile = image[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            weight = state["patch_embed.proj.weight"]
            rows.append((weight * tile).sum((1, 2, 3)) + state["patch_embed.proj.bias"])
    x = np.concatenate([state["cls_token"][0], np.array(rows)]) + state["pos_embed"][0]
    depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    width, counts = x.shape[1], []
    for i in range(depth):
        counts.append(len(x))
        p = {k.removeprefix(f"blocks.{i}."): v for k, v in state.items() if f"blocks.{i}." in k}
        y = _layer_norm(x, p["norm1.weight"], p["norm1.bias"])
        qkv = y @ p["attn.qkv.weight"].T + p["attn.qkv.bias"]
        size = width // heads
        out, cls_rows = np.zeros_like(x), []
        for h in range(heads):
            columns = slice(h * size, (h + 1) * size)
            q = qkv[:, :width][:, columns]
            k = qkv[:, width : 2 * width][:, columns]
            v = qkv[:, 2 * width :][:, columns]
            attention = _softmax(q @ k.T / math.sqrt(size))
            out[:, columns] = attention @ v
            cls_rows.append(attention[0])
        norms = np.stack(
            [np.sqrt((out[:, h * size : (h + 1) * size] ** 2).sum(1)) for h in range(heads)]
        )
        x = x + out @ p["attn.proj.weight"].T + p["attn.proj.bias"]
        y = _layer_norm(x, p["norm2.weight"], p["norm2.bias"])
        y = _gelu(y @ p["mlp.fc1.weight"].T + p["mlp.fc1.bias"])
        x = x + y @ p["mlp.fc2.weight"].T + p["mlp.fc2.bias"]
        if i in keep:
            weights = norms / (norms.sum(0) + 1e-8)
            score = (np.stack(cls_rows) * weights).sum(0)[1:]
            best = np.argsort(-score)[: keep[i]] + 1
            x = np.concatenate([x[:1], x[best]])
    return _layer_norm(x, state["norm.weight"], state["norm.bias"])[0], counts


def _randomised(name: str, size: int) -> Any:
    """A ViT in float64 whose every parameter matters: biases and norms too are random."""
    net = vit.create(name, size).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise * 0.05)
    return net.requires_grad_(False)


def _images(count: int, size: int) -> torch.Tensor:
    return torch.randn(
        count, 3, size, size, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )


def test_forward_equals_the_reference_at_the_published_size() -> None:
    net = _randomised("deit_tiny_patch16_224", 224)
    stages = SCHEDULE.stages(12, 196)
    assert [(s.block, s.keep) for s in stages] == [(4, 98), (8, 49), (10, 12)]
    images = _images(1, 224)
    state = {key: value.numpy() for key, value in net.state_dict().items()}
    expected, counts = _reference(state, images[0].numpy(), 3, 16, {3: 98, 7: 49, 9: 12})
    assert counts == [197] * 4 + [99] * 4 + [50] * 2 + [13] * 2
    for ways in (PUBLISHED, Shortcuts()):
        got = eet(net, stages, ways)(images)[0].numpy()
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("stages", [(), (Stage(1, 5),), (Stage(2, 16), Stage(11, 1))])
def test_other_stages_equal_the_reference(stages: tuple[Stage, ...]) -> None:
    net = _randomised("deit_tiny_patch16_224", 64)
    images = _images(2, 64)
    state = {key: value.numpy() for key, value in net.state_dict().items()}
    keep = {stage.block - 1: stage.keep for stage in stages}
    got = eet(net, stages)(images).numpy()
    for row, image in zip(got, images.numpy(), strict=True):
        np.testing.assert_allclose(row, _reference(state, image, 3, 16, keep)[0], atol=1e-11)


@pytest.mark.parametrize(
    "backbone",
    [
        "deit_tiny_patch16_224",
        "deit_tiny_distilled_patch16_224",  # two prefix tokens
        "deit3_small_patch16_224",  # layer scale, positions without CLS
        "vit_small_patch14_reg4_dinov2",  # four registers, layer scale
        "vit_medium_patch16_clip_224",  # norm before the blocks, no patch bias
    ],
)
def test_each_shortcut_alone_is_exact(backbone: str) -> None:
    net = _randomised(backbone, 70 if "14" in backbone else 64)
    images = _images(2, net.patch_embed.img_size[0])
    stages = (Stage(2, 9), Stage(5, 4))
    expected = eet(net, stages, PUBLISHED)(images)
    for ways in (
        Shortcuts(True, False, False),
        Shortcuts(False, True, False),
        Shortcuts(False, False, True),
        Shortcuts(),
    ):
        got = eet(net, stages, ways)(images)
        assert (got - expected).abs().max() < 1e-11 * expected.abs().max()


def test_without_stages_it_is_timm() -> None:
    net = _randomised("deit_tiny_patch16_224", 64)
    images = _images(2, 64)
    expected = net.forward_head(net.forward_features(images), pre_logits=True)
    assert torch.allclose(eet(net, ())(images), expected, rtol=0, atol=1e-11)


def test_kept_counts_at_224(monkeypatch: pytest.MonkeyPatch) -> None:
    net = vit.create("deit_tiny_patch16_224", 224)
    seen: list[int] = []
    original = blocks.attend

    def spy(block: Any, x: torch.Tensor, bias: Any = None) -> Any:
        seen.append(x.shape[1])
        return original(block, x, bias)

    monkeypatch.setattr(blocks, "attend", spy)
    eet(net, SCHEDULE.stages(12, 196), PUBLISHED)(torch.zeros(1, 3, 224, 224))
    assert seen == [197] * 4 + [99] * 4 + [50] * 2 + [13] * 2


def test_scores_by_hand() -> None:
    # One image, two heads, CLS and two patches; head sizes of one, so norms are absolute values.
    attention = torch.tensor([[[0.2, 0.5, 0.3], [0.1, 0.4, 0.5]]])
    out = torch.tensor([[[[9.0], [3.0], [-1.0]], [[9.0], [1.0], [1.0]]]])
    expected = [[0.5 * 3 / 4 + 0.4 * 1 / 4, 0.3 * 1 / 2 + 0.5 * 1 / 2]]
    assert torch.allclose(token_scores(attention, out, 1), torch.tensor(expected))


def test_gradients_reach_every_parameter_before_the_head() -> None:
    net = vit.create("deit_tiny_patch16_224", 64)
    eet(net, (Stage(4, 8),))(torch.randn(2, 3, 64, 64)).square().sum().backward()
    lacking = [n for n, p in net.named_parameters() if p.grad is None and "head" not in n]
    assert lacking == []
