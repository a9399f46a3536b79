"""Region guidance: what is hidden, to the pixel, and the scores that choose it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from fgdeploy.models.backbone import vit
from fgdeploy.models.heads.base import NoHead
from fgdeploy.models.network import Network
from fgdeploy.models.tokens import Tokens
from fgdeploy.training.guidance import PATCHES, Saliency, hide_salient
from tests.models.samples import images as photos
from tests.models.samples import pruned, randomised

Array = npt.NDArray[np.float64]
BACKBONES = [
    ("test_vit", 64),
    ("test_vit", 160),
    ("deit_tiny_distilled_patch16_224", 64),  # two prefix tokens
]


# What is hidden


def _images(count: int, size: int) -> Tensor:
    """Return images without a zero in them, so that each zero found was made."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, size, size, generator=generator) + 0.5


def _scores(count: int, grid: int, *high: tuple[int, int]) -> Tensor:
    """Return the same scores for each image, highest at `high` grid places (row, column)."""
    scores = torch.linspace(0, 1, grid * grid).repeat(count, 1)
    for number, (row, column) in enumerate(high):
        scores[:, row * grid + column] = 10.0 + number
    return scores


def _with_holes(images: Tensor, patch: int, *places: tuple[int, int]) -> Tensor:
    """Return images with 0 in image rows row * patch..(row + 1) * patch, columns likewise."""
    expected = images.clone()
    for row, column in places:
        for y in range(row * patch, (row + 1) * patch):
            for x in range(column * patch, (column + 1) * patch):
                expected[:, :, y, x] = 0
    return expected


@pytest.mark.parametrize("place", [(0, 0), (1, 2), (2, 1), (0, 4), (4, 0), (3, 4)])
def test_the_most_salient_patch_is_hidden_and_nothing_else(place: tuple[int, int]) -> None:
    images, scores = _images(2, 20), _scores(2, 5, place)
    before = images.clone()
    hidden = hide_salient(images, scores, 4, count=1)
    assert torch.equal(hidden, _with_holes(images, 4, place))
    assert torch.equal(images, before)


@pytest.mark.parametrize("place", [(0, 0), (1, 2), (2, 1), (0, 4), (3, 4)])
def test_transposed_hides_the_mirrored_patch(place: tuple[int, int]) -> None:
    images, scores = _images(2, 20), _scores(2, 5, place)
    hidden = hide_salient(images, scores, 4, count=1, transposed=True)
    assert torch.equal(hidden, _with_holes(images, 4, (place[1], place[0])))


@pytest.mark.parametrize("transposed", [False, True])
def test_several_patches(transposed: bool) -> None:
    places = [(0, 3), (2, 1), (4, 4), (3, 0)]
    images, scores = _images(1, 20), _scores(1, 5, *places)
    mirrored = [(column, row) if transposed else (row, column) for row, column in places]
    expected = _with_holes(images, 4, *mirrored)
    hidden = hide_salient(images, scores, 4, transposed=transposed)
    assert PATCHES == 4  # the authors' `--w`, and the default here
    assert torch.equal(hidden, expected)


@pytest.mark.parametrize(("count", "patches"), [(0, 0), (1, 1), (4, 4), (9, 9), (10, 9)])
def test_as_many_as_asked_for_are_hidden_or_all(count: int, patches: int) -> None:
    hidden = hide_salient(_images(3, 12), _scores(3, 3), 4, count=count)
    assert (hidden == 0).sum(dim=(1, 2, 3)).tolist() == [3 * 16 * patches] * 3


def test_each_image_has_its_own_patches() -> None:
    images = _images(3, 12)
    scores = torch.stack([_scores(1, 3, place)[0] for place in ((0, 1), (2, 0), (1, 1))])
    hidden = hide_salient(images, scores, 4, count=1)
    for number, place in enumerate(((0, 1), (2, 0), (1, 1))):
        one = slice(number, number + 1)
        assert torch.equal(hidden[one], _with_holes(images[one], 4, place))


def test_images_keep_their_type() -> None:
    images = _images(1, 12).to(torch.bfloat16)
    hidden = hide_salient(images, _scores(1, 3, (0, 2)), 4, count=1)
    assert hidden.dtype == torch.bfloat16
    assert torch.equal(hidden, _with_holes(images, 4, (0, 2)))


