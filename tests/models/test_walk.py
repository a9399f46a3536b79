"""The way of the tokens: steps in order, observers, and the last block's three ways."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fgdeploy.models.backbone.blocks import Block
from fgdeploy.models.backbone.embedding import Embedding
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.reduce.stages import Stage
from fgdeploy.models.simplify import simplified
from fgdeploy.models.tokens import Tokens
from fgdeploy.models.walk import CLSRows, LastStep, Step, Walk
from tests.models.samples import BACKBONES, NORM, images, pruned, randomised, size_of


@pytest.fixture(scope="module", params=["test_vit", *BACKBONES[1:4]])
def net(request: pytest.FixtureRequest) -> Any:
    return randomised(request.param, size_of(request.param))


def _embedded(net: Any) -> Tokens:
    tokens: Tokens = Embedding(net, NORM)(images(2, net.patch_embed.img_size[0]))
    return tokens


def _timm(net: Any, x: Tensor) -> list[Tensor]:
    """Return x behind each block of timm's own."""
    found = []
    for block in net.blocks:
        x = block(x)
        found.append(x)
    return found


class _Seen:
    """Keeps all that an observer is told."""

    def __init__(self, wants_attention: bool = False) -> None:
        self.wants_attention = wants_attention
        self.told: list[tuple[int, Tokens]] = []

    def __call__(self, number: int, tokens: Tokens) -> None:
        self.told.append((number, tokens))


def test_without_steps_it_is_timm(net: Any) -> None:
    tokens, seen = _embedded(net), _Seen()
    out = Walk(len(net.blocks), {})(net.blocks, tokens, [seen], all_rows=True)
    expected = _timm(net, tokens.x)
    assert [number for number, _ in seen.told] == list(range(1, len(net.blocks) + 1))
    for (_, told), x in zip(seen.told, expected, strict=True):
        assert (told.x - x).abs().max() < 1e-11 * x.abs().max()
    assert out is seen.told[-1][1]


def test_the_last_block_s_three_ways_are_one(net: Any) -> None:
    tokens, depth = _embedded(net), len(net.blocks)
    plain, listening = _Seen(), _Seen(wants_attention=True)
    walk = Walk(depth, {})
    row = walk(net.blocks, tokens, [plain])
    attended = walk(net.blocks, tokens, [listening])
    every = walk(net.blocks, tokens, all_rows=True)
    published = simplified(walk, frozenset())(net.blocks, tokens)
    scale = every.x.abs().max()
    for found in (row, attended):
        assert found.x.shape == (2, 1, every.x.shape[2])
        assert (found.x - every.x[:, :1]).abs().max() < 1e-12 * scale
        assert (found.prefix, found.suffix, found.size, found.mask) == (1, 0, None, None)
    assert torch.equal(published.x, every.x)
    assert published.count == tokens.count
    # What was attended is of all rows where somebody asked for it, and not there otherwise.
    assert row.attended is None and plain.told[-1][1].attended is None
    seen, whole = listening.told[-1][1].attended, every.attended
    assert seen is not None and whole is not None
    assert (seen.out - whole.out).abs().max() < 1e-12 * whole.out.abs().max()
    assert torch.equal(seen.cls_attention(), whole.cls_attention())


@pytest.mark.parametrize("attention", [False, True])
def test_the_last_block_reads_sizes_and_masks(net: Any, attention: bool) -> None:
    tokens = _embedded(net)
    generator = torch.Generator().manual_seed(0)
    size = torch.randint(1, 5, tokens.x.shape[:2], generator=generator).double()
    mask = torch.rand(tokens.x.shape[:2], generator=generator) < 0.8
    mask[:, 0] = True
    given = tokens.having(tokens.x, size=size, mask=mask)
    step = LastStep()
    found = step(net.blocks[-1], given, False, attention)
    every = step(net.blocks[-1], given, True)
    assert (found.x - every.x[:, :1]).abs().max() < 1e-12 * every.x.abs().max()
    assert (every.x - step(net.blocks[-1], tokens, True).x)[:, 0].abs().max() > 1e-4


def test_cls_rows_are_kept_after_the_blocks_asked_for(net: Any) -> None:
    tokens, depth = _embedded(net), len(net.blocks)
    rows = CLSRows([2, depth, depth - 1])
    Walk(depth, {})(net.blocks, tokens, [rows])
    expected = _timm(net, tokens.x)
    assert not rows.wants_attention
    assert len(rows.rows) == 3  # in the order of the blocks
    for row, number in zip(rows.rows, (2, depth - 1, depth), strict=True):
        assert (row - expected[number - 1][:, 0]).abs().max() < 1e-11 * row.abs().max()


class _Marks(Step):
    """Doubles what comes in, to be seen."""

    def forward(self, block: Block, tokens: Tokens) -> Tokens:
        """Run the block on doubled rows."""
        return super().forward(block, tokens.having(2 * tokens.x))


@pytest.mark.parametrize("number", [1, 3, 6])
def test_a_step_owns_its_block(number: int) -> None:
    net = randomised("test_vit", 64)
    tokens = _embedded(net)
    mark = _Marks()
    walk = Walk(6, {number: mark})
    assert walk.steps[str(number)] is mark
    seen = _Seen()
    walk(net.blocks, tokens, [seen], all_rows=True)
    x = tokens.x
    for place, block in enumerate(net.blocks, start=1):
        x = block(2 * x if place == number else x)
        assert (seen.told[place - 1][1].x - x).abs().max() < 1e-11 * x.abs().max()


@pytest.mark.parametrize("number", [0, 7, -1])
def test_steps_for_blocks_that_there_are_not(number: int) -> None:
    words = f"^a step for block {number}, but there are blocks 1 to 6$"
    with pytest.raises(ValueError, match=words):
        Walk(6, {1: Step(), number: Step()})


def test_an_encoder_tells_its_observers_the_pruned_tokens() -> None:
    net = randomised("test_vit", 64)
    encoder = pruned(net, (Stage(2, 8), Stage(4, 3)))
    seen = _Seen()
    encoder(images(2, 64), [seen])
    assert [told.count for _, told in seen.told] == [17, 9, 9, 4, 4, 1]
    arrived = [told.attended.x.shape[1] for _, told in seen.told[:5] if told.attended is not None]
    assert arrived == [17, 17, 9, 9, 4]


def test_observers_change_nothing() -> None:
    net = randomised("test_vit", 64)
    encoder = Encoder(net, NORM)
    plain = encoder(images(2, 64)).embedding
    assert torch.equal(encoder(images(2, 64), [_Seen(), CLSRows([1])]).embedding, plain)
    with_attention = encoder(images(2, 64), [_Seen(wants_attention=True)]).embedding
    assert (with_attention - plain).abs().max() < 1e-12
