"""Work that takes its share of the time."""

from __future__ import annotations

import pytest

from fgdeploy.core.errors import UsageError
from fgdeploy.gallery import Throttle
from tests.checks import refused


@pytest.mark.parametrize(("share", "rest"), [(1.0, []), (0.5, [2.0]), (0.1, [18.0])])
def test_it_rests_in_proportion_to_its_work(share: float, rest: list[float]) -> None:
    now, slept = [5.0], list[float]()
    throttle = Throttle(share, lambda: now[0], slept.append)
    now[0] += 100.0
    throttle.begin()  # that was no work
    now[0] += 2.0
    throttle.rest()
    assert slept == pytest.approx(rest)


def test_a_clock_that_goes_back_is_no_work() -> None:
    now, slept = [5.0], list[float]()
    throttle = Throttle(0.5, lambda: now[0], slept.append)
    now[0] = 1.0
    throttle.rest()
    assert slept == []


@pytest.mark.parametrize("share", [0, -1, 1.5, float("nan")])
def test_what_is_no_share_is_refused(share: float) -> None:
    with refused(UsageError, "expected a share of the time above 0 and up to 1, got"):
        Throttle(share)
