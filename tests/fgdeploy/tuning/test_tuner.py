"""Tunings on a made-up device: what is recommended, refused and written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from fgdeploy.bundle import open_bundle
from fgdeploy.core.errors import BundleError, DataError, TuningError, UsageError
from fgdeploy.tuning import tuning_file
from fgdeploy.tuning.tune_settings import TuneSettings
from fgdeploy.tuning.tuner import tune
from tests.checks import refused
from tests.fgdeploy.tuning.conftest import Device


@pytest.fixture
def settings(photos: Path) -> TuneSettings:
    return TuneSettings(
        photos,
        5.0,
        backbone="test_vit",
        weights="random",
        image_size=64,
        best=4,
        bits=32,
        images=32,
    )


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "tuned.fgd"


def left(target: Path) -> list[str]:
    return [one.name for one in target.parent.iterdir()]


def test_the_best_schedule_that_keeps_to_both_limits(
    settings: TuneSettings, target: Path, device: Device
) -> None:
    device.otherwise = 0.7
    found = tune(dataclasses.replace(settings, max_drop=11), target)
    tried = {row.schedule: row for row in found.trials}
    assert ["none", found.recommended.schedule] == device.built  # all rank alike: the first
    assert found.recommended.measured_ms is not None
    assert found.recommended.measured_ms <= 5.0 < found.dense_ms == 7.0
    assert found.recommended.drop == pytest.approx(10)
    assert tried["dense"].pareto
    assert left(target) == ["tuned.fgd"]


def test_one_that_ranks_better_is_taken_though_it_looked_worse(
    settings: TuneSettings, target: Path, device: Device
) -> None:
    first = tune(settings, target).trials
    judged = [row for row in first if row.drop is not None and row.schedule != "dense"]
    better = judged[0].schedule if judged[0].measured_ms is None else judged[1].schedule
    device.scores[better] = 0.799
    found = tune(settings, target, overwrite=True)
    assert found.recommended.schedule == better


def test_what_misses_the_latency_when_measured_makes_way(
    settings: TuneSettings, target: Path, device: Device
) -> None:
    usual = tune(settings, target).recommended.schedule
    device.slower[usual] = 1.3
    device.built.clear()
    found = tune(settings, target, overwrite=True)
    assert found.recommended.schedule != usual
    notes = {row.schedule: row.note for row in found.trials}
    assert notes[usual] == "misses the latency when measured"


def test_the_bundle_holds_the_table(settings: TuneSettings, target: Path, device: Device) -> None:
    found = tune(settings, target)
    bundle = open_bundle(target)
    entry = tuning_file.read(bundle)
    assert entry is not None
    assert entry["recommended"] == found.recommended.schedule
    assert len(entry["trials"]) == len(found.trials)
    assert tuning_file.line(entry).startswith(f"tuned: {found.recommended.schedule} for 5 ms")
    path = target / tuning_file.FILE
    path.write_text(path.read_text().replace('"batch": 1', '"batch": 8'))
    with refused(BundleError, "tuning.json: its sha256 is not the one in manifest.json"):
        open_bundle(target)
    path.write_text(json.dumps({**entry, "batch": 0}))
    with refused(BundleError, "tuning.json is damaged: batch is 0, expected"):
        tuning_file.read(bundle)


def test_dense_is_recommended_where_it_keeps_to_the_latency(
    settings: TuneSettings, target: Path, device: Device
) -> None:
    found = tune(dataclasses.replace(settings, latency_ms=7.0), target)
    assert found.recommended.schedule == "dense"
    assert found.staircase is None
    entry = tuning_file.read(open_bundle(target))
    assert entry is not None
    assert entry["staircase"] is None


def test_schedules_slower_than_dense_are_refused(
    settings: TuneSettings, target: Path, device: Device
) -> None:
    device.slower["all"] = 2.0
    with refused(TuningError, "dense takes 7.00 ms, .* pruning .* pay.* here"):
        tune(settings, target)
    assert left(target) == []
    assert len(device.asked) == 3  # for batch 1, then for 8 and 32


def test_a_latency_that_nothing_reaches(
    settings: TuneSettings, target: Path, device: Device
) -> None:
    with refused(TuningError, "no schedule of eet takes at most 0.5 ms at batch 1 here"):
        tune(dataclasses.replace(settings, latency_ms=0.5), target)
    assert device.built == ["none"]
    assert left(target) == []


def test_too_great_a_loss_is_refused_with_the_best(
    settings: TuneSettings, target: Path, device: Device
) -> None:
    device.otherwise = 0.7
    with refused(TuningError, r"at most 0.5 points of mAP: the best, .* loses 10.00; add --train"):
        tune(settings, target)
    assert left(target) == []


@pytest.mark.parametrize("method", ["glsim", "dva", "aftrans"])
def test_methods_without_a_schedule(
    settings: TuneSettings, target: Path, device: Device, method: str
) -> None:
    with refused(UsageError, f"{method} prunes by no stages"):
        tune(dataclasses.replace(settings, method=method), target)
    assert device.built == []


def test_what_is_refused_before_anything_is_built(
    settings: TuneSettings, target: Path, device: Device, tmp_path: Path
) -> None:
    with refused(UsageError, "no backend 'nothing'"):
        tune(dataclasses.replace(settings, engine="nothing:fp32"), target)
    with refused(UsageError, "a bundle's name ends in .fgd"):
        tune(settings, tmp_path / "tuned")
    with refused(DataError, "too few to measure"):
        few = tmp_path / "few.csv"
        lines = (settings.data / "split.csv").read_text().splitlines()
        rows = [f"{settings.data}/{line}" for line in (lines[1], lines[2], lines[-1], lines[-2])]
        few.write_text("\n".join([lines[0], *rows]))
        tune(dataclasses.replace(settings, data=few), target)
    assert device.built == []
