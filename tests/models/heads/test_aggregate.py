"""CLA's aggregation: against its definition, and folded."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgdeploy.models.heads.aggregate import Aggregate, FoldedAggregate, WeightedAggregate
from fgdeploy.models.simplify import simplified

WIDTH, BLOCKS = 6, 4


def _random(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    module = module.double().eval()
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
                value.copy_(noise.abs() + 0.1 if name.endswith("var") else noise)
    return module


def _rows() -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(3, WIDTH, BLOCKS, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("kernels", [1, 2, 3])
def test_folded_is_the_definition(kernels: int) -> None:
    plain, rows = _random(Aggregate(WIDTH, BLOCKS, kernels)), _rows()
    p = plain.state_dict()
    y = (rows - p["norm_in.running_mean"][:, None]) / (p["norm_in.running_var"] + 1e-5).sqrt()[
        :, None
    ]
    y = y * p["norm_in.weight"][:, None] + p["norm_in.bias"][:, None]
    expected = torch.zeros(3, kernels * WIDTH, dtype=torch.float64)
    for o in range(kernels * WIDTH):
        summed = (y[:, o // kernels] * p["conv.weight"][o, 0]).sum(dim=1) + p["conv.bias"][o]
        scaled = (summed - p["norm_out.running_mean"][o]) / (
            p["norm_out.running_var"][o] + 1e-5
        ).sqrt()
        expected[:, o] = F.gelu(scaled * p["norm_out.weight"][o] + p["norm_out.bias"][o])
    folded = simplified(plain, frozenset({"fold-aggregate"}))
    assert isinstance(folded, FoldedAggregate)
    assert simplified(plain, frozenset()).__class__ is Aggregate
    for module in (plain, folded):
        assert (module(rows) - expected).abs().max() < 1e-12


def test_the_older_head() -> None:
    plain, rows = _random(WeightedAggregate(WIDTH, BLOCKS)), _rows()
    p = plain.state_dict()
    weighed = ((rows * p["weigh.weight"][0]).sum(dim=2) + p["weigh.bias"]).clamp(min=0)
    centred = weighed - weighed.mean(dim=1, keepdim=True)
    spread = ((centred**2).mean(dim=1, keepdim=True) + 1e-5).sqrt()
    expected = centred / spread * p["norm.weight"] + p["norm.bias"]
    assert (plain(rows) - expected).abs().max() < 1e-12
