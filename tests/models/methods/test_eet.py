"""EET against a plain float64 reference, written from the method's description alone."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import timm.optim
import torch

from fgdeploy.core.errors import StageError, UsageError
from fgdeploy.models.backbone import blocks, vit
from fgdeploy.models.backbone.vit import Geometry
from fgdeploy.models.methods.eet import METHOD, PAPER, SCHEDULE, EETOptions
from fgdeploy.models.reduce.stages import Stage
from fgdeploy.models.simplify import declared, simplified
from tests.checks import refused
from tests.models.samples import BACKBONES, images, pruned, randomised, size_of

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


def test_forward_equals_the_reference_at_the_published_size() -> None:
    net = randomised("deit_tiny_patch16_224", 224)
    stages = SCHEDULE.stages(12, 196)
    assert [(s.block, s.keep) for s in stages] == [(4, 98), (8, 49), (10, 12)]
    photos = images(1, 224)
    state = {key: value.numpy() for key, value in net.state_dict().items()}
    expected, counts = _reference(state, photos[0].numpy(), 3, 16, {3: 98, 7: 49, 9: 12})
    assert counts == [197] * 4 + [99] * 4 + [50] * 2 + [13] * 2
    encoder = pruned(net, stages)
    for names in (frozenset[str](), frozenset(declared(encoder)) - {"fold-normalisation"}):
        got = simplified(encoder, names)(photos).embedding[0].numpy()
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("stages", [(), (Stage(1, 5),), (Stage(2, 16), Stage(11, 1))])
def test_other_stages_equal_the_reference(stages: tuple[Stage, ...]) -> None:
    net = randomised("deit_tiny_patch16_224", 64)
    photos = images(2, 64)
    state = {key: value.numpy() for key, value in net.state_dict().items()}
    keep = {stage.block - 1: stage.keep for stage in stages}
    got = pruned(net, stages)(photos).embedding.numpy()
    for row, image in zip(got, photos.numpy(), strict=True):
        np.testing.assert_allclose(row, _reference(state, image, 3, 16, keep)[0], atol=1e-11)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_each_shortcut_alone_is_exact(backbone: str) -> None:
    net = randomised(backbone, size_of(backbone))
    photos = images(2, size_of(backbone))
    encoder = pruned(net, (Stage(2, 9), Stage(5, 4)))
    expected = simplified(encoder, frozenset())(photos).embedding
    names = set(declared(encoder)) - {"fold-normalisation"}  # takes other pixels, see test_network
    assert names == {"early-gather", "cls-last", "cls-row"}
    for ways in (*({name} for name in names), names):
        got = simplified(encoder, frozenset(ways))(photos).embedding
        assert (got - expected).abs().max() < 1e-11 * expected.abs().max(), ways
    assert torch.equal(encoder(photos).embedding, got)  # all are on from the start


def test_without_stages_it_is_timm() -> None:
    net = randomised("deit_tiny_patch16_224", 64)
    photos = images(2, 64)
    expected = net.forward_head(net.forward_features(photos), pre_logits=True)
    assert torch.allclose(pruned(net)(photos).embedding, expected, rtol=0, atol=1e-11)


def test_kept_counts_at_224(monkeypatch: pytest.MonkeyPatch) -> None:
    net = vit.create("deit_tiny_patch16_224", 224)
    seen: list[int] = []
    original = blocks.attend

    def spy(block: Any, x: torch.Tensor, *rest: Any) -> Any:
        seen.append(x.shape[1])
        return original(block, x, *rest)

    monkeypatch.setattr(blocks, "attend", spy)
    published = simplified(pruned(net, SCHEDULE.stages(12, 196)), frozenset())
    published(torch.zeros(1, 3, 224, 224))
    assert seen == [197] * 4 + [99] * 4 + [50] * 2 + [13] * 2


def test_gradients_reach_every_parameter_before_the_head() -> None:
    net = vit.create("deit_tiny_patch16_224", 64)
    found = pruned(net, (Stage(4, 8),))(torch.randn(2, 3, 64, 64)).embedding
    found.square().sum().backward()
    lacking = [n for n, p in net.named_parameters() if p.grad is None and "head" not in n]
    assert lacking == []


# Its options

S224 = Geometry(width=384, depth=12, patch_size=16, grid=(14, 14))


def test_stages_as_the_user_writes_them() -> None:
    assert EETOptions.parse({}) == EETOptions()
    assert EETOptions.parse({"stages": "2:8,4:4"}) == EETOptions((Stage(2, 8), Stage(4, 4)))
    assert EETOptions.parse({"stages": "none"}) == EETOptions(())
    both = EETOptions.parse({"stages": "1:5", "transposed_mask": "true"})
    assert both == EETOptions((Stage(1, 5),), True)
    with refused(UsageError, "expected BLOCK:TOKENS pairs such as 4:98,8:49,10:12, or none"):
        EETOptions.parse({"stages": "2-8"})
    with refused(UsageError, "--set transposed_mask=1: expected true or false such as false"):
        EETOptions.parse({"transposed_mask": "1"})
    with refused(UsageError, "--set keep: the method's options are stages, transposed_mask"):
        EETOptions.parse({"keep": "3"})


@pytest.mark.parametrize("stages", [None, (), (Stage(2, 8), Stage(4, 4))])
def test_options_survive_json(stages: tuple[Stage, ...] | None) -> None:
    options = EETOptions(stages, True)
    assert EETOptions.from_json(json.loads(json.dumps(options.to_json()))) == options
    assert EETOptions.from_json({"stages": [[2, 8]]}) == EETOptions((Stage(2, 8),))
    assert EETOptions.from_json({}) == EETOptions()


@pytest.mark.parametrize(
    "entry",
    [
        {"stages": [[2]]},
        {"stages": 3},
        {"stages": [[2, "x"]]},
        {"stages": [[2, 8, 4]]},
        {"stages": [3]},
        {"transposed_mask": 1},
        {"keep": 3},
    ],
)
def test_damaged_options(entry: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        EETOptions.from_json(entry)


def test_options_are_resolved_for_a_backbone() -> None:
    assert EETOptions().resolved(S224).stages == (Stage(4, 98), Stage(8, 49), Stage(10, 12))
    assert EETOptions(()).resolved(S224).stages == ()
    mirrored = EETOptions((Stage(2, 8),), True)
    assert mirrored.resolved(S224) == mirrored
    with refused(StageError, "keeps 197 patch tokens, but 196 arrive there"):
        EETOptions((Stage(2, 197),)).resolved(S224)
    with refused(StageError, "below 12"):
        EETOptions((Stage(12, 3),)).resolved(S224)


def test_another_size_asks_for_the_published_fractions_again() -> None:
    assert EETOptions((Stage(2, 8),), True).resized() == EETOptions(None, True)
    assert EETOptions(()).resized() == EETOptions(())  # what was dense stays dense
    assert EETOptions(None).resized() == EETOptions(None)


def test_dense_options_prune_nothing() -> None:
    assert EETOptions((Stage(2, 8),), True).dense() == EETOptions((), True)


def test_tokens_that_arrive_at_each_stage_are_in_the_fingerprint() -> None:
    """Written as in all bundles so far, so that their fingerprints stay."""

    def arriving(*stages: Stage) -> list[tuple[int, int, int]]:
        found = EETOptions(stages).deciding(S224)
        assert list(found) == ["stages"]
        assert all(list(one) == ["block", "tokens_in", "keep"] for one in found["stages"])
        return [tuple(one.values()) for one in found["stages"]]

    published = (Stage(4, 98), Stage(8, 49), Stage(10, 12))
    assert arriving(*published) == [(4, 196, 98), (8, 98, 49), (10, 49, 12)]
    assert arriving(Stage(4, 98)) == [(4, 196, 98)]
    assert arriving() == []
    # The mask is of training alone and decides no code.
    assert EETOptions(published, True).deciding(S224) == EETOptions(published).deciding(S224)


# Its recipe


def test_the_paper_s_settings() -> None:
    """docs/methods.md 1.3."""
    assert METHOD.recipe("paper") is PAPER
    assert (PAPER.lr, PAPER.momentum, PAPER.weight_decay) == (1e-2, 0.9, 0.0)
    assert (PAPER.epochs, PAPER.batch, PAPER.warmup) == (90, 64, 500)  # CUB and Cars
    assert PAPER.layer_decay is None and PAPER.clip_norm is None and PAPER.head_rate == 1.0
    optimizer = timm.optim.create_optimizer_v2(
        [torch.nn.Parameter(torch.zeros(1))], opt=PAPER.optimizer, lr=1e-2, momentum=0.9
    )
    assert type(optimizer) is torch.optim.SGD
    assert optimizer.defaults["nesterov"] is False
