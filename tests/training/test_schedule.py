"""Rates that change by the epoch, and recipes fitted to what a user asks for."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fgdeploy.core.errors import UsageError
from fgdeploy.models.methods import registry
from fgdeploy.models.methods.base import FAST, ByEpoch, Recipe
from fgdeploy.models.methods.eet import PAPER as EET
from fgdeploy.models.methods.reduced import PAPER
from fgdeploy.models.reduce.reductions import REDUCTIONS
from fgdeploy.training import schedule
from fgdeploy.training.loop import Tick
from fgdeploy.training.train_settings import TrainSettings
from fgdeploy.training.trainer import Reporter, train
from tests.checks import refused
from tests.training.conftest import Make

LABELS = np.arange(100) % 4


def _rates(lr: float = 1e-4) -> list[float]:
    """Return CLCA's: two epochs of warm-up from 1e-6, cosine to 1e-5 at epoch 45, there till 50."""
    cosine = [
        1e-5 + 0.5 * (lr - 1e-5) * (1 + math.cos(math.pi * epoch / 45)) for epoch in range(2, 45)
    ]
    return [1e-6, 1e-6 + (lr - 1e-6) / 2, *cosine, *[1e-5] * 5]


def test_every_reduction_has_clca_s_recipe() -> None:
    for name in ("clca", *REDUCTIONS):
        recipe = registry.get(name).recipe("paper")
        assert recipe is PAPER
    numbers = (PAPER.optimizer, PAPER.lr, PAPER.weight_decay, PAPER.batch, PAPER.epochs)
    assert numbers == ("adamw", 1e-4, 0.05, 32, 50)
    assert PAPER.drop_last and PAPER.clip_norm is None


def test_rates_by_epoch_are_the_authors() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([{"params": [weight], "lr_scale": 1.0}], lr=PAPER.lr)
    made = schedule.make(optimizer, PAPER, steps=7)
    found = []
    for epoch in range(PAPER.epochs):
        made.step(epoch)
        found.append(optimizer.param_groups[0]["lr"])
        for step in range(7):
            made.step_update(epoch * 7 + step + 1)
            assert optimizer.param_groups[0]["lr"] == found[-1]
    assert found == pytest.approx(_rates(), rel=1e-9)


@pytest.mark.parametrize("recipe", [FAST, EET], ids=["fast", "paper"])
def test_rates_by_step_do_not_heed_epochs(recipe: Recipe) -> None:
    chosen = dataclasses.replace(recipe, warmup=3, epochs=2)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([{"params": [weight]}], lr=chosen.lr)
    made = schedule.make(optimizer, chosen, steps=7)
    made.step_update(2)
    before = optimizer.param_groups[0]["lr"]
    made.step(1)
    assert optimizer.param_groups[0]["lr"] == before == pytest.approx(chosen.lr * 2 / 3)


@pytest.mark.parametrize(
    ("epochs", "warmup", "cooldown"), [(50, 2, 5), (100, 4, 10), (10, 0, 1), (2, 0, 0)]
)
def test_other_epochs_scale_warm_up_and_cooldown(epochs: int, warmup: int, cooldown: int) -> None:
    asked = TrainSettings(Path(), method="clca", recipe="paper", epochs=epochs)
    found = schedule.fitted(PAPER, asked, LABELS, lambda text: None)
    assert found.by_epoch == ByEpoch(warmup, 0.01, 0.1, cooldown)
    assert (found.epochs, found.lr, found.warmup) == (epochs, 1e-4, 0)


def test_a_warm_up_in_steps_is_refused_where_it_goes_by_epochs() -> None:
    asked = TrainSettings(Path(), method="tome", recipe="paper", warmup=3)
    with refused(UsageError, "--warmup 3: it counts steps, and recipe paper of tome warms up by"):
        schedule.fitted(PAPER, asked, LABELS, lambda text: None)


def test_a_training_follows_the_rates_and_drops_what_fills_no_batch(
    small: Make, tmp_path: Path
) -> None:
    ticks: list[Tick] = []
    options = {"reduction": "evit", "keep_rate": "0.6"}
    settings = small(method="clca", recipe="paper", options=options, epochs=4, batch=5)
    done = train(settings, tmp_path / "run", reporter=Reporter(tick=ticks.append))
    assert [tick.images for tick in ticks] == [5] * 8  # of 12 photos 2 wait
    wanted = [1e-5 + 0.5 * 9e-5 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)]
    assert [tick.lr for tick in ticks] == pytest.approx([rate for rate in wanted for _ in "ab"])
    assert {"class", "code"} <= set(done.history[0])
    assert list(done.scores["student"]) == ["asym_targets", "asym_sign", "symmetric"]
