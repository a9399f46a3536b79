"""ATS against plain float64 maths that keeps only different samples, and what its masks hide."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from fgdeploy.models.backbone.blocks import softmax_products
from fgdeploy.models.reduce.ats import Samples, sample_points
from fgdeploy.models.tokens import Tokens
from tests.models.reduce import proof
from tests.models.reduce.reference import Reduce, State
from tests.models.samples import images


class Sampled(Reduce):
    """CLS and the different rows whose cdf lies nearest to the middles of K equal parts."""

    def __init__(self, count: int) -> None:
        # The authors' points are float32, whatever the type of all else.
        points = np.arange(1 / (2 * count), (2 * count - 1) / (2 * count), 1 / count)
        self.points = points.astype(np.float32).astype(np.float64)

    def inside(self, s: State) -> None:
        """Take the rows behind attention."""
        shares = (s.attention[:, 0] * np.sqrt((s.v**2).sum(-1))).sum(0)[1:]
        cdf = np.cumsum(shares / (shares.sum() + 1e-6))
        rows = {1 + int(np.abs(point - cdf).argmin()) for point in self.points}
        s.take([0, *sorted(rows)])
        s.out = s.out[[0, *sorted(rows)]]
        s.suffix = 0


def _reducing(*rates: float, patches: int = 16) -> proof.Make:
    def make(stage: int, start: int) -> Reduce:
        rate = rates[0] ** stage if len(rates) == 1 else rates[stage - 1]
        return Sampled(int(rate * patches) + 1)

    return make


@pytest.mark.parametrize("rates", [(0.25,), (0.9, 0.3, 0.5)])
def test_alone(rates: tuple[float, ...]) -> None:
    """0.25 leaves nothing but CLS in the last stage."""
    proof.check("ats", _reducing(*rates), {"keep_rate": ",".join(map(str, rates))})


def test_a_list_may_rise_where_nothing_is_left() -> None:
    photos = images(2, 64)
    left, risen = (
        proof.encoder("ats", {"keep_rate": rates}, blocks=(2, 3, 4))
        for rates in ("0.05", "0.05,0.9,0.5")
    )
    assert torch.equal(risen(photos).embedding, left(photos).embedding)


@pytest.mark.parametrize(
    ("rate", "parts"),
    [
        (0.25, {}),
        (0.7, {}),
        (0.9, {"pool_cls": True, "clr": 2}),
        (0.9, {"at_last": False, "pool_clr": True}),
    ],
)
def test_in_clca(rate: float, parts: dict[str, Any]) -> None:
    """Masked rows count nowhere: not as keys, not in GAP, not in the next cdf."""
    proof.check("ats", _reducing(rate), {"keep_rate": str(rate)}, clca=parts)


def test_registers_and_layer_scale() -> None:
    """Registers are rows as any other."""
    backbone = "vit_small_patch14_reg4_dinov2"
    proof.check("ats", _reducing(0.7, patches=25), {"keep_rate": "0.7"}, backbone, clca={})


@pytest.mark.parametrize(
    ("count", "points"), [(1, 0), (2, 1), (99, 98), (139, 138), (197, 197), (385, 385)]
)
def test_sample_points_are_the_authors(count: int, points: int) -> None:
    """197 and 385 give one more: a step in floating point falls short of the end."""
    found = sample_points(count)
    assert found.dtype == torch.float32 and found.shape == (points,)
    assert all(abs(float(p) - (2 * n + 1) / (2 * count)) < 1e-6 for n, p in enumerate(found))


def _select(shares: list[float], count: int, counts: list[bool] | None = None) -> Any:
    """Sample rows whose value has such a length, all attended alike."""
    v = torch.tensor([9.0, *shares], dtype=torch.float64)[None, None, :, None]
    mask = None if counts is None else torch.tensor([[True, *counts]])
    rows, new = Samples(sample_points(count))(
        torch.zeros_like(v), torch.zeros_like(v), v, None, mask
    )
    return rows[0].tolist(), new[0].tolist()


def test_samples_by_hand() -> None:
    """Points 1/8, 3/8, 5/8 on the cdf 0.1, 0.2, 0.3, 1.0, and on others."""
    assert _select([1, 1, 1, 7], 4) == ([0, 2, 2], [True, True, False])
    assert _select([0, 0, 5, 0], 4) == ([0, 0, 2], [True, False, True])  # of 0, 0, 1, 1
    assert _select([0, 0, 0, 0], 4) == ([0, 0, 0], [True, False, False])  # no share: the first
    assert _select([1, 1], 2) == ([0], [True])


def test_masked_rows_have_no_share_and_no_place() -> None:
    """Where they would lie nearest, too."""
    every = _select([1, 1, 1, 7], 4)
    assert _select([1, 5, 1, 9, 1, 7], 4, [True, False, True, False, True, True]) == (
        [0, 4, 4],
        every[1],
    )
    assert _select([8, 1, 1, 1, 7], 4, [False, True, True, True, True])[0] == [1, 3, 3]


def test_samples_rise_where_rounding_would_not() -> None:
    """Two rows of next to no share: farther points cannot tell them apart, and take the first."""
    points = torch.tensor([2e-3, 3e-1, 6e-1])
    v = torch.tensor([1.0, 1e-3, 2.5e-10, 0.9])[None, None, :, None]
    rows, new = Samples(points)(torch.zeros_like(v), torch.zeros_like(v), v, None, None)
    assert rows[0].tolist() == sorted(rows[0].tolist())
    assert [bool(n) for n in new[0]] == [True, *(a != b for a, b in itertools.pairwise(rows[0]))]


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.float16])
def test_a_masked_row_weighs_nothing(kind: torch.dtype) -> None:
    """It is a copy of a row, so no product of it exceeds that row's, whatever a query asks."""
    x = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0)).to(kind) * 4
    x = x[:, [0, 1, 1, 2, 2, 2, 3]]
    mask = torch.tensor([[True, True, False, True, False, False, True]])
    bias = Tokens(x, mask=mask).bias()
    weights = softmax_products(x[:, None], x[:, None], bias)
    assert weights[..., ~mask[0]].abs().max() == 0
    assert (weights.sum(dim=-1) - 1).abs().max() < 4 * torch.finfo(kind).eps
