"""Balancing is exact in float, and INT8 errs less after it."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest

from fgdeploy.calibration import balance
from fgdeploy.calibration.balance import Balance
from fgdeploy.calibration.observe import Observed
from fgdeploy.calibration.ranges import RANGES, quantise, step_of
from fgdeploy.calibration.rounding import nearest, steps_of

Doubles = npt.NDArray[np.float64]
INPUTS, OUTPUTS = 24, 10


def _case(seed: int = 0, count: int = 400, loud: float = 30.0) -> tuple[Observed, Doubles]:
    """Return rows of which some channels are far from zero and some are loud, and a weight."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, INPUTS)) + rng.normal(0, 3, INPUTS)
    rows[:, :2] *= loud
    rows = rows.astype(np.float32)
    weights = np.where(np.arange(count) % 10 == 0, 8, 1).astype(np.float32)
    seen = Observed(rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64))
    seen.parts, seen.part_weights = [rows[:7], rows[7:]], [weights[:7], weights[7:]]
    return seen, rng.standard_normal((INPUTS, OUTPUTS))


def _noise(seen: Observed, weight: Doubles, one: Balance) -> float:
    """Return the weighted error of the layer with both sides in INT8, its mean taken off."""
    total = np.zeros(OUTPUTS)
    loaded = weight * one.scale[:, None]
    steps = steps_of(loaded)
    integers = nearest(loaded, steps)
    wanted = seen.rows @ weight
    got = quantise((seen.rows - one.shift) / one.scale, one.step) @ (integers * steps)
    error = got + one.shift @ weight - wanted
    error -= error.mean(axis=0)
    for line, share in zip(error, seen.weights, strict=True):
        total += share * line**2
    return float(total.sum() / error.size)


@pytest.mark.parametrize("range_", RANGES)
@pytest.mark.parametrize("free", [True, False])
def test_nothing_changes_in_float(range_: str, free: bool) -> None:
    seen, weight = _case()
    one = balance.choose(seen, weight, range_, free)
    got = one.apply(seen.rows) @ (weight * one.scale[:, None]) + one.shift @ weight
    assert np.allclose(got, seen.rows @ weight, rtol=0, atol=1e-11 * np.abs(got).max())
    assert (one.scale > 0).all()
    assert one.step > 0
    assert float(np.float16(one.step)) == one.step


def test_files_and_graphs_hold_shift_and_scale_as_they_are() -> None:
    seen, weight = _case()
    one = balance.choose(seen, weight, "mse", True)
    for values in (one.shift, one.scale):
        assert (values.astype(np.float32).astype(np.float64) == values).all()


def test_the_shift_centres_each_channel() -> None:
    seen, weight = _case()
    one = balance.choose(seen, weight, "minmax", True)
    assert one.shift == pytest.approx((seen.low + seen.high) / 2, rel=1e-6)
    # In units of the scaled values, the loudest channel fills the range and none passes it.
    reach = np.abs(one.apply(seen.rows)).max()
    assert reach == pytest.approx(127 * one.step, rel=2**-10)
    assert np.exp(np.log(one.scale).mean()) == pytest.approx(1, rel=1e-6)


def test_the_scale_is_smoothquants() -> None:
    seen, weight = _case()
    one = balance.choose(seen, weight, "minmax", True)
    assert one.strength is not None
    reach = np.maximum(seen.high - one.shift, one.shift - seen.low)
    scale = reach**one.strength / np.abs(weight).max(axis=1) ** (1 - one.strength)
    assert one.scale == pytest.approx(scale / np.exp(np.log(scale).mean()), rel=1e-6)


def test_not_free_means_plain_ranges() -> None:
    seen, weight = _case()
    one = balance.choose(seen, weight, "minmax", False)
    assert one.strength is None
    assert not one.shift.any()
    assert (one.scale == 1).all()
    assert one.step == step_of(np.abs(seen.rows).max())


@pytest.mark.parametrize("seed", range(4))
def test_the_error_is_the_one_it_says_and_less_than_without(seed: int) -> None:
    seen, weight = _case(seed)
    free, bound = (balance.choose(seen, weight, "mse", free) for free in (True, False))
    plain = balance.choose(seen, weight, "minmax", False)
    noises = [_noise(seen, weight, one) for one in (free, bound, plain)]
    assert noises[0] < 0.2 * noises[1]
    assert noises[1] <= noises[2]  # the whole range is one of those tried
    power = float((((seen.rows @ weight) ** 2).mean(axis=1) * seen.weights).mean())
    for one, noise in zip((free, bound, plain), noises, strict=True):
        assert one.snr_db == pytest.approx(10 * np.log10(power / noise), abs=1e-6)


def test_a_long_sample_is_thinned_by_its_seed() -> None:
    seen, weight = _case(count=3000)
    one, same, other = (balance.choose(seen, weight, "mse", True, seed) for seed in (0, 0, 1))
    for field in dataclasses.fields(Balance):
        assert np.array_equal(getattr(one, field.name), getattr(same, field.name))
    assert one.snr_db != other.snr_db


def test_channels_that_never_move_and_weights_of_zero() -> None:
    seen, weight = _case()
    rows = np.concatenate(seen.parts)
    rows[:, 3], rows[:, 4] = 0.0, 5.0
    weight[6] = 0.0
    still = Observed(rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64))
    still.parts, still.part_weights = [rows], seen.part_weights
    still.part_weights = [np.concatenate(seen.part_weights)]
    one = balance.choose(still, weight, "mse", True)
    for values in (one.shift, one.scale, np.array(one.step), np.array(one.snr_db)):
        assert np.isfinite(values).all()
    assert one.snr_db > 30
