"""Ranges against slow, literal versions."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from fgdeploy.calibration.calibration_settings import CalibrationSettings
from fgdeploy.calibration.ranges import RANGES, entropy, minmax, mse, percentile, quantise, step_of
from fgdeploy.core.errors import UsageError
from tests.checks import refused

Doubles = npt.NDArray[np.float64]


def _values(kind: str) -> Doubles:
    rng = np.random.default_rng(3)
    made = {
        "normal": rng.standard_normal(20_000),
        "long tail": rng.laplace(size=20_000) ** 3,
        "one outlier": np.append(rng.standard_normal(5_000), 80.0),
        "uniform": rng.uniform(0, 1, 5_000),
        "mostly zero": np.append(np.zeros(9_000), rng.uniform(0, 3, 50)),
        "one value": np.full(10, 2.5),
    }
    return np.abs(made[kind])


KINDS = ["normal", "long tail", "one outlier", "uniform", "mostly zero", "one value"]


def _literal_entropy(values: Doubles, top: float) -> float:
    """Return the limit, bin by bin, as the talk has it."""
    counts = [0] * 2048
    for value in values:
        counts[min(int(value / top * 2048), 2047)] += 1
    best, best_limit = math.inf, top
    for end in range(128, 2049, 8):
        p = [float(count) for count in counts[:end]]
        p[-1] += sum(counts[end:])
        mass, used = [0.0] * 128, [0] * 128
        for place in range(end):
            level = place * 128 // end
            mass[level] += counts[place]
            used[level] += counts[place] > 0
        q = [
            mass[place * 128 // end] / used[place * 128 // end] if counts[place] else 0.0
            for place in range(end)
        ]
        whole, kept, divergence = sum(p), max(sum(q), 1.0), 0.0
        for one, other in zip(p, q, strict=True):
            if one:
                divergence += one / whole * math.log(one / whole / max(other / kept, 1e-9))
        if divergence < best - 1e-12:
            best, best_limit = divergence, end * top / 2048
    return best_limit


@pytest.mark.parametrize("kind", KINDS)
def test_entropy_as_written_down(kind: str) -> None:
    values = _values(kind)
    assert entropy(values, values.max()) == [
        pytest.approx(_literal_entropy(values, values.max()), rel=1e-12)
    ]


def test_entropy_cuts_an_outlier_and_keeps_what_is_even() -> None:
    outlier, even = _values("one outlier"), _values("uniform")
    assert entropy(outlier, 80.0)[0] < 10
    assert entropy(even, even.max())[0] > 0.9 * even.max()


@pytest.mark.parametrize("kind", KINDS)
def test_percentile_by_counting(kind: str) -> None:
    values = np.sort(_values(kind))
    place = 0.9999 * (len(values) - 1)
    low, high = values[math.floor(place)], values[math.ceil(place)]
    expected = low + (high - low) * (place - math.floor(place))
    assert percentile(values, values.max()) == [pytest.approx(expected, rel=1e-9)]


def test_minmax_takes_the_top_and_mse_offers_parts_of_it() -> None:
    values = _values("normal")
    assert minmax(values, 7.0) == [7.0]
    assert mse(values, 8.0) == [8.0, 7.2, 6.4, 5.6, 4.8, 4.0]


def test_the_ranges_that_can_be_asked_for() -> None:
    assert set(RANGES) == {"mse", "minmax", "percentile", "entropy"}
    for name, limits_of in RANGES.items():
        assert CalibrationSettings(range=name).range == name
        values = _values("long tail")
        limits = limits_of(values, float(values.max()))
        assert limits and all(0 < limit <= values.max() for limit in limits)
    with refused(UsageError, r"no range 'best'; choose mse, minmax, percentile"):
        CalibrationSettings(range="best")


@pytest.mark.parametrize("limit", [0.0, 1e-12, 1e-3, 1.0, 6.37, 127.0, 8e6, 1e30])
def test_steps_are_positive_and_fp16_holds_them(limit: float) -> None:
    step = step_of(limit)
    assert step > 0
    assert math.isfinite(step)
    assert float(np.float16(step)) == step
    if 127 * 6.2e-5 < limit < 127 * 65504:
        assert step == pytest.approx(limit / 127, rel=2**-11)


def test_quantise_rounds_to_even_and_clips() -> None:
    step = 0.25
    steps = np.array([-1e9, -129, -128.4, -1.5, -0.5, 0.5, 1.5, 2.5, 126.9, 127.5, 200])
    expected = [-128, -128, -128, -2, 0, 0, 2, 2, 127, 127, 127]
    got = quantise(steps * step, step)
    assert got.tolist() == [value * step for value in expected]
    assert (quantise(got, step) == got).all()


def test_quantise_with_a_step_for_each_channel() -> None:
    values = np.array([[1.0, 1.0], [300.0, 300.0]])
    assert quantise(values, np.array([1.0, 2.0])).tolist() == [[1.0, 0.0], [127.0, 254.0]]
