from __future__ import annotations

import random

import pytest

from fgdeploy.camera.back_off import BackOff
from fgdeploy.core.errors import UsageError
from tests.checks import refused


def test_waits_double_up_to_the_longest() -> None:
    waits = [BackOff(jitter=0).seconds(n, random.Random(0)) for n in (0, 1, 2, 5, 6, 7, 10**9)]
    assert waits == [0.5, 1, 2, 16, 30, 30, 30]
    assert BackOff(1, 4, factor=1, jitter=0).seconds(10**9, random.Random(0)) == 1
    assert BackOff(3, 3, jitter=0).seconds(0, random.Random(0)) == 3


def test_jitter_takes_a_share_off() -> None:
    chance = random.Random(0)
    waits = [BackOff(1, 1, jitter=0.25).seconds(0, chance) for _ in range(200)]
    assert 0.75 <= min(waits) < 0.76 and 0.99 < max(waits) <= 1
    assert BackOff(1, 1).seconds(0, random.Random(5)) == BackOff(1, 1).seconds(0, random.Random(5))


@pytest.mark.parametrize("numbers", [(0, 1), (2, 1), (-1, 1), (1, float("inf")), (float("nan"), 1)])
def test_waits_are_real_times(numbers: tuple[float, float]) -> None:
    with refused(UsageError, "a first wait above 0 s"):
        BackOff(*numbers)


@pytest.mark.parametrize("rest", [{"factor": 0.5}, {"jitter": 1.5}, {"jitter": -1}])
def test_factor_and_jitter_have_bounds(rest: dict[str, float]) -> None:
    with refused(UsageError, "a factor from 1 and a jitter"):
        BackOff(**rest)
