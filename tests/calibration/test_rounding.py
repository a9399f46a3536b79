"""Compensated rounding against the slow algorithm it stands for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from fgdeploy.calibration.rounding import compensated, nearest, steps_of

Doubles = npt.NDArray[np.float64]


def _case(seed: int, inputs: int, outputs: int, count: int = 300) -> tuple[Doubles, Doubles]:
    """Return a weight (K, N) and rows (R, K) whose inputs depend on each other."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((inputs // 4, inputs)) * np.exp(rng.normal(0, 1, inputs))
    rows = rng.standard_normal((count, inputs // 4)) @ mixing
    rows += 0.1 * rng.standard_normal(rows.shape)
    return rng.standard_normal((inputs, outputs)), rows


def _literal(weight: Doubles, steps: Doubles, rows: Doubles) -> npt.NDArray[np.int8]:
    """Round one input after the other, each time with the inverse of what is left of the Gram."""
    gram = rows.T @ rows
    energy = np.diag(gram).copy()
    gram += np.eye(len(gram)) * (0.01 * energy.mean() + 1e-12)
    left, result = weight.copy(), np.zeros(weight.shape, np.int8)
    waiting = list(np.argsort(-energy))
    while waiting:
        one = waiting[0]
        inverse = np.linalg.inv(gram[np.ix_(waiting, waiting)])
        for column in range(weight.shape[1]):
            level = np.clip(np.rint(left[one, column] / steps[column]), -127, 127)
            result[one, column] = level
            error = (left[one, column] - level * steps[column]) / inverse[0, 0]
            left[waiting, column] -= error * inverse[:, 0]
        waiting.pop(0)
    return result


def _error(weight: Doubles, integers: npt.NDArray[np.int8], steps: Doubles, rows: Doubles) -> float:
    return float(((rows @ (integers * steps - weight)) ** 2).sum())


@pytest.mark.parametrize(("inputs", "outputs"), [(8, 3), (64, 5), (65, 4), (150, 2)])
def test_as_the_slow_algorithm_does(inputs: int, outputs: int) -> None:
    weight, rows = _case(inputs, inputs, outputs)
    steps = steps_of(weight)
    assert (compensated(weight, steps, rows) == _literal(weight, steps, rows)).all()


@pytest.mark.parametrize("seed", range(6))
def test_less_error_than_nearest_where_inputs_depend_on_each_other(seed: int) -> None:
    weight, rows = _case(seed, 96, 12)
    steps = steps_of(weight)
    one = _error(weight, compensated(weight, steps, rows), steps, rows)
    other = _error(weight, nearest(weight, steps), steps, rows)
    assert one < 0.7 * other


def test_nearest_where_they_do_not() -> None:
    weight, _ = _case(1, 80, 9)
    rows = np.diag(np.linspace(0.5, 3, 80))
    steps = steps_of(weight)
    assert (compensated(weight, steps, rows) == nearest(weight, steps)).all()


def test_inputs_that_are_always_zero() -> None:
    weight, rows = _case(2, 24, 6)
    rows[:, 5:9] = 0
    steps = steps_of(weight)
    integers = compensated(weight, steps, rows)
    assert (integers[5:9] == nearest(weight, steps)[5:9]).all()
    assert (compensated(weight, steps, np.zeros_like(rows)) == nearest(weight, steps)).all()


def test_integers_stay_in_range() -> None:
    weight, rows = _case(3, 40, 7)
    for integers in (
        nearest(weight, steps_of(weight) / 2),
        compensated(weight, steps_of(weight) / 2, rows),
    ):
        assert integers.dtype == np.int8
        assert integers.min() == -127
        assert integers.max() == 127


def test_one_step_per_output_and_none_is_zero() -> None:
    weight = np.array([[0.0, 1.0, -2.54], [0.0, -0.3, 1.0]])
    steps = steps_of(weight)
    assert steps.shape == (3,)
    assert (steps > 0).all()
    assert (np.float16(steps).astype(np.float64) == steps).all()
    assert steps[1:] == pytest.approx([1 / 127, 0.02], rel=2**-11)
    assert nearest(weight, steps)[:, 0].tolist() == [0, 0]
    assert nearest(weight, steps)[0].tolist() == [0, 127, -127]
