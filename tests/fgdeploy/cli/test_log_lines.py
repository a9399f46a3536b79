"""Progress in a log: nothing for short work, then a line now and then."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fgdeploy.cli.log_lines import LogLines, Painted, duration


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_short_work_says_nothing() -> None:
    clock, said = Clock(), list[str]()
    lines = LogLines("hashing", said.append, clock)
    for done in range(1, 10):
        clock.now += 1
        lines.update(done, 9)
    assert said == []


def test_long_work_says_how_far_it_is() -> None:
    clock, said = Clock(), list[str]()
    lines = LogLines("hashing", said.append, clock)
    for done in range(1, 1201):
        clock.now += 0.125
        lines.update(done, 1200)
    lines.update(1200, 1200)  # whoever tells the end twice
    assert said == [
        "hashing: 80 of 1,200 (7%), 8/s, about 2 min 20 s left",
        "hashing: 320 of 1,200 (27%), 8/s, about 1 min 50 s left",
        "hashing: 560 of 1,200 (47%), 8/s, about 1 min 20 s left",
        "hashing: 800 of 1,200 (67%), 8/s, about 50 s left",
        "hashing: 1,040 of 1,200 (87%), 8/s, about 20 s left",
        "hashing: 1,200 of 1,200, took 2 min 30 s",
    ]


def test_work_that_has_not_begun_has_no_speed() -> None:
    clock, said = Clock(), list[str]()
    lines = LogLines("building", said.append, clock)
    clock.now += 11
    lines.update(0, 4)
    assert said == ["building: 0 of 4"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7530, "2 h 5 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_terminal_has_one_line_that_is_painted_over(
    capsys: pytest.CaptureFixture[str],
) -> None:
    times: Iterator[float] = iter([0.0, 2.0, 4.0])
    painted = Painted("hashing", lambda: next(times))
    painted.update(10, 20)
    painted.update(20, 20)
    first, second = "hashing 10/20  5/s  2 s left ", "hashing 20/20  5/s  0 s left "
    assert capsys.readouterr().err == f"\r{first}\r{second}\n"
