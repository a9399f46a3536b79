"""DPC-KNN against plain float64 maths written row by row, and what its clusters are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from fgdeploy.core.errors import UsageError
from fgdeploy.models.backbone.vit import Geometry
from fgdeploy.models.reduce.dpcknn import Assign, Cluster, DPCKNNOptions, squared_distances
from fgdeploy.models.reduce.layers import Product
from tests.checks import refused
from tests.models.reduce import proof
from tests.models.reduce.reference import Reduce, State, linear


class Clustered(Reduce):
    """Rows between prefix and suffix in `count` clusters. stage: from 1."""

    def __init__(self, stage: int, count: int, neighbours: int = 5) -> None:
        self.count, self.neighbours = count, neighbours
        self.own = f"stages.{stage - 1}.cluster.score."

    def before(self, s: State) -> None:
        """Put the clusters in the place of the rows."""
        first, end = 1 + s.registers, len(s.x) - s.suffix
        x = s.x[first:end]
        count = min(self.count, len(x))
        d = np.array([[math.sqrt(((a - b) ** 2).sum() / len(a)) for b in x] for a in x])
        density = [math.exp(-(np.sort(row)[: self.neighbours] ** 2).mean()) for row in d]
        score = []
        for i in range(len(x)):
            denser = [d[i, j] for j in range(len(x)) if density[j] > density[i]]
            score.append(min(denser, default=d.max()) * density[i])
        centres = sorted(sorted(range(len(x)), key=lambda i: (-score[i], i))[:count])
        weight = np.ones(len(x))
        if self.own + "weight" in s.weights:
            weight = np.exp(linear(x, s.weights, self.own.removesuffix("."))[:, 0])
        merged, total = np.zeros((count, x.shape[1])), np.full(count, 1e-6)
        for i in range(len(x)):
            near = [d[i, c] for c in centres]
            to = centres.index(i) if i in centres else int(np.argmin(near))
            merged[to] += weight[i] * x[i]
            total[to] += weight[i]
        rest = [*range(first), *range(end, len(s.x))]
        kept = s.x[rest]
        merged = merged / total[:, None]
        s.take([*range(first), *[0] * count, *range(end, len(s.x))])
        s.x = np.concatenate([kept[:first], merged, kept[first:]])


def _reducing(*rates: float, neighbours: int = 5, patches: int = 16) -> proof.Make:
    def make(stage: int, start: int) -> Reduce:
        rate = rates[0] ** stage if len(rates) == 1 else rates[stage - 1]
        least = 1 if stage == len(proof.BLOCKS) else 5
        return Clustered(stage, max(int(patches * rate), least), neighbours)

    return make


@pytest.mark.parametrize("rates", [(0.2,), (0.9, 0.3, 0.5)])
def test_alone(rates: tuple[float, ...]) -> None:
    """0.2 reaches the least of 5 and of 1; the list asks for more in the end than arrive."""
    proof.check("dpcknn", _reducing(*rates), {"keep_rate": ",".join(map(str, rates))})


def test_its_options() -> None:
    given = {"keep_rate": "0.7", "neighbours": "20", "equal_weight": "true"}
    proof.check("dpcknn", _reducing(0.7, neighbours=20), given)


@pytest.mark.parametrize("parts", [{}, {"clr": 2, "pool_cls": True, "cla": False, "cache": False}])
def test_in_clca(parts: dict[str, Any]) -> None:
    """CLR and what comes back from the cache stay behind the clusters."""
    proof.check("dpcknn", _reducing(0.5), {"keep_rate": "0.5"}, clca=parts)


def test_registers() -> None:
    """They stay as CLS does."""
    backbone = "vit_small_patch14_reg4_dinov2"
    proof.check("dpcknn", _reducing(0.5, patches=25), {"keep_rate": "0.5"}, backbone, clca={})


def _assigned(rows: list[list[float]], count: int, neighbours: int = 2) -> list[list[int]]:
    found = Assign(count, neighbours)(torch.tensor([rows], dtype=torch.float64))[0]
    assert bool((found.sum(dim=1) == 1).all())
    return [found[:, c].nonzero()[:, 0].tolist() for c in range(found.shape[1])]


def test_clusters_by_hand() -> None:
    """Three groups on a line; then more clusters than rows, and one."""
    rows = [[0.0], [0.3], [0.5], [5.0], [5.1], [5.25], [9.0], [9.4], [9.9]]
    assert _assigned(rows, 3, 3) == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert _assigned(rows, 12) == [[n] for n in range(9)]
    assert _assigned(rows, 1) == [[*range(9)]]
    assert _assigned([[2.0]], 5, 64) == [[0]]


def test_rows_that_tie() -> None:
    """Equal rows: the first are centres, each its own; all others go to the first."""
    assert _assigned([[1.0]] * 6, 3, 5) == [[0, 3, 4, 5], [1], [2]]


@pytest.mark.parametrize("scale", [1e-4, 1.0, 40.0])
def test_float32_tells_densities_apart(scale: float) -> None:
    """Where exp(-s) is 1 or 0 in float32, clusters are those of float64."""
    x = torch.randn(1, 60, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(Assign(20, 5)(scale * x), Assign(20, 5)((scale * x).float()).double())


def test_distances_do_not_hang_on_what_all_rows_share() -> None:
    x = torch.randn(1, 50, 64, generator=torch.Generator().manual_seed(0)) + 30.0
    exact = ((x[:, :, None].double() - x[:, None].double()) ** 2).mean(dim=3)
    found = squared_distances(x, Product())
    assert bool((found.diagonal(dim1=1, dim2=2) == 0).all())
    assert (found - exact).abs().max() < 1e-5 * exact.max()


def test_neighbours_are_bounded() -> None:
    with refused(UsageError, "--set neighbours=0: expected a number from 1 to 64"):
        DPCKNNOptions(neighbours=0).resolved(Geometry(64, 12, 16, (4, 4)))


def test_weights_that_float32_cannot_hold() -> None:
    """A row of the greatest power decides its cluster; others are not lost beside it."""
    cluster = Cluster(2, Assign(2, 3), equal_weight=False)
    assert cluster.score is not None
    with torch.no_grad():
        cluster.score.weight.copy_(torch.tensor([[400.0, 0.0]]))
        found = cluster(torch.tensor([[[0.0, 0], [0.1, 0], [0.25, 0], [2.0, 0], [2.2, 0]]]))
    assert torch.allclose(found[0, :, 0], torch.tensor([0.25, 2.2]))
