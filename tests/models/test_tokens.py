"""Tokens between two blocks, and what attention adds for them."""

from __future__ import annotations

import math

import pytest
import torch

from fgdeploy.models.backbone import blocks
from fgdeploy.models.tokens import Tokens
from tests.models.samples import randomised


def _x(rows: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, rows, 64, generator=generator, dtype=torch.float64)


def test_rows_are_counted() -> None:
    tokens = Tokens(_x(9), prefix=2, suffix=3)
    assert (tokens.count, tokens.patches) == (9, 4)
    assert (Tokens(_x()).count, Tokens(_x()).patches) == (5, 4)


def test_what_is_not_named_stays() -> None:
    tokens = Tokens(_x(), prefix=2, suffix=1, size=torch.ones(2, 5), cache=(_x(),))
    other = tokens.having(_x(3), suffix=0)
    assert other.count == 3
    assert (other.prefix, other.suffix) == (2, 0)
    assert other.size is tokens.size and other.cache is tokens.cache
    assert tokens.suffix == 1


def test_without_size_and_mask_nothing_is_added() -> None:
    assert Tokens(_x()).bias() is None


def test_a_row_that_stands_for_several_is_as_many_keys() -> None:
    """ToMe's proportional attention: as if each merged row came so often."""
    block = randomised("test_vit", 64).blocks[2]
    x = _x(4)
    size = torch.tensor([[1.0, 3.0, 2.0, 1.0]] * 2, dtype=torch.float64)
    bias = Tokens(x, size=size).bias()
    assert bias is not None and bias.shape == (2, 1, 1, 4)
    assert bias[1, 0, 0].tolist() == [0.0, math.log(3), math.log(2), 0.0]
    found = blocks.attend(block, x, bias).out
    repeated = torch.cat([x[:, :1], *[x[:, 1:2]] * 3, *[x[:, 2:3]] * 2, x[:, 3:]], dim=1)
    expected = blocks.attend(block, repeated).out[:, [0, 1, 4, 6]]
    assert (found - expected).abs().max() < 1e-13


@pytest.mark.parametrize("sized", [False, True])
def test_a_masked_row_is_no_key(sized: bool) -> None:
    block = randomised("test_vit", 64).blocks[2]
    x = _x()
    size = torch.tensor([[1.0, 3.0, 2.0, 1.0, 4.0]] * 2, dtype=torch.float64) if sized else None
    mask = torch.tensor([[True, True, False, True, False]] * 2)
    bias = Tokens(x, size=size, mask=mask).bias()
    assert bias is not None and bias.dtype == torch.float64
    found = blocks.attend(block, x, bias)
    there = [0, 1, 3]
    less = None if size is None else Tokens(x[:, there], size=size[:, there]).bias()
    expected = blocks.attend(block, x[:, there], less)
    assert (found.out[:, there] - expected.out).abs().max() < 1e-13
    assert found.cls_attention()[..., [2, 4]].max() < 1e-200


def test_rows_that_are_all_masked_make_no_nan() -> None:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        mask = torch.zeros(2, 5, dtype=torch.bool)
        bias = Tokens(_x().to(dtype), mask=mask).bias()
        assert bias is not None and bias.dtype == dtype
        assert torch.isfinite(bias).all()
        assert torch.isfinite(torch.softmax(bias.float(), dim=-1)).all()
