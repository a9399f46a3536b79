"""The search on made-up staircases: the schedule that is right by the table."""

from __future__ import annotations

import itertools

import pytest

from fgdeploy.models.reduce.stages import Stage
from fgdeploy.tuning import schedules
from fgdeploy.tuning.staircase import Stair, Staircase

DEPTH, PATCHES = 4, 16
# Attention is free, and MLP takes 1 ms up to 9 rows and 2 ms above.
STEP = Stair((5, 9, 17), (0.0, 0.0, 0.0), (1.0, 1.0, 2.0))
KNOWN = Staircase("x:fp32", 1, {1: STEP}, fixed_ms=1.0)


def test_an_estimate_counts_blocks_by_their_rows() -> None:
    assert schedules.estimate(STEP, (), DEPTH, PATCHES, 1) == 7  # the last block is CLS alone
    assert schedules.estimate(STEP, [Stage(1, 8)], DEPTH, PATCHES, 1) == 4
    assert schedules.estimate(STEP, [Stage(3, 8)], DEPTH, PATCHES, 1) == 6


def test_it_keeps_what_a_plateau_allows_and_prunes_as_late_as_the_limit_lets() -> None:
    best = schedules.promising(KNOWN, DEPTH, PATCHES, 1, limit_ms=6.0)[0]
    assert best.stages == (Stage(2, 8),)
    assert best.predicted_ms == 6.0
    assert schedules.promising(KNOWN, DEPTH, PATCHES, 1, limit_ms=7.0)[0].stages == (Stage(3, 8),)


def test_no_schedule_within_a_limit() -> None:
    assert schedules.promising(KNOWN, DEPTH, PATCHES, 1, limit_ms=4.9) == []
    assert schedules.fastest(KNOWN, DEPTH, PATCHES, 1).predicted_ms == 5.0


def test_steps_that_cost_more_than_they_save_are_left_out() -> None:
    dear = Staircase("x:fp32", 1, {1: STEP}, fixed_ms=1.0, step_ms=3.0)
    limit = 8.0  # the dense model's own time
    assert schedules.promising(dear, DEPTH, PATCHES, 1, limit)[0].stages == (Stage(1, 8),)
    dearer = Staircase("x:fp32", 1, {1: STEP}, fixed_ms=1.0, step_ms=3.1)
    assert schedules.promising(dearer, DEPTH, PATCHES, 1, limit) == []


def test_the_first_is_the_best_of_all_schedules() -> None:
    stair = Stair((3, 5, 9, 13, 17), (0.2, 0.3, 0.5, 0.8, 1.2), (0.3, 0.5, 0.9, 1.3, 1.7))
    known = Staircase("x:fp32", 1, {1: stair}, 0.4, 0.05)
    found = schedules.promising(known, 6, PATCHES, 1, limit_ms=11.0)
    every = []
    for count in (1, 2, 3):
        for blocks in itertools.combinations(range(1, 6), count):
            for keeps in itertools.combinations((12, 8, 4, 2), count):
                stages = tuple(map(Stage, blocks, keeps))
                took = 0.4 + 0.05 * count + schedules.estimate(stair, stages, 6, PATCHES, 1)
                if took <= 11.0:
                    every.append(schedules.prior(stages, 6, PATCHES))
    assert found[0].prior == min(every)
    assert all(one.predicted_ms <= 11.0 for one in found)


def test_dropping_late_costs_less_than_dropping_early() -> None:
    late, early = (schedules.prior([Stage(block, 8)], 12, 16) for block in (8, 4))
    assert 2 * late == pytest.approx(early)
    assert schedules.prior([], 12, 16) == 0
