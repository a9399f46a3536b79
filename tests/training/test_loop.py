"""The loop: steps that are never cut in two, states that a run goes on from, rates."""

from __future__ import annotations

import errno
import math
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fgdeploy.core.errors import TrainingError
from fgdeploy.models.methods.base import FAST
from fgdeploy.models.methods.eet import PAPER
from fgdeploy.training import loop
from fgdeploy.training import run_state as states
from fgdeploy.training.loop import Tick
from fgdeploy.training.trainer import Reporter, train
from tests.checks import refused
from tests.training.conftest import Make
from tests.training.weights import same_weights

_CHILD = """
import os, signal, sys
from pathlib import Path
from fgdeploy.training.train_settings import TrainSettings
from fgdeploy.training.trainer import Reporter, train
from fgdeploy.training import loop
data, folder, recipe, last, resume = sys.argv[1:]
loop.SAVE_SECONDS = 0  # a state after every step: the kill then lands within an epoch
settings = TrainSettings(Path(data), recipe=recipe, backbone="test_vit", weights="random",
    image_size=64, options={"stages": "2:8,4:4"}, bits=16, epochs=3, batch=5)
seen = []
def tick(tick):
    seen.append(tick)
    if len(seen) == int(last):
        os.kill(os.getpid(), signal.SIGKILL)
train(settings, Path(folder), resume == "resume", reporter=Reporter(tick=tick))
"""


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["fast", "paper"])
def test_kill_9_and_resume_gives_the_same_weights_to_the_bit(
    drawn: Path, small: Make, tmp_path: Path, recipe: str
) -> None:
    whole = train(small(recipe=recipe, epochs=3), tmp_path / "whole")
    chooser = np.random.default_rng()  # another place each time; the outcome must not depend on it
    steps = sorted(chooser.choice(np.arange(1, 9), size=2, replace=False).tolist())
    for number, last in enumerate((steps[0], steps[1] - steps[0])):
        words = [str(drawn), str(tmp_path / "run"), recipe, str(max(last, 2))]
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, *words, "resume" if number else "start"],
            capture_output=True,
            timeout=120,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == -signal.SIGKILL, (steps, done.stderr.decode())
    resumed = train(small(recipe=recipe, epochs=3), tmp_path / "run", resume=True)
    assert same_weights(whole.weights, resumed.weights), steps
    assert whole.scores == resumed.scores
    clock = {"seconds", "data_wait"}
    for one, two in zip(whole.history, resumed.history, strict=True):
        assert {k: v for k, v in one.items() if k not in clock} == {
            k: v for k, v in two.items() if k not in clock
        }


def test_ctrl_c_finishes_the_step_keeps_the_state_and_goes_on_to_the_same(
    small: Make, tmp_path: Path
) -> None:
    whole = train(small(), tmp_path / "whole")
    ticks: list[Tick] = []

    def interrupt(tick: Tick) -> None:
        ticks.append(tick)
        if len(ticks) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(small(), tmp_path / "run", reporter=Reporter(tick=interrupt))
    assert len(ticks) == 2
    assert (tmp_path / "run" / "state.pt").is_file()
    assert not (tmp_path / "run" / "model.safetensors").exists()
    resumed = train(small(), tmp_path / "run", resume=True)
    assert same_weights(whole.weights, resumed.weights)


def test_a_run_killed_before_its_first_state_starts_over(small: Make, tmp_path: Path) -> None:
    whole = train(small(), tmp_path / "whole")

    def stop(tick: Tick) -> None:
        raise RuntimeError("as if killed")

    with pytest.raises(RuntimeError):
        train(small(), tmp_path / "run", reporter=Reporter(tick=stop))
    assert not (tmp_path / "run" / "state.pt").exists()
    resumed = train(small(), tmp_path / "run", resume=True)
    assert same_weights(whole.weights, resumed.weights)


def test_sigterm_keeps_the_state_too(small: Make, tmp_path: Path) -> None:
    whole = train(small(), tmp_path / "whole")

    def stop(tick: Tick) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as caught:
        train(small(), tmp_path / "run", reporter=Reporter(tick=stop))
    assert caught.value.code == 143
    resumed = train(small(), tmp_path / "run", resume=True)
    assert same_weights(whole.weights, resumed.weights)


def test_ctrl_c_within_an_evaluation_is_not_lost(small: Make, tmp_path: Path) -> None:
    def epoch(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(small(), tmp_path / "run", reporter=Reporter(epoch=epoch))
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert train(small(), tmp_path / "run", resume=True).weights.is_file()


def test_a_loss_that_is_no_number_stops_the_training(small: Make, tmp_path: Path) -> None:
    with refused(TrainingError, r"step \d+: the loss is (nan|inf).*lower --lr"):
        train(small(recipe="paper", lr=1e20, warmup=0, epochs=4), tmp_path / "run")
    if (tmp_path / "run" / "state.pt").is_file():
        kept = states.torch.load(tmp_path / "run" / "state.pt", weights_only=True)
        assert all(torch.isfinite(value).all() for value in kept["weights"].values())


def test_a_disk_that_fills_up_keeps_the_last_state(
    small: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(small(), tmp_path / "whole")
    real, calls = torch.save, []

    def full(entry: Any, stream: Any) -> None:
        calls.append(entry["step"])
        if len(calls) == 3:  # epoch 1: after the steps, after the evaluation; then epoch 2
            stream.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(entry, stream)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        train(small(), tmp_path / "run")
    assert [entry.name for entry in (tmp_path / "run").glob(".*")] == []
    monkeypatch.undo()
    resumed = train(small(), tmp_path / "run", resume=True)
    assert same_weights(whole.weights, resumed.weights)


def test_a_thread_may_train(small: Make, tmp_path: Path) -> None:
    """Signals belong to the main thread; elsewhere a training runs without its handler."""
    done: list[Path] = []
    settings = small(epochs=1)
    work = threading.Thread(target=lambda: done.append(train(settings, tmp_path / "run").weights))
    work.start()
    work.join()
    assert done and done[0].is_file()


def test_the_schedule_warms_up_and_ends_at_zero(small: Make, tmp_path: Path) -> None:
    ticks: list[Tick] = []
    settings = small(recipe="paper", lr=0.01, warmup=2, epochs=2)
    train(settings, tmp_path / "run", reporter=Reporter(tick=ticks.append))
    expected = [0.005, 0.01]
    expected += [0.01 * 0.5 * (1 + math.cos(math.pi * step / 5)) for step in (1, 2, 3, 4)]
    assert [tick.lr for tick in ticks] == pytest.approx(expected)


def test_adamw_in_one_pass_is_adamw() -> None:
    asked = loop._fused(FAST, torch.device("cpu"))
    assert asked == {"fused": True}
    assert loop._fused(PAPER, torch.device("cpu")) == {}
    ends = []
    for further in (asked, {}):
        generator = torch.Generator().manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(7, 5, generator=generator))
        optimizer = torch.optim.AdamW([weight], lr=0.01, weight_decay=0.05, **further)
        for _ in range(5):
            weight.grad = torch.randn(7, 5, generator=generator)
            optimizer.step()
        ends.append(weight.detach())
    assert (ends[0] - ends[1]).abs().max() < 1e-6
