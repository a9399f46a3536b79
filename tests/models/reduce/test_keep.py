"""Pruning blocks: which rows stay, and the same rows whichever way they are taken."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fgdeploy.models.backbone import blocks
from fgdeploy.models.reduce.keep import KeepBest
from fgdeploy.models.reduce.scores import token_scores
from fgdeploy.models.simplify import declared, simplified
from fgdeploy.models.tokens import Tokens
from tests.models.samples import randomised


def _tokens(prefix: int, suffix: int) -> Tokens:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 16 + prefix + suffix, 64, generator=generator, dtype=torch.float64)
    return Tokens(x, prefix, suffix)


@pytest.fixture(scope="module")
def block() -> Any:
    return randomised("test_vit", 64).blocks[2]


@pytest.mark.parametrize(("prefix", "suffix"), [(1, 0), (2, 0), (5, 0), (1, 3)])
@pytest.mark.parametrize("keep", [1, 7, 16])
def test_the_best_rows_of_the_whole_block_stay(
    block: Any, keep: int, prefix: int, suffix: int
) -> None:
    tokens = _tokens(prefix, suffix)
    step = KeepBest(keep, token_scores)
    attended = blocks.attend(block, tokens.x)
    whole = blocks.complete(block, attended)
    scores = token_scores(attended.full_attention()[:, :, 0], attended.out_by_head, prefix, suffix)
    assert set(declared(step)) == {"early-gather", "cls-row"}
    for names in ((), ("early-gather",), ("cls-row",), ("early-gather", "cls-row")):
        found = simplified(step, frozenset(names))(block, tokens)
        assert found.count == prefix + keep + suffix
        assert (found.prefix, found.suffix, found.patches) == (prefix, suffix, keep)
        for row in range(3):
            best = sorted(range(16), key=lambda n: -float(scores[row, n]))[:keep]
            inner = found.x[row, prefix : prefix + keep]
            assert _same_rows(inner, whole[row, [n + prefix for n in best]])
            fixed = [*range(prefix), *range(16 + prefix, 16 + prefix + suffix)]
            got = torch.cat([found.x[row, :prefix], found.x[row, prefix + keep :]])
            assert (got - whole[row, fixed]).abs().max() < 1e-12


def _same_rows(one: Tensor, two: Tensor) -> bool:
    """Return whether rows are the same in any order."""
    nearest = torch.cdist(one, two).min(dim=1)
    return bool(nearest.values.max() < 1e-11) and len(set(nearest.indices.tolist())) == len(one)


def test_what_was_attended_is_told(block: Any) -> None:
    tokens = _tokens(1, 0)
    found = KeepBest(4, token_scores)(block, tokens)
    assert found.attended is not None
    assert torch.equal(found.attended.x, tokens.x)
    assert found.attended.out.shape == (3, 17, 64)


def test_the_number_of_rows_is_a_constant_of_the_network(block: Any) -> None:
    """No row count depends on an image, so engines have fixed shapes."""
    step = KeepBest(4, token_scores)
    for scale in (0.0, 1.0, 100.0):
        tokens = _tokens(1, 0)
        assert step(block, tokens.having(scale * tokens.x)).count == 5
