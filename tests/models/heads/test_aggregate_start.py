"""How a new aggregate starts: what it lets through, and the statistics it takes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fgdeploy.models.heads.aggregate import Aggregate

WIDTH, BLOCKS = 6, 4


def _rows(count: int) -> Tensor:
    drawn = torch.randn(count, WIDTH, BLOCKS, generator=torch.Generator().manual_seed(0))
    scales = torch.arange(1.0, WIDTH + 1)[:, None] * torch.tensor([1.0, 3.0, 0.5, 2.0])
    return (drawn * scales + scales.flip(0)).double()


def _made(kernels: int = 2) -> Aggregate:
    torch.manual_seed(3)
    return Aggregate(WIDTH, BLOCKS, kernels).double()


@pytest.mark.parametrize("kernels", [1, 2, 3])
def test_statistics_are_those_of_all_rows(kernels: int) -> None:
    made, rows = _made(kernels), _rows(50)
    with torch.no_grad():
        made.norm_in.weight.uniform_(0.5, 2)
        made.norm_in.bias.uniform_(-1, 1)
    feature = made.settle(rows)
    first = rows.transpose(1, 2).reshape(-1, WIDTH)
    assert made.norm_in.running_mean is not None and made.norm_in.running_var is not None
    torch.testing.assert_close(made.norm_in.running_mean, first.mean(0))
    torch.testing.assert_close(made.norm_in.running_var, first.var(0))
    scaled = (first - first.mean(0)) / (first.var(0) + 1e-5).sqrt()
    scaled = scaled * made.norm_in.weight + made.norm_in.bias
    weight = made.conv.weight.reshape(WIDTH, kernels, BLOCKS)
    assert made.conv.bias is not None
    second = torch.einsum("nbd,dkb->ndk", scaled.reshape(50, BLOCKS, WIDTH), weight).flatten(1)
    second = (second + made.conv.bias).detach()
    assert made.norm_out.running_mean is not None and made.norm_out.running_var is not None
    torch.testing.assert_close(made.norm_out.running_mean, second.mean(0))
    torch.testing.assert_close(made.norm_out.running_var, second.var(0))
    assert made.training
    torch.testing.assert_close(feature, made.eval()(rows))
    assert not feature.requires_grad
    assert {made.norm_in.momentum, made.norm_out.momentum} == {0.1}


def test_at_first_the_last_block_s_cls_comes_through_whole() -> None:
    made, rows = _made(), _rows(50)
    made.begin()
    feature = made.settle(rows)
    last = rows[:, :, -1]
    wanted = (last - last.mean(0)) / last.std(0)
    # gelu(x) - gelu(-x) = x
    torch.testing.assert_close(feature[:, 0::2] - feature[:, 1::2], wanted, atol=1e-4, rtol=1e-4)