def test_a_patch_is_the_token_of_the_backbone() -> None:
    """Hiding patch n changes the embedded token n and no other."""
    net = vit.create("test_vit", 64)
    images = _images(1, 64)
    with torch.no_grad():
        before = net.patch_embed(images)
        for number in (1, 7, 12):
            scores = torch.zeros(1, 16)
            scores[0, number] = 1
            after = net.patch_embed(hide_salient(images, scores, 16, count=1))
            changed = (after != before).any(dim=2)[0].nonzero().flatten().tolist()
            assert changed == [number]


# What is salient


def _with_saliency(net: Network, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the embedding [B, D] and the scores of the patches [B, N]."""
    seen = Saliency(net)
    return net(images, [seen]).embedding, seen.scores


@pytest.mark.parametrize(("name", "size"), BACKBONES)
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("simple", [True, False])
def test_the_embedding_is_that_of_the_dense_vit(
    name: str, size: int, dtype: torch.dtype, within: float, simple: bool
) -> None:
    net = Network(pruned(randomised(name, size, dtype)), NoHead())
    net = net if simple else net.published()
    images = photos(2, size, dtype)
    embedding, scores = _with_saliency(net, images)
    assert embedding.dtype == scores.dtype == dtype
    assert scores.shape == (2, (size // 16) ** 2)
    assert (embedding - net(images).embedding).abs().max() <= within


def _last_block_scores(vit_: Any, x: Array) -> Array:
    """Score the patch tokens [N] of x [T, D] as it enters the last block, all written out."""
    block = vit_.blocks[-1]
    p = {name: value.numpy() for name, value in block.state_dict().items()}
    prefix, heads = vit_.num_prefix_tokens, block.attn.num_heads
    tokens, width = x.shape
    size = width // heads
    y = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)
    y = y * p["norm1.weight"] + p["norm1.bias"]
    qkv = y @ p["attn.qkv.weight"].T + p["attn.qkv.bias"]
    attention, norms = np.zeros((heads, tokens, tokens)), np.zeros((heads, tokens))
    for h in range(heads):
        q, k, v = (qkv[:, part * width + h * size :][:, :size] for part in range(3))
        for i in range(tokens):
            weights = np.exp(k @ q[i] / math.sqrt(size))
            attention[h, i] = weights / weights.sum()
            norms[h, i] = math.sqrt(np.square(attention[h, i] @ v).sum())
    scores = np.zeros(tokens - prefix)
    for n in range(tokens - prefix):
        i = n + prefix
        for h in range(heads):
            scores[n] += attention[h, 0, i] * norms[h, i] / (norms[:, i].sum() + 1e-8)
    return scores


@pytest.mark.parametrize(
    ("name", "size"), [("test_vit", 64), ("deit_tiny_distilled_patch16_224", 64)]
)
def test_the_scores_are_those_of_the_full_attention_of_the_last_block(name: str, size: int) -> None:
    net = randomised(name, size)
    images = photos(2, size)
    entered: list[Tensor] = []
    hook = net.blocks[-1].register_forward_pre_hook(lambda block, args: entered.append(args[0]))
    net.forward_features(images)  # timm's own
    hook.remove()
    _, scores = _with_saliency(Network(pruned(net), NoHead()), images)
    for row, x in zip(scores.numpy(), entered[0].numpy(), strict=True):
        expected = _last_block_scores(net, x)
        np.testing.assert_allclose(row, expected, rtol=1e-11, atol=0)
        assert 0 < expected.sum() < 1  # the prefix tokens have the rest
    assert (scores[0] - scores[1]).abs().max() > 1e-6


def test_scores_carry_gradients_unless_asked_not_to() -> None:
    net = Network(pruned(vit.create("test_vit", 64)), NoHead())
    embedding, scores = _with_saliency(net, photos(2, 64, torch.float32))
    assert embedding.requires_grad and scores.requires_grad
    with torch.no_grad():
        embedding, scores = _with_saliency(net, photos(2, 64, torch.float32))
    assert not embedding.requires_grad and not scores.requires_grad


def test_only_the_last_block_is_scored() -> None:
    net = Network(pruned(vit.create("test_vit", 64)), NoHead())
    seen = Saliency(net)
    assert seen.wants_attention
    for number in range(1, 6):
        seen(number, Tokens(torch.zeros(2, 17, 64)))
    assert not hasattr(seen, "scores")
