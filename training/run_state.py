"""The state of a training on disk: all that a run needs to go on as if it had never stopped.

There is no state of random generators in it: every draw comes from (seed, step) or (seed, epoch,
row), and the learning rate from the step, so the step number holds them all.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fgdeploy.core import atomic
from fgdeploy.core.errors import CheckpointError

STATE_FILE = "state.pt"
SCHEMA_VERSION = 1


@dataclass
class RunState:
    """Steps done, weights, optimiser, scaler, the epoch's running sums and the log so far.

    digest: of the settings and the photos; a run goes on only where both are the same.
    """

    digest: str
    step: int = 0
    weights: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    scaler: dict[str, Any] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)


def check_space(folder: Path, count: int) -> None:
    """Refuse before the first step what would fail at the end of the first epoch.

    count: numbers that are trained. Raises CheckpointError where the disk is too full.
    """
    need = 4 * count * 8  # the state with two moments, its successor, and the weights
    state = folder / STATE_FILE
    need -= state.stat().st_size if state.is_file() else 0
    place = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(place).free
    if free < need:
        raise CheckpointError(
            f"no space for the checkpoint: {folder} has {free / 1e6:.0f} MB free, the training "
            f"state needs up to {need / 1e6:.0f} MB; free some, or choose another -o"
        )


def save(folder: Path, state: RunState) -> None:
    """Write the state to `folder`, whole or not at all. Raises OSError (no space, read-only)."""
    target = folder / STATE_FILE
    entry = {"schema_version": SCHEMA_VERSION, **_fields(state)}
    with atomic.new_file(target) as stream:
        try:
            torch.save(entry, stream)
        except RuntimeError as error:  # torch wraps what the disk said
            cause = error.__cause__ or error.__context__
            if isinstance(cause, OSError):
                raise cause from None
            raise


def _fields(state: RunState) -> dict[str, Any]:
    """Return the fields by name without copying the tensors in them."""
    return {name: getattr(state, name) for name in RunState.__dataclass_fields__}


def load(folder: Path, digest: str) -> RunState:
    """Read the state in `folder`; nothing pickled in it is run.

    Raises CheckpointError where there is none, it is damaged, or it is of another run.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{folder} has no {STATE_FILE} to go on from; start without --resume, or check -o"
        )
    try:
        entry = torch.load(path, map_location="cpu", weights_only=True)
        if entry.pop("schema_version") != SCHEMA_VERSION:
            raise ValueError("another schema version")
        state = RunState(**entry)
        dicts = (state.weights, state.optimizer, state.scaler, state.sums)
        if type(state.step) is not int or not isinstance(state.history, list):
            raise TypeError("a field of another type")
        if not all(isinstance(one, dict) for one in (*dicts, *state.history)):
            raise TypeError("a field of another type")
    except Exception as error:  # torch raises many kinds for a damaged file
        raise _damaged(path, error) from None
    if state.digest != digest:
        raise CheckpointError(
            f"{path} is of a run with other settings or other photos; give the same ones to "
            "--resume, or start anew with another -o"
        )
    return state


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())[:80] or type(error).__name__
    return CheckpointError(
        f"{path} is no whole training state ({reason}); start anew with --overwrite"
    )
