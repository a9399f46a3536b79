"""AFTrans through the whole house: trained, broken off and resumed, exported with either branch."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from fgdeploy.bundle import Bundle
from fgdeploy.demo.moths import write_moths
from fgdeploy.export import verify
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.exporter import export_bundle, rebuild
from fgdeploy.models.weights import checkpoint
from fgdeploy.training.train_settings import TrainSettings
from fgdeploy.training.trainer import Reporter, train
from tests.exported import (
    Case,
    Exports,
    build_for_tensorrt,
    calibrated,
    hold_precisions,
    hold_to_pytorch,
    hold_what_decides,
    narrow_backbones,
)

SIZE, BITS = 96, 16
OPTIONS = {"keep": "0.05"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_moths(tmp_path_factory.mktemp("drawn"), 3, 12, size=112)


def _settings(data: Path, **changes: Any) -> TrainSettings:
    settings = TrainSettings(
        data=data,
        method="aftrans",
        options=OPTIONS,
        backbone="test_vit",
        weights="random",
        image_size=SIZE,
        bits=BITS,
        epochs=2,
        batch=8,
        precision="fp32",
    )
    return dataclasses.replace(settings, **changes)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(_settings(data), folder)
    return folder


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    target = tmp_path_factory.mktemp("bundles") / "global.fgd"
    return export_bundle(ExportSettings(checkpoint=run), target).bundle


@pytest.fixture(scope="module")
def random(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exports]:
    """Exports of random weights, whose codes differ from photo to photo."""
    narrow = contextlib.contextmanager(narrow_backbones)
    with narrow():
        yield Exports(tmp_path_factory.mktemp("exports"))


@pytest.fixture(scope="module")
def both(random: Exports) -> Bundle:
    return random.of(Case("aftrans", ("branch=both", "keep=0.05"), size=SIZE))


def test_both_branches_learn(run: Path, data: Path, tmp_path: Path) -> None:
    learned = checkpoint.read(run / "model.safetensors")
    train(_settings(data, epochs=1, lr=1e-12, warmup=0), tmp_path / "still")
    start = checkpoint.read(tmp_path / "still" / "model.safetensors")
    for name in ("local_cls_token", "local_pos_embed", "cls_token", "pos_embed"):
        assert (learned[name] - start[name]).abs().max() > 1e-6, name
    # no gradient comes through the choice of patches
    assert torch.equal(learned["sacm.fc1.weight"], start["sacm.fc1.weight"])
    log = (run / "log.csv").read_text(encoding="utf-8")
    assert "further" in log.splitlines()[0]


@pytest.mark.parametrize("changes", [{}, {"recipe": "paper", "options": {"sacm_grad": "reweight"}}])
def test_a_run_that_is_broken_off_goes_on_to_the_same_weights(
    data: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    def breaks(tick: Any) -> None:
        if (tick.epoch, tick.step) == (2, 1):
            raise InterruptedError

    settings = _settings(data, **changes)
    train(settings, tmp_path / "whole")
    with pytest.raises(InterruptedError):
        train(settings, tmp_path / "again", reporter=Reporter(tick=breaks))
    train(settings, tmp_path / "again", resume=True)
    files = [tmp_path / name / "model.safetensors" for name in ("whole", "again")]
    assert files[0].read_bytes() == files[1].read_bytes()
    if changes:
        assert checkpoint.read(files[0])["sacm.fc2.weight"].abs().max() > 0


def test_a_trained_one_is_exported_without_its_local_branch(
    exported: Bundle, run: Path, tmp_path: Path
) -> None:
    manifest = exported.manifest
    assert list(manifest.outputs) == ["code", "hash", "embedding"]
    assert manifest.grid == (7, 7)
    assert [rows.tokens for rows in manifest.blocks] == [50] * 6
    assert manifest.graph["pins"] == []
    held = {one.name for one in onnx.load(exported.graph("fp32")).graph.initializer}
    assert not [name for name in held if "local" in name or "sacm" in name]
    frames = verify.frames_for(SIZE, [], seed=1)
    hold_to_pytorch(exported, rebuild(exported, run / "model.safetensors"), frames)
    build_for_tensorrt(exported, SIZE, tmp_path, "fp32")


def test_without_the_local_branch_it_runs_in_every_precision(
    random: Exports, data: Path, tmp_path: Path
) -> None:
    bundle = calibrated(random.of(Case("aftrans", size=SIZE)), data)
    hold_precisions(bundle, SIZE)
    assert hold_what_decides(bundle) == set()
    build_for_tensorrt(bundle, SIZE, tmp_path, "fp16", "int8-fp16")


def test_both_branches_are_exported_with_a_box(both: Bundle, tmp_path: Path) -> None:
    manifest = both.manifest
    assert list(manifest.outputs) == ["code", "hash", "embedding", "box"]
    assert [rows.tokens for rows in manifest.blocks] == [50] * 4 + [10] * 4  # 48 pixels: 3 x 3
    reference = rebuild(both, None)
    frames = verify.frames_for(SIZE, [], seed=1)
    hold_to_pytorch(both, reference, frames)
    assert len(np.unique(reference.run(frames).extras["box"], axis=0)) > 1
    build_for_tensorrt(both, SIZE, tmp_path, "fp32")


def test_with_both_branches_it_runs_in_every_precision(
    both: Bundle, data: Path, tmp_path: Path
) -> None:
    bundle = calibrated(both, data)
    hold_precisions(bundle, SIZE)
    build_for_tensorrt(bundle, SIZE, tmp_path, "fp16", "int8-fp16")
    modules = {"sacm", "sacm.logs", "sacm.fc1", "sacm.fc2", "largest", "around"}
    crops = {"crop", "crop.hats", "crop.across", "crop.down"}
    assert hold_what_decides(bundle) == modules | crops
