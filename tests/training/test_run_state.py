"""The state of a training on disk."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from fgdeploy.core.errors import CheckpointError
from fgdeploy.training import run_state as states
from fgdeploy.training.loop import Tick
from fgdeploy.training.trainer import Reporter, train
from tests.checks import refused
from tests.training.conftest import Make


def test_a_damaged_state_is_refused(small: Make, tmp_path: Path) -> None:
    def stop(tick: Tick) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(small(), tmp_path / "run", reporter=Reporter(tick=stop))
    path = tmp_path / "run" / "state.pt"
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no state", b"junk"):
        path.write_bytes(damaged)
        with refused(CheckpointError, "no whole training state"):
            train(small(), tmp_path / "run", resume=True)


def _state() -> states.RunState:
    return states.RunState(
        "ab" * 32,
        step=3,
        weights={"a": torch.arange(3.0)},
        optimizer={"state": {0: {"exp_avg": torch.ones(3)}}},
        sums={"loss": 1.5},
        history=[{"epoch": 1, "loss": 2.0}],
    )


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    states.save(tmp_path, _state())
    found = states.load(tmp_path, "ab" * 32)
    assert torch.equal(found.weights["a"], torch.arange(3.0))
    assert (found.step, found.sums, found.history) == (3, {"loss": 1.5}, _state().history)
    assert torch.equal(found.optimizer["state"][0]["exp_avg"], torch.ones(3))
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.pt"]


@pytest.mark.parametrize("name", ["step", "weights", "optimizer", "scaler", "sums", "history"])
@pytest.mark.parametrize("value", [None, "x", [3]])
def test_a_state_with_a_field_of_another_kind(tmp_path: Path, name: str, value: Any) -> None:
    state = _state()
    setattr(state, name, value)
    states.save(tmp_path, state)
    with refused(CheckpointError, "is no whole training state"):
        states.load(tmp_path, "ab" * 32)


def test_a_state_of_another_run_or_none(tmp_path: Path) -> None:
    with refused(CheckpointError, "has no state.pt to go on from"):
        states.load(tmp_path, "ab" * 32)
    states.save(tmp_path, _state())
    with refused(CheckpointError, "is of a run with other settings or other photos"):
        states.load(tmp_path, "cd" * 32)


@pytest.mark.parametrize("changes", [{"schema_version": 2}, {"step": 1.5}, {"history": {}}])
def test_a_state_with_another_form(tmp_path: Path, changes: dict[str, Any]) -> None:
    states.save(tmp_path, _state())
    entry = torch.load(tmp_path / "state.pt", weights_only=True)
    torch.save({**entry, **changes}, tmp_path / "state.pt")
    with refused(CheckpointError, "is no whole training state"):
        states.load(tmp_path, "ab" * 32)
