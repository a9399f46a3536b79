"""Teachers that are given."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from fgdeploy.core.errors import CheckpointError
from fgdeploy.evaluation.targets import Targets
from fgdeploy.training.trainer import Reporter, train
from tests.checks import refused
from tests.training.conftest import Make


def test_a_frozen_teacher_teaches_towards_its_own_codes(small: Make, tmp_path: Path) -> None:
    first = train(small(recipe="paper"), tmp_path / "first")
    teacher = tmp_path / "first" / "teacher.safetensors"
    before = teacher.read_bytes()
    for recipe in ("paper", "fast"):
        done = train(small(recipe=recipe, teacher=teacher), tmp_path / recipe)
        assert set(done.scores) == {"student"}
        assert "transfer" in done.history[0]
        assert "teacher_hash" not in done.history[0]
    kept = Targets.load(first.weights.parent / "targets.npz")
    assert np.array_equal(Targets.load(tmp_path / "paper" / "targets.npz").codes, kept.codes)
    assert teacher.read_bytes() == before


def test_which_network_of_a_file_teaches_is_said(small: Make, tmp_path: Path) -> None:
    first = train(small(recipe="paper", epochs=1), tmp_path / "first")
    trained = load_file(first.weights.parent / "teacher.safetensors")
    raw = {name: torch.zeros_like(tensor) for name, tensor in trained.items()}
    both = first.weights.parent / "both.pth"
    torch.save({"state_dict": raw, "state_dict_ema": trained}, both)
    said: list[str] = []
    train(small(teacher=both, epochs=1), tmp_path / "run", reporter=Reporter(notify=said.append))
    assert any(line.startswith("both.pth: ") and "state_dict_ema" in line for line in said)


def test_a_teacher_that_does_not_fit_is_refused(small: Make, tmp_path: Path) -> None:
    done = train(small(), tmp_path / "first")
    with refused(CheckpointError, "trained for 3 classes and 16 bits, expected 3 and 24"):
        train(small(bits=24, teacher=done.weights), tmp_path / "run")
    with refused(CheckpointError, "a pruned network; a teacher looks at all patches"):
        train(small(teacher=done.weights), tmp_path / "run", overwrite=True)
    with refused(CheckpointError, "no checkpoint at"):
        train(small(teacher=tmp_path / "none.safetensors"), tmp_path / "run", overwrite=True)


def test_a_teacher_of_another_run_s_photos_is_refused(small: Make, tmp_path: Path) -> None:
    train(small(recipe="paper", epochs=1), tmp_path / "first")
    folder = tmp_path / "first"
    teacher = folder / "teacher.safetensors"
    config = json.loads((folder / "teacher.json").read_text())
    for changes, words in (
        ({"classes": list(reversed(config["classes"]))}, "its classes have other names or another"),
        ({"image_size": 96}, "trained at 96 pixels, the student sees 64; pass --image-size 96"),
    ):
        (folder / "teacher.json").write_text(json.dumps({**config, **changes}))
        with refused(CheckpointError, words):
            train(small(teacher=teacher), tmp_path / "run")
    (folder / "teacher.json").write_text(json.dumps(config))
    (folder / "targets.npz").unlink()
    with refused(CheckpointError, "no targets.npz beside it, so the codes that it was trained to"):
        train(small(teacher=teacher), tmp_path / "run")
    tensors = load_file(teacher)
    del tensors["head_hash.weight"]
    torch.save(tensors, tmp_path / "headless.pth")
    with refused(CheckpointError, "no head_hash.weight in it; give a checkpoint that was trained"):
        train(small(teacher=tmp_path / "headless.pth"), tmp_path / "run")
