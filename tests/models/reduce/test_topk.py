"""Top-K against a plain float64 reference."""

from __future__ import annotations

import pytest

from fgdeploy.models import plan
from fgdeploy.models.heads.base import NoHead
from fgdeploy.models.network import Network
from tests.models.reduce import proof, reference


def _topk(rate: float) -> proof.Make:
    return lambda stage, start: reference.TopK(rate)


@pytest.mark.parametrize("clca", [None, {}, {"clr": 2}])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_it_equals_the_reference(rate: float, clca: dict[str, object] | None) -> None:
    proof.check("topk", _topk(rate), {"keep_rate": str(rate)}, clca=clca)


def test_registers_are_rows_as_all_others() -> None:
    proof.check("topk", _topk(0.5), {}, "vit_small_patch14_reg4_dinov2", clca={})


def test_each_stage_has_its_own_rate() -> None:
    rates = [0.3, 0.9, 0.5]
    given = {"keep_rate": ",".join(map(str, rates))}
    proof.check("topk", lambda stage, start: reference.TopK(rates[stage - 1]), given)


def test_rows_that_go_ask_nothing() -> None:
    network = Network(proof.encoder("topk", {"keep_rate": "0.5"}), NoHead()).double()
    rows = {False: (17, 17, 17, 9), True: (9, 17, 9, 9)}
    for few, expected in rows.items():
        without = frozenset() if few else frozenset({"few-queries"})
        run = plan.record(network.deployed(without), 64).runs[1]
        assert (run.query, run.keyval, run.proj, run.mlp) == expected
