"""Trainings by recipes of a method's own: groups of a class, several views, no target codes."""

from __future__ import annotations

import csv
import dataclasses
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from fgdeploy.core.errors import CheckpointError
from fgdeploy.evaluation.protocol import evaluate_photos
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.exporter import export_bundle
from fgdeploy.hasher import load
from fgdeploy.models.backbone.embedding import Normalisation
from fgdeploy.models.backbone.vit import ViT
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.methods import registry
from fgdeploy.models.methods.base import FAST, Method
from fgdeploy.models.network import Network
from fgdeploy.models.options import Options
from fgdeploy.photos import read
from fgdeploy.training import data
from fgdeploy.training.loop import Tick
from fgdeploy.training.objective import STUDENT, Batch, Objective, Setup
from fgdeploy.training.trainer import Reporter, train
from tests.checks import refused
from tests.training.conftest import Make
from tests.training.weights import same_weights

SEEN: list[Batch] = []


class Pairs(Objective):
    """Classes are told apart, and two looks at a photo hash alike; no codes are drawn to."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.student = setup.make(True)

    def networks(self) -> dict[str, Network]:
        return {STUDENT: self.student}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        SEEN.append(batch)
        found = self.student.hashes(self.student(batch.images))
        terms = {"class": torch.nn.functional.cross_entropy(found["logits"], batch.labels)}
        if "small" in batch.views:
            other = self.student.hashes(self.student(batch.views["small"]))["hash"]
            terms["alike"] = 1 - torch.cosine_similarity(found["hash"], other).mean()
        return terms


class Others(Pairs):
    """The same by another name."""


def two_looks(size: int, least: float) -> Any:
    """Return each photo as it is, and a small middle of it, scaled up."""
    plain = data.crop_and_flip(size, 1.0)

    def look(image: Image.Image) -> dict[str, Tensor]:
        width, height = image.size
        middle = image.crop((width // 3, height // 3, 2 * width // 3, 2 * height // 3))
        return {"image": torch.as_tensor(plain(image)), "small": torch.as_tensor(plain(middle))}

    return look


def build(vit: ViT, norm: Normalisation, options: Options) -> Encoder:
    return Encoder(vit, norm)


PLAIN = dataclasses.replace(FAST, objective=Pairs, parts=())
METHOD = Method(
    name="plain",
    backbone="test_vit",
    build=build,
    recipes={
        "alone": PLAIN,
        "others": dataclasses.replace(PLAIN, objective=Others),
        "pairs": dataclasses.replace(PLAIN, per_class=3, augment=two_looks),
        "looks": dataclasses.replace(PLAIN, augment=two_looks),
    },
)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    registry.register(METHOD)
    SEEN.clear()
    yield
    del registry.METHODS[METHOD.name]


@pytest.fixture
def plain(small: Make) -> Make:
    """Return settings of a training of the plain method; arguments replace some."""

    def make(**changes: Any) -> Any:
        return small(**{"method": "plain", "recipe": "alone", "options": {}, **changes})

    return make


def test_batches_hold_groups_of_a_class_in_every_view(plain: Make, tmp_path: Path) -> None:
    ticks: list[Tick] = []
    said: list[str] = []
    reporter = Reporter(tick=ticks.append, notify=said.append)
    done = train(plain(recipe="pairs", batch=6), tmp_path / "run", reporter=reporter)
    assert {"epoch", "step", "lr", "loss", "class", "alike", "seconds"} <= set(done.history[-1])
    # 4 training photos of 3 classes in groups of 3: two groups a class, two groups a batch
    assert [(tick.epoch, tick.step, tick.steps, tick.images) for tick in ticks] == [
        (epoch, step, 3, 6) for epoch in (1, 2) for step in (1, 2, 3)
    ]
    assert "warm-up shortened from 40 to 1 of 6 steps; --warmup sets it" in said
    for batch in SEEN:
        assert list(batch.views) == ["image", "small"]
        assert {tuple(view.shape) for view in batch.views.values()} == {(6, 3, 64, 64)}
        assert not torch.equal(batch.images, batch.views["small"])
        for group in batch.labels.split(3):
            assert len(set(group.tolist())) == 1
    for epoch in (SEEN[:3], SEEN[3:]):
        rows = [row for batch in epoch for row in batch.rows.tolist()]
        assert len(rows) == 18 and set(rows) == set(range(12))


def test_a_warm_up_is_measured_in_the_steps_that_are_taken(plain: Make, tmp_path: Path) -> None:
    """Groups of a class make more steps than the photos alone: 6 and not 3 in an epoch here."""
    said: list[str] = []
    ticks: list[Tick] = []
    reporter = Reporter(tick=ticks.append, notify=said.append)
    train(plain(recipe="pairs", batch=5, epochs=1), tmp_path / "run", reporter=reporter)
    assert [tick.steps for tick in ticks] == [6] * 6
    assert "warm-up shortened from 40 to 1 of 6 steps; --warmup sets it" in said


@pytest.mark.parametrize("recipe", ["pairs", "looks"])
def test_a_run_of_several_views_goes_on_to_the_same_weights(
    plain: Make, tmp_path: Path, recipe: str
) -> None:
    settings = plain(recipe=recipe, batch=6)
    whole = train(settings, tmp_path / "whole")
    ticks: list[Tick] = []

    def interrupt(tick: Tick) -> None:
        ticks.append(tick)
        if len(ticks) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "run", reporter=Reporter(tick=interrupt))
    resumed = train(settings, tmp_path / "run", resume=True)
    assert same_weights(whole.weights, resumed.weights)


@pytest.mark.parametrize("other", ["others", "looks"])
def test_a_run_does_not_go_on_with_another_objective_or_other_views(
    plain: Make, tmp_path: Path, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(tick: Tick) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(plain(), tmp_path / "run", reporter=Reporter(tick=stop))
    changed = {**METHOD.recipes, "alone": METHOD.recipes[other]}
    monkeypatch.setitem(registry.METHODS, "plain", dataclasses.replace(METHOD, recipes=changed))
    with refused(CheckpointError, "is of a run with other settings or other photos"):
        train(plain(), tmp_path / "run", resume=True)


def test_without_target_codes_photos_are_scored_among_themselves(
    plain: Make, tmp_path: Path
) -> None:
    done = train(plain(precision="fp32", lr=5e-4), tmp_path / "run")
    assert not (tmp_path / "run" / "targets.npz").exists()
    assert not list((tmp_path / "run").glob("*asym_targets*"))
    assert list(done.scores) == ["student"]
    assert list(done.scores["student"]) == ["asym_sign", "symmetric"]
    # As in the full evaluation, but for the order of the photos, by which equal distances fall.
    last, full = done.history[-1], done.scores["student"]["symmetric"]
    assert last["symmetric_map"] == pytest.approx(full["map"], abs=0.02)
    assert 0 <= last["symmetric_recall_at_1"] < 1  # a photo does not find itself
    assert not [name for row in done.history for name in row if name.startswith("asym")]
    with (tmp_path / "run" / "log.csv").open() as stream:
        logged = list(csv.DictReader(stream))
    assert len(logged) == 2 and "symmetric_map" in logged[0]
    assert (
        train(plain(precision="fp32", lr=5e-4), tmp_path / "run", resume=True).scores == done.scores
    )


def test_a_run_without_target_codes_is_exported_and_evaluated(plain: Make, tmp_path: Path) -> None:
    settings = plain(precision="fp32")
    done = train(settings, tmp_path / "run")
    bundle = export_bundle(ExportSettings(checkpoint=done.weights), tmp_path / "a.fgd").bundle
    assert not (bundle.path / "targets.npz").exists()
    assert bundle.manifest.method == "plain"
    with load(bundle.path, "onnxruntime") as hasher:
        found = evaluate_photos(hasher, read(settings.data))
    assert "brings no target codes" in found.absent["asym_targets"]
    assert list(found.protocols) == ["asym_sign", "symmetric"]
    for name, detail in found.protocols.items():
        assert detail.scores.map == pytest.approx(done.scores["student"][name]["map"], abs=1e-9)
