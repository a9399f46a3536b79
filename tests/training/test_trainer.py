"""Whole trainings of a small model: what they leave, how they go on, what they refuse."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fgdeploy.core.errors import CheckpointError, UsageError
from fgdeploy.evaluation.targets import Targets
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.exporter import export_bundle
from fgdeploy.models.methods.eet import EETOptions
from fgdeploy.models.reduce.stages import Stage
from fgdeploy.models.weights.trained import load_config
from fgdeploy.training import loop
from fgdeploy.training.loop import Tick
from fgdeploy.training.trainer import Reporter, train
from tests.checks import refused
from tests.training.conftest import Make
from tests.training.weights import same_weights


@pytest.mark.parametrize("recipe", ["fast", "paper"])
def test_a_training_leaves_weights_config_log_and_scores(
    small: Make, tmp_path: Path, recipe: str
) -> None:
    rows: list[dict[str, float]] = []
    ticks: list[Tick] = []
    done = train(
        small(recipe=recipe),
        tmp_path / "run",
        reporter=Reporter(tick=ticks.append, epoch=rows.append),
    )
    nets = {"student"} if recipe == "fast" else {"student", "teacher"}
    assert set(done.scores) == nets
    for scores in done.scores.values():
        assert list(scores) == ["asym_targets", "asym_sign", "symmetric"]
        assert all(0 <= values["map"] <= 1 for values in scores.values())
    names = {entry.name for entry in (tmp_path / "run").iterdir()}
    expected = {
        "model.safetensors",
        "model.json",
        "targets.npz",
        "log.csv",
        "scores.json",
        "settings.json",
        "split.csv",
        "per_class.csv",
        "failures.csv",
        "pr_curve.png",
        "curve_asym_targets.csv",
        "curve_asym_sign.csv",
        "curve_symmetric.csv",
    }
    if recipe == "paper":
        expected |= {"teacher.safetensors", "teacher.json"}
    assert names == expected  # the state is gone: there is nothing left to go on with
    assert [(tick.epoch, tick.step, tick.steps) for tick in ticks] == [
        (epoch, step, 3) for epoch in (1, 2) for step in (1, 2, 3)
    ]
    with (tmp_path / "run" / "log.csv").open() as stream:
        logged = list(csv.DictReader(stream))
    assert [row["epoch"] for row in logged] == ["1", "2"]
    assert float(logged[1]["loss"]) == pytest.approx(rows[1]["loss"], rel=1e-4)
    held = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert held.keys() == nets | {"training_photos", "advice"}
    assert held["training_photos"].keys() == nets
    for name in nets:
        found = held["training_photos"][name]
        maps = [held[name][kind]["map"] for kind in ("asym_targets", "asym_sign")]
        assert found["gap"] == pytest.approx(1 - maps[1] / maps[0])
        assert found == done.reached[name].to_json()
    assert held["advice"] == done.advice


def test_the_loss_falls(small: Make, tmp_path: Path) -> None:
    for recipe in ("fast", "paper"):
        settings = small(recipe=recipe, epochs=8, lr=2e-3 if recipe == "fast" else 2e-2, warmup=2)
        history = train(settings, tmp_path / recipe).history
        assert history[-1]["loss"] < 0.97 * history[0]["loss"]


def test_export_takes_the_result_without_further_flags(small: Make, tmp_path: Path) -> None:
    train(small(bits=24), tmp_path / "run")
    said: list[str] = []
    done = export_bundle(
        ExportSettings(checkpoint=tmp_path / "run"), tmp_path / "eet.fgd", notify=said.append
    )
    manifest = done.bundle.manifest
    assert (manifest.backbone, manifest.image_size, manifest.bits) == ("test_vit", 64, 24)
    assert manifest.options["stages"] == [[2, 8], [4, 4]]
    assert [rows.tokens for rows in manifest.blocks] == [17, 17, 9, 9, 5, 5]
    assert len(manifest.classes) == 3 and manifest.classes == tuple(sorted(manifest.classes))
    assert manifest.head == {"kind": "trained", "classes": 3}
    assert done.parity.bit_agreement == 1.0
    assert "as model.json says" in said[0]
    assert not any("told from the checkpoint's shapes" in line for line in said)
    held = Targets.load(done.bundle.path / "targets.npz")
    kept = Targets.load(tmp_path / "run" / "targets.npz")
    assert np.array_equal(held.codes, kept.codes)
    assert held.bits == 24


def test_the_teacher_of_a_run_exports_dense(small: Make, tmp_path: Path) -> None:
    train(small(recipe="paper", epochs=1), tmp_path / "run")
    settings = ExportSettings(checkpoint=tmp_path / "run" / "teacher.safetensors")
    manifest = export_bundle(settings, tmp_path / "dense.fgd").bundle.manifest
    assert manifest.options["stages"] == []
    assert [rows.tokens for rows in manifest.blocks] == [17] * 6


def test_exported_codes_are_those_that_were_scored(small: Make, tmp_path: Path) -> None:
    from fgdeploy.evaluation.protocol import evaluate_photos
    from fgdeploy.hasher import load
    from fgdeploy.photos import read

    settings = small(precision="fp32")
    done = train(settings, tmp_path / "run")
    bundle = export_bundle(ExportSettings(checkpoint=done.weights), tmp_path / "eet.fgd").bundle
    with load(bundle.path, "onnxruntime") as hasher:
        found = evaluate_photos(hasher, read(settings.data))
    for name, detail in found.protocols.items():
        assert detail.scores.map == pytest.approx(done.scores["student"][name]["map"], abs=1e-9)


def test_the_config_says_what_was_trained(small: Make, tmp_path: Path) -> None:
    done = train(small(epochs=1), tmp_path / "run")
    config = load_config(done.weights)
    assert config is not None
    assert (config.method, config.backbone, config.bits) == ("eet", "test_vit", 16)
    assert config.options == EETOptions((Stage(2, 8), Stage(4, 4)))
    assert len(config.classes) == 3
    assert config.training["photos"] == 12
    assert config.training["training_photos"] == done.reached["student"].to_json()
    assert config.training["scores"]["asym_sign"] == done.scores["student"]["asym_sign"]["map"]


def test_what_training_photos_reached_is_that_of_the_exported_model(
    small: Make, tmp_path: Path
) -> None:
    from fgdeploy.hasher import hash_all, load
    from fgdeploy.photos import of_split, read

    settings = small(precision="fp32")
    done = train(settings, tmp_path / "run")
    bundle = export_bundle(ExportSettings(checkpoint=done.weights), tmp_path / "eet.fgd").bundle
    with load(bundle.path, "onnxruntime") as hasher:
        own = hash_all(hasher, of_split(read(settings.data), "train"), False).outputs.code
    wrong = np.unpackbits(own ^ Targets.load(tmp_path / "run" / "targets.npz").codes, axis=1)
    found = done.reached["student"]
    assert found.bits_equal == pytest.approx(1 - wrong.mean())
    assert found.codes_equal == pytest.approx((wrong.sum(axis=1) == 0).mean())


def test_scores_of_before_are_read(small: Make, tmp_path: Path) -> None:
    done = train(small(epochs=1), tmp_path / "run")
    path = tmp_path / "run" / "scores.json"
    held = json.loads(path.read_text())
    path.write_text(json.dumps({"student": held["student"]}))
    again = train(small(epochs=1), tmp_path / "run", resume=True)
    assert again.scores == done.scores
    assert again.reached == {} and again.advice is None
    path.write_text(json.dumps({**held, "training_photos": {"student": {"bits_equal": 2}}}))
    with refused(CheckpointError, "its results cannot be read"):
        train(small(epochs=1), tmp_path / "run", resume=True)


def test_a_seed_gives_the_same_weights(small: Make, tmp_path: Path) -> None:
    runs = {
        name: train(small(seed=seed), tmp_path / name)
        for name, seed in (("one", 3), ("two", 3), ("other", 4))
    }
    assert same_weights(runs["one"].weights, runs["two"].weights)
    assert not same_weights(runs["one"].weights, runs["other"].weights)


def test_resuming_a_finished_run_changes_nothing(small: Make, tmp_path: Path) -> None:
    done = train(small(), tmp_path / "run")
    before = {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    said: list[str] = []
    again = train(small(), tmp_path / "run", resume=True, reporter=Reporter(notify=said.append))
    assert any("finished already" in line for line in said)
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "run").iterdir()}
    assert again == dataclasses.replace(done, history=again.history)  # the log has six digits
    with refused(CheckpointError, "is finished, with other settings"):
        train(small(bits=24), tmp_path / "run", resume=True)


def test_a_resumed_run_keeps_the_codes_it_began_with(
    small: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fgdeploy.training import fast

    whole = train(small(), tmp_path / "whole")

    def stop(tick: Tick) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(small(), tmp_path / "run", reporter=Reporter(tick=stop))
    other = np.where(np.random.default_rng(9).random((3, 16)) < 0.5, -1, 1).astype(np.int8)
    monkeypatch.setattr(fast, "class_codes", lambda *arguments: other)  # as by other rounding
    resumed = train(small(), tmp_path / "run", resume=True)
    assert same_weights(whole.weights, resumed.weights)
    codes = [Targets.load(w.parent / "targets.npz").codes for w in (whole.weights, resumed.weights)]
    assert np.array_equal(*codes)


def test_overwriting_removes_what_a_run_wrote_and_nothing_else(small: Make, tmp_path: Path) -> None:
    train(small(epochs=1), tmp_path / "run")
    (tmp_path / "run" / "thesis.txt").write_text("precious")
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    with refused(UsageError, "choose fast, paper"):
        train(small(recipe="none"), tmp_path / "run", overwrite=True)
    with refused(CheckpointError, "no checkpoint at"):
        train(small(teacher=tmp_path / "none"), tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before
    train(small(epochs=1, seed=1), tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() != before
    assert (tmp_path / "run" / "thesis.txt").read_text() == "precious"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "settings.json").write_text("{}")
    with refused(CheckpointError, "holds something else"):
        train(small(), tmp_path / "code", overwrite=True)


def test_a_run_does_not_lie_within_its_photos(small: Make, drawn: Path) -> None:
    with refused(CheckpointError, "lies within the photos"):
        train(small(data=drawn.parent), drawn.parent / "eet-run")


def test_the_split_is_written_down(small: Make, drawn: Path, tmp_path: Path) -> None:
    from fgdeploy.photos import read

    root = tmp_path / "photos"
    shutil.copytree(drawn.parent, root)
    (root / "split.csv").unlink()
    train(small(data=root, val_fraction=0.25, epochs=1), tmp_path / "run")
    listed = read(tmp_path / "run" / "split.csv")
    assert [photo.split for photo in listed].count("test") == 6
    assert len(listed) == 24


def test_resume_refuses_other_settings_or_photos(
    small: Make, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(tick: Tick) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(small(), tmp_path / "run", reporter=Reporter(tick=stop))
    for changes in ({"lr": 1e-3}, {"seed": 1}, {"recipe": "paper"}, {"bits": 24}):
        with refused(CheckpointError, "other settings or other photos"):
            train(small(**changes), tmp_path / "run", resume=True)
    shutil.copytree(drawn.parent, tmp_path / "photos")
    first = next((tmp_path / "photos").glob("*/0000.jpg"))
    text = (tmp_path / "photos" / "split.csv").read_text().splitlines()
    fewer = [line for line in text if f"{first.parent.name}/{first.name}" not in line]
    (tmp_path / "photos" / "split.csv").write_text("\n".join(fewer))
    with refused(CheckpointError, "other settings or other photos"):
        train(small(data=tmp_path / "photos" / "split.csv"), tmp_path / "run", resume=True)


def test_resume_without_a_run_is_refused(small: Make, tmp_path: Path) -> None:
    with refused(CheckpointError, "no run in .* to resume"):
        train(small(), tmp_path / "none", resume=True)
    (tmp_path / "empty").mkdir()
    with refused(CheckpointError, "no run in .* to resume"):
        train(small(), tmp_path / "empty", resume=True)


def test_a_run_is_not_overwritten_unasked(small: Make, tmp_path: Path) -> None:
    train(small(epochs=1), tmp_path / "run")
    with refused(CheckpointError, "holds a run already"):
        train(small(epochs=1), tmp_path / "run")
    done = train(small(epochs=1, recipe="paper"), tmp_path / "run", overwrite=True)
    assert done.weights.is_file()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with refused(CheckpointError, "holds something else"):
        train(small(), tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_no_space_is_said_before_the_first_step(
    small: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    ticks: list[Tick] = []
    with refused(CheckpointError, "no space for the checkpoint: .* needs up to"):
        train(small(), tmp_path / "run", reporter=Reporter(tick=ticks.append))
    assert ticks == []


def test_more_classes_than_codes_is_a_warning(tmp_path: Path, small: Make) -> None:
    from PIL import Image

    root = tmp_path / "many"
    chooser = np.random.default_rng(0)
    for label in range(300):
        (root / f"{label:03d}").mkdir(parents=True)
        pixels = chooser.integers(0, 255, (16, 16, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(root / f"{label:03d}" / "0.png")
    said: list[str] = []
    settings = small(data=root, bits=8, epochs=1, batch=128, val_fraction=0)
    done = train(settings, tmp_path / "run", reporter=Reporter(notify=said.append))
    (warning,) = [line for line in said if "share a target code" in line]
    assert "classes share a target code" in warning
    assert "take more --bits" in warning
    assert done.scores == {"student": {}}  # nothing was held out


def test_a_checkpoint_of_another_method_is_refused(small: Make, tmp_path: Path) -> None:
    done = train(small(epochs=1), tmp_path / "run")
    tensors = load_file(done.weights)
    tensors["aggregator_norm.weight"] = torch.ones(64)
    torch.save(tensors, tmp_path / "glsim.pth")
    with refused(CheckpointError, "trained with glsim, not eet; pass --method glsim"):
        train(small(weights=str(tmp_path / "glsim.pth")), tmp_path / "other")
    entry = json.loads((tmp_path / "run" / "model.json").read_text())
    entry["method"] = "unheard-of"
    (tmp_path / "run" / "model.json").write_text(json.dumps(entry))
    with refused(CheckpointError, "trained as 'unheard-of', which is no method here"):
        export_bundle(ExportSettings(checkpoint=done.weights), tmp_path / "x.fgd")


def test_a_run_can_start_from_another(small: Make, tmp_path: Path) -> None:
    done = train(small(epochs=1), tmp_path / "run")
    settings = small(weights=str(done.weights), backbone=None, image_size=None)
    assert train(settings, tmp_path / "next").weights.is_file()


def test_unknown_names_are_usage_errors(small: Make, tmp_path: Path) -> None:
    for changes, words in (
        ({"recipe": "slow"}, "choose fast, paper"),
        ({"method": "dino"}, "choose one of eet"),
        ({"without": frozenset({"dkt"})}, "has the parts ctp, codes, start"),
        ({"weights": "nowhere.pth"}, "no such file"),
        ({"backbone": "resnet50"}, "resnet50 is of the family ResNet, no plain ViT"),
    ):
        with refused(UsageError, words):
            train(small(**changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_long_warm_up_is_shortened_aloud(small: Make, tmp_path: Path) -> None:
    said: list[str] = []
    train(small(recipe="paper", epochs=1), tmp_path / "run", reporter=Reporter(notify=said.append))
    assert "warm-up shortened from 500 to 1 of 3 steps; --warmup sets it" in said
    assert loop.SAVE_SECONDS > 0
