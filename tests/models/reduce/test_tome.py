"""ToMe against a plain float64 reference."""

from __future__ import annotations

import pytest
import torch

from fgdeploy.models.reduce.tome import REDUCTION, Match
from tests.models.reduce import proof, reference

PATCHES = 16


def _tome(*rates: float) -> proof.Make:
    def target(stage: int) -> int:
        if stage == 0:
            return PATCHES
        one = rates[0] ** stage if len(rates) == 1 else rates[stage - 1]
        return int(PATCHES * one)

    return lambda stage, start: reference.ToMe(target(stage - 1) - target(stage))


@pytest.mark.parametrize("clca", [None, {}, {"clr": 2}])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.7, 0.9])
def test_it_equals_the_reference(rate: float, clca: dict[str, object] | None) -> None:
    proof.check("tome", _tome(rate), {"keep_rate": str(rate)}, clca=clca)


def test_registers_are_rows_as_all_others() -> None:
    # 25 patches at 70 pixels
    proof.check(
        "tome",
        lambda s, start: reference.ToMe([13, 6, 3][s - 1]),
        {},
        "vit_small_patch14_reg4_dinov2",
        clca={},
    )


@pytest.mark.parametrize("rates", [(0.5, 0.5, 0.3), (0.4, 0.6, 0.1)])
def test_a_stage_that_merges_nothing_leaves_the_rows_in_their_order(
    rates: tuple[float, ...],
) -> None:
    proof.check("tome", _tome(*rates), {"keep_rate": ",".join(map(str, rates))})


def test_equal_keys_choose_the_first_partner_and_the_first_rows() -> None:
    pairs = Match()(torch.ones(1, 2, 9, 4), 2)
    assert pairs.partner.tolist() == [[0, 0, 0, 0]]
    assert pairs.merged.rows.tolist() == [[0, 1]]


def test_sizes_add_up_to_all_rows() -> None:
    made = proof.encoder("tome", {"keep_rate": "0.5"})
    tokens = made.embed(torch.randn(2, 3, 64, 64, dtype=torch.float64))
    for block, step in zip(made.vit.blocks[:5], list(made.walk.steps.values())[:5], strict=True):
        tokens = step(block, tokens)
    assert tokens.count < 17
    assert torch.equal(tokens.size.sum(1), torch.full((2,), 17.0, dtype=torch.float64))
    assert torch.equal(tokens.size[:, 0], torch.ones(2, dtype=torch.float64))


def test_it_says_that_low_rates_do_not_pay() -> None:
    assert REDUCTION.floor is not None and "0.25 and 0.1 cost more" in REDUCTION.floor
