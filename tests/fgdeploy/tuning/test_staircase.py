"""Staircase arithmetic on made-up tables."""

from __future__ import annotations

import pytest

from fgdeploy.bundle import BlockRows
from fgdeploy.core.errors import UsageError
from fgdeploy.tuning.staircase import Stair, Staircase, rising, row_counts
from tests.checks import refused

STAIR = Stair((8, 16, 32, 48), (1.0, 1.0, 2.0, 2.0), (2.0, 2.0, 2.0, 4.0))


def test_times_rise_by_the_nearest_means() -> None:
    assert rising([1, 3, 2, 4]) == [1, 2.5, 2.5, 4]
    assert rising([3, 2, 1]) == [2, 2, 2]
    assert Stair.smoothed((8, 16), (2, 1), (1, 5)) == Stair((8, 16), (1.5, 1.5), (1, 5))


def test_edges_are_the_right_ends_of_plateaus() -> None:
    assert STAIR.edges() == (16, 32, 48)
    assert Stair((8, 16, 32), (1.0, 1.01, 2.0), (0.0, 0.0, 0.0)).edges() == (16, 32)


def test_between_and_beyond_the_measured_rows() -> None:
    assert STAIR.attend(24) == 1.5
    assert STAIR.attend(4) == 1.0
    square = Stair((10, 20, 40), (1.0, 4.0, 16.0), (1.0, 2.0, 4.0))
    assert square.attend(80) == pytest.approx(64)
    assert square.feed(80) == pytest.approx(8)


def test_a_network_is_its_blocks_a_fixed_part_and_its_stages() -> None:
    pruning = BlockRows(1, tokens=48, query=48, keyval=48, proj=16, mlp=16)
    last = BlockRows(2, tokens=16, query=1, keyval=16, proj=1, mlp=1)
    known = Staircase("x:fp32", 1, {1: STAIR}, fixed_ms=0.5, step_ms=0.25)
    of_last = 1.0 * (1 + 32) / 48 + 2.0
    assert known.blocks_ms([pruning, last]) == pytest.approx(2 + 2 + of_last)
    assert known.predict([pruning, last], 1) == pytest.approx(4 + of_last + 0.75)


def test_what_dense_takes_beside_its_blocks_is_fixed() -> None:
    dense = [BlockRows(number, *[48] * 5) for number in (1, 2)]
    known = Staircase("x:fp32", 1, {1: STAIR})
    assert known.anchored(dense, 13.0).fixed_ms == pytest.approx(1.0)
    scaled = known.anchored(dense, 6.0)  # the blocks alone were timed at 12
    assert scaled.fixed_ms == 0
    assert scaled.predict(dense, 0) == pytest.approx(6.0)


def test_what_a_pruned_call_takes_beside_is_its_stages() -> None:
    runs = [BlockRows(1, *[48] * 5)]
    known = Staircase("x:fp32", 1, {1: STAIR}, fixed_ms=1.0)
    assert known.with_step(runs, 2, 8.0).step_ms == pytest.approx(0.5)
    assert known.with_step(runs, 2, 5.0).step_ms == 0
    assert known.with_step(runs, 0, 9.0) is known


def test_which_rows_are_measured() -> None:
    assert row_counts(17) == (8, 16, 17)
    assert row_counts(197)[:3] == (8, 16, 32)
    assert row_counts(197)[-2:] == (192, 197)
    assert row_counts(785)[1:3] == (64, 128)
    with refused(UsageError, "the model has 8 token rows, too few to prune"):
        row_counts(8)
