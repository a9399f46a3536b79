"""Trainings of a method that looks twice: they learn, and go on to the same."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path

import pytest

from fgdeploy.models.weights import checkpoint
from fgdeploy.training.loop import Tick
from fgdeploy.training.trainer import Reporter, train
from tests.training.conftest import Make
from tests.training.weights import same_weights


@pytest.mark.parametrize("recipe", ["paper", pytest.param("fast", marks=pytest.mark.slow)])
def test_it_learns_and_goes_on_to_the_same_bits(small: Make, tmp_path: Path, recipe: str) -> None:
    settings = small(method="glsim", options={"top": "3"}, recipe=recipe, batch=6)
    ticks: list[Tick] = []
    whole = train(settings, tmp_path / "whole", reporter=Reporter(tick=ticks.append))
    assert all(math.isfinite(tick.loss) for tick in ticks)
    assert len({tick.loss for tick in ticks}) == len(ticks) == 4

    def interrupt(tick: Tick) -> None:
        if (tick.epoch, tick.step) == (1, 1):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "run", reporter=Reporter(tick=interrupt))
    resumed = train(settings, tmp_path / "run", resume=True)
    assert same_weights(whole.weights, resumed.weights)
    assert whole.scores == resumed.scores
    learned = checkpoint.read(whole.weights)
    assert {"cls_token_crops", "aggregator.0.attn.qkv.weight", "aggregator_norm.bias"} <= set(
        learned
    )
