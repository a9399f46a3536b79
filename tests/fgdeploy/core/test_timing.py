"""The timing loop: warm-up, turns, how many calls."""

from __future__ import annotations

import pytest

from fgdeploy.core import timing
from fgdeploy.core.timing import time_calls


def test_calls_after_a_warm_up() -> None:
    calls: list[int] = []
    (times,) = time_calls(lambda: calls.append(1), seconds=0)
    assert (len(times), len(calls)) == (10, 13)
    assert all(time >= 0 for time in times)


def test_functions_take_turns() -> None:
    calls: list[str] = []
    first, second = time_calls(
        lambda: calls.append("a"), lambda: calls.append("b"), seconds=0, least=4, warm_up=1
    )
    assert "".join(calls) == "ab" * 5
    assert len(first) == len(second) == 4


def test_until_the_seconds_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def call() -> None:
        now[0] += 0.25

    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    (times,) = time_calls(call, seconds=2, least=1, warm_up=2)
    assert times == [250.0] * 8
