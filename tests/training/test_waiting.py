"""How much a loop waits, by a clock that stands still but for what is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fgdeploy.training.trainer import train
from fgdeploy.training.waiting import Waiting
from tests.training.conftest import Make


class _Clock:
    now = 5.0

    def __call__(self) -> float:
        return self.now


def _wait(making_s: float, working_s: float) -> Waiting:
    clock = _Clock()

    def made() -> Iterator[int]:
        for number in range(4):
            clock.now += making_s
            yield number

    waiting = Waiting(clock)
    assert waiting.share is None
    got = []
    for number in waiting.over(made()):
        got.append(number)
        clock.now += working_s
    assert got == [0, 1, 2, 3]
    return waiting


@pytest.mark.parametrize(("making", "working", "share"), [(1, 3, 0.25), (0, 2, 0.0), (2, 0, 1.0)])
def test_the_share_of_time_that_a_loop_waits(making: float, working: float, share: float) -> None:
    assert _wait(making, working).share == pytest.approx(share)


def test_a_long_wait_is_told_once_and_a_short_one_is_not() -> None:
    said: list[str] = []
    _wait(1, 5).advise(0, said.append)
    _wait(1, 1).advise(0, said.append)  # long, but of an epoch of 8 seconds
    assert said == []
    waiting = _wait(1, 3)
    waiting.advise(0, said.append)
    waiting.advise(0, said.append)
    assert said == [
        "25% of the epoch was spent waiting for photos; more --workers (0 now) prepare them "
        "meanwhile, where there are cores to spare"
    ]


def test_the_log_has_the_share_of_each_epoch(small: Make, tmp_path: Path) -> None:
    history = train(small(), tmp_path / "run").history
    assert all(0 < row["data_wait"] < 1 for row in history)
    assert "data_wait" in (tmp_path / "run" / "log.csv").read_text().splitlines()[0].split(",")
