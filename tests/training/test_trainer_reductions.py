"""Trainings of every token reduction, alone and under CLCA: they learn, and go on to the same."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from fgdeploy.models.reduce.reductions import REDUCTIONS
from fgdeploy.training.loop import Tick
from fgdeploy.training.trainer import Reporter, train
from tests.training.conftest import Make
from tests.training.weights import same_weights

# In every run: the plain one under CLCA, one that masks in training, one with heads of its own.
_OFTEN = {("clca", "evit"), ("dynamicvit", None), ("cropr", None)}


def _cases() -> list[Any]:
    pairs = [(name, None) for name in REDUCTIONS] + [("clca", name) for name in REDUCTIONS]
    return [
        pytest.param(
            *pair,
            id="-".join(filter(None, pair)),
            marks=() if pair in _OFTEN else pytest.mark.slow,
        )
        for pair in pairs
    ]


@pytest.mark.parametrize(("method", "reduction"), _cases())
def test_a_reduction_learns_and_goes_on_to_the_same_bits(
    small: Make, tmp_path: Path, method: str, reduction: str | None
) -> None:
    options = {"keep_rate": "0.6", **({"reduction": reduction} if reduction else {})}
    # 12 training photos: batches of 11 would leave one alone
    settings = small(method=method, options=options, batch=11)
    ticks: list[Tick] = []
    whole = train(settings, tmp_path / "whole", reporter=Reporter(tick=ticks.append))
    assert [tick.images for tick in ticks] == ([6, 6] if method == "clca" else [11, 1]) * 2
    assert all(math.isfinite(tick.loss) for tick in ticks)
    assert len({tick.loss for tick in ticks}) == 4

    def interrupt(tick: Tick) -> None:
        if (tick.epoch, tick.step) == (1, 1):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "run", reporter=Reporter(tick=interrupt))
    resumed = train(settings, tmp_path / "run", resume=True)
    assert same_weights(whole.weights, resumed.weights)
    assert whole.scores == resumed.scores
