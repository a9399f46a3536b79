"""Layers of reductions: how they start, empty ones too, and what the plan counts of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fgdeploy.models.heads.base import NoHead
from fgdeploy.models.network import Network
from fgdeploy.models.plan import dense, record
from fgdeploy.models.reduce.layers import Product, SmallLinear, macs_of
from fgdeploy.models.tokens import Tokens
from fgdeploy.models.walk import Step
from tests.models.samples import pruned, randomised


def test_a_linear_starts_small_and_may_be_empty() -> None:
    torch.manual_seed(0)
    layer = SmallLinear(64, 200)
    assert 0.019 < layer.weight.std() < 0.021
    assert not layer.bias.any()
    empty = SmallLinear(8, 0)
    assert empty.weight.shape == (0, 8) and empty.bias.shape == (0,)


@pytest.mark.parametrize(
    ("left", "right", "macs"),
    [
        ((1, 5, 3), (1, 3, 7), 5 * 3 * 7),
        ((5, 3), (1, 3, 7), 5 * 3 * 7),
        ((1, 2, 5, 3), (3, 7), 2 * 5 * 3 * 7),
    ],
)
def test_multiply_accumulates_of_a_product(
    left: tuple[int, ...], right: tuple[int, ...], macs: int
) -> None:
    first, second = torch.randn(left), torch.randn(right)
    assert macs_of(first, second) == macs
    assert torch.equal(Product()(first, second), first @ second)


class _Mixes(Step):
    def __init__(self) -> None:
        super().__init__()
        self.mix = Product()

    def forward(self, block: object, tokens: Tokens) -> Tokens:
        rows: Tensor = self.mix(tokens.x.transpose(1, 2), tokens.x)
        return super().forward(block, tokens.having(tokens.x + rows.mean()))


def test_the_plan_counts_products() -> None:
    encoder = pruned(randomised("test_vit", 64, torch.float32))
    encoder.walk.steps["2"] = _Mixes()
    plan = record(Network(encoder, NoHead()).published(), 64)
    assert plan.others == 64 * 17 * 64
    assert plan.macs == dense(plan.geometry).macs + plan.others
