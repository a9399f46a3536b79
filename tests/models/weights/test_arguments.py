"""Arguments beside the tensors: plain values are read, nothing is run."""

from __future__ import annotations

import argparse
import enum
import pathlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fgdeploy.core.errors import CheckpointError
from fgdeploy.models.weights import arguments, checkpoint
from tests.checks import refused

PLAIN = {
    "model": "evit_deit_tiny_patch16_224",
    "lr": 1e-4,
    "epochs": 45,
    "clc": True,
    "resize_size": None,
    "keep_rate": [0.5],
    "reduction_loc": [3, 6, 9],
    "nested": {"a": [1, {"b": None}]},
}


class _Colour(enum.Enum):
    RED = 1


def _read(tmp_path: Path, args: Any) -> dict[str, Any]:
    torch.save({"model": {"a": torch.zeros(2)}, "args": args}, tmp_path / "c.pth")
    return arguments.of(checkpoint.load(tmp_path / "c.pth"))


@pytest.mark.parametrize("kind", [argparse.Namespace, dict])
def test_plain_values_are_as_they_were(tmp_path: Path, kind: Any) -> None:
    assert _read(tmp_path, kind(**PLAIN)) == PLAIN


def test_they_may_lie_under_config(tmp_path: Path) -> None:
    held = {"config": argparse.Namespace(dynamic_top=8), "model": {"a": torch.zeros(2)}}
    torch.save(held, tmp_path / "c.pth")
    assert arguments.of(checkpoint.load(tmp_path / "c.pth")) == {"dynamic_top": 8}
    assert arguments.of({"args": 7, "config": {"dynamic_top": 4}}) == {"dynamic_top": 4}


def test_tuples_are_lists() -> None:
    assert arguments.of({"args": {"keep_rate": (0.7, (1, 2))}}) == {"keep_rate": [0.7, [1, 2]]}


def test_paths_and_numbers_of_numpy_are_read_without_their_types(tmp_path: Path) -> None:
    given = {
        "output_dir": Path("results/run"),
        "data": pathlib.PurePosixPath("/data/birds"),
        "lr": np.float64(0.25),
        "seed": np.int64(7),
        "rate": np.float32(0.5),
        "flag": np.bool_(True),
    }
    found = _read(tmp_path, argparse.Namespace(**given))
    assert found == {
        "output_dir": "results/run",
        "data": "/data/birds",
        "lr": 0.25,
        "seed": 7,
        "rate": 0.5,
        "flag": True,
    }
    kinds = {key: type(value) for key, value in found.items()}
    assert kinds == {
        "output_dir": str,
        "data": str,
        "lr": float,
        "seed": int,
        "rate": float,
        "flag": bool,
    }


def test_values_of_torch_are_left_out(tmp_path: Path) -> None:
    given = {"device": torch.device("cpu"), "weights": torch.ones(2), "seed": 1}
    assert _read(tmp_path, argparse.Namespace(**given)) == {"seed": 1}


@pytest.mark.parametrize("content", [None, [], {}, {"args": 3}, {"args": [1]}, {"args": None}])
def test_files_without_arguments_have_none(content: Any) -> None:
    assert arguments.of(content) == {}


def test_a_list_that_holds_itself_is_left_out() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert arguments.of({"args": {"a": endless, "b": 1}}) == {"b": 1}


def test_other_objects_are_refused_by_name(tmp_path: Path) -> None:
    with refused(CheckpointError, r"Python objects \([\w.]*_Colour\), which fgdeploy never runs"):
        _read(tmp_path, argparse.Namespace(colour=_Colour.RED))


class _Trap:
    """Calls something when it is unpickled."""

    def __init__(self, call: Any, *args: Any) -> None:
        self.call = (call, args)

    def __reduce__(self) -> Any:
        return self.call


def _traps(ran: Path) -> dict[str, Any]:
    code = f"open({str(ran)!r}, 'w').close()"
    return {
        "exec": _Trap(exec, code),
        "touch": _Trap(Path.touch, ran),
        "in a list": [_Trap(eval, code)],
        "in a record": argparse.Namespace(inner=_Trap(eval, code)),
        "in a path": _Trap(Path, _Trap(str, _Trap(eval, code))),
    }


@pytest.mark.parametrize("way", ["exec", "touch", "in a list", "in a record", "in a path"])
def test_a_hostile_file_runs_nothing(tmp_path: Path, way: str) -> None:
    ran, path = tmp_path / "ran", tmp_path / "c.pth"
    torch.save({"args": argparse.Namespace(model="evit", bad=_traps(ran)[way])}, path)
    with refused(CheckpointError, r"c\.pth holds Python objects \("):
        checkpoint.load(path)
    assert not ran.exists()
    torch.load(path, weights_only=False)  # the trap does work
    assert ran.exists()
