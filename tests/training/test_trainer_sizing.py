"""A training whose length the set decides: what is recorded, where it ends, and how it goes on."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest

from fgdeploy.models.methods import base
from fgdeploy.training import sizing
from fgdeploy.training.loop import REACHED, Tick
from fgdeploy.training.trainer import Reporter, train
from tests.training.conftest import Make
from tests.training.weights import same_weights


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small sets train for few steps."""
    monkeypatch.setattr(sizing, "STEPS", (18, 30))
    monkeypatch.setattr(sizing, "PASSES", (2, 3))
    monkeypatch.setattr(sizing, "LOG_ROWS", 3)


@pytest.mark.usefixtures("short")
def test_what_the_set_decided_is_recorded_and_a_resumed_run_takes_it_up(
    small: Make, tmp_path: Path
) -> None:
    said: list[str] = []
    whole = train(small(epochs=None), tmp_path / "whole", reporter=Reporter(notify=said.append))
    facts = json.loads((tmp_path / "whole" / "model.json").read_text())["training"]
    photos, told = facts["set"]["photos"], facts["set"]["told"]
    per_pass = -(-photos // 5)
    passes = facts["epochs"] * facts["passes"]
    assert facts["set"]["classes"] == 3 and 0 <= told <= 1
    assert facts["steps"] == passes * per_pass and 18 <= facts["steps"] <= 45
    assert facts["passes"] > 1 and len(whole.history) == facts["epochs"] <= 3
    assert facts["lr"] == base.FAST.lr and facts["least_area"] == base.FAST.least_area
    assert any(line.startswith("first look: ") for line in said)
    assert any(f"each {facts['passes']} passes over the photos" in line for line in said)
    assert all(0 <= row[REACHED] <= 1 for row in whole.history)

    def interrupt(tick: Tick) -> None:
        if tick.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(small(epochs=None), tmp_path / "run", reporter=Reporter(tick=interrupt))
    resumed = train(small(epochs=None), tmp_path / "run", resume=True)
    assert same_weights(whole.weights, resumed.weights)


def test_it_ends_where_no_bit_is_left_to_learn(
    small: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = train(small(epochs=4), tmp_path / "long")
    assert len(done.history) == 4
    monkeypatch.setattr(base, "FAST", dataclasses.replace(base.FAST, settled=0.01))
    done = train(small(epochs=4), tmp_path / "settled")
    assert len(done.history) == 2
    facts = json.loads((tmp_path / "settled" / "model.json").read_text())["training"]
    assert facts["epochs"] == 4 and facts["steps"] == done.history[-1]["step"]
    assert not (tmp_path / "settled" / "state.pt").exists()
