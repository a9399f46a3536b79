"""One call from a bundle to an engine: what is calibrated, on which photos, and what judges."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import fgdeploy
from fgdeploy.bundle import Bundle, open_bundle, seal
from fgdeploy.calibration import calibrator
from fgdeploy.calibration.calibration_settings import CalibrationSettings
from fgdeploy.calibration.calibrator import Calibrated
from fgdeploy.core.errors import MissingDependency, UsageError
from fgdeploy.photos import Photo
from fgdeploy.proof import preparing
from fgdeploy.proof.parity import Limits
from tests.checks import refused
from tests.fgdeploy.proof.conftest import FRAMES, Make, as_int8

LIMITS = Limits(min_bit_agreement=0.9)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Let a calibration add a graph that passes for INT8, and keep what it was called with."""
    calls: list[tuple[Any, ...]] = []

    def calibrate(bundle: Bundle, photos: Any, settings: Any, limits: Any, again: Any, *_: Any):  # type: ignore[no-untyped-def]
        calls.append((bundle.path, photos, settings, limits, again))
        made = bundle.with_files({"model.int8.onnx": as_int8(bundle.path)}, {"range": "mse"})
        return Calibrated(made, None, LIMITS, skipped=["b.jpg: no photo"])  # type: ignore[arg-type]

    monkeypatch.setattr(calibrator, "calibrate", calibrate)
    return calls


def test_the_names_that_python_users_have() -> None:
    assert fgdeploy.build_engine is preparing.build_engine
    assert fgdeploy.calibrate is preparing.calibrate


def test_int8_is_calibrated_first(
    own_bundle: Path, grey_photos: list[Photo], calls: list[tuple[Any, ...]]
) -> None:
    settings = CalibrationSettings(images=8)
    done = fgdeploy.build_engine(
        own_bundle, "int8", grey_photos, "onnxruntime", None, settings, LIMITS, timed=False
    )
    assert calls == [(own_bundle, grey_photos, settings, LIMITS, False)]
    assert done.name == "onnxruntime:int8"
    assert done.proof is not None and done.proof.parity is not None
    assert done.proof.limits == LIMITS
    assert done.proof.parity.photos == 4  # those that did not calibrate
    assert done.proof.parity.map_drop is not None
    assert done.skipped == ["b.jpg: no photo"]


def test_what_is_there_is_not_calibrated_again(
    make: Make, grey_photos: list[Photo], calls: list[tuple[Any, ...]]
) -> None:
    bundle = make()
    done = fgdeploy.build_engine(str(bundle.path), "int8", backend="onnxruntime", timed=False)
    assert done.proof is not None and done.proof.parity is not None
    assert (calls, done.proof.parity.photos) == ([], FRAMES)
    done = fgdeploy.build_engine(bundle, "int8", grey_photos, "onnxruntime", timed=False)
    assert done.proof is not None and done.proof.parity is not None
    assert (calls, done.proof.parity.photos) == ([], 12)
    fgdeploy.build_engine(bundle, "int8", grey_photos, "onnxruntime", again=True, timed=False)
    assert [call[-1] for call in calls] == [True]


def test_any_photos_judge_what_no_photos_calibrated(
    own_bundle: Path, grey_photos: list[Photo], calls: list[tuple[Any, ...]]
) -> None:
    done = fgdeploy.build_engine(own_bundle, "fp32", grey_photos[:3], "onnxruntime", timed=False)
    assert done.proof is not None and done.proof.parity is not None
    assert (calls, done.proof.parity.photos) == ([], 3)


def test_photos_in_the_working_folder_calibrate(
    own_bundle: Path,
    grey_photos: list[Photo],
    calls: list[tuple[Any, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    told: list[str] = []
    with refused(UsageError, r"^there are no photos here to calibrate on; name real ones with"):
        fgdeploy.build_engine(own_bundle, "int8", backend="onnxruntime")
    Path("noise").symlink_to(grey_photos[0].path.parent)
    fgdeploy.build_engine(
        own_bundle, "int8", backend="onnxruntime", timed=False, notify=told.append
    )
    assert told[0] == "photos to calibrate on: noise, the only ones here"
    assert len(calls[0][1]) == 12


def test_a_backend_is_looked_for_before_anything_is_calibrated(
    own_bundle: Path, grey_photos: list[Photo], calls: list[tuple[Any, ...]]
) -> None:
    with refused(UsageError, "no backend 'abacus'"):
        fgdeploy.build_engine(own_bundle, "int8", grey_photos, "abacus")
    assert calls == []


def test_calibrate_alone(
    own_bundle: Path, grey_photos: list[Photo], calls: list[tuple[Any, ...]]
) -> None:
    done = fgdeploy.calibrate(own_bundle, grey_photos[0].path.parent, limits=LIMITS)
    assert [photo.path for photo in calls[0][1]] == sorted(p.path for p in grey_photos)
    assert calls[0][2:] == (CalibrationSettings(), LIMITS, False)
    assert done.bundle == open_bundle(own_bundle)


def test_without_the_onnx_package(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "fgdeploy.calibration.calibrator")
    with refused(
        MissingDependency, r'calibrating needs the package onnx, .*fgdeploy\[calibrate\]"'
    ):
        fgdeploy.calibrate(own_bundle)


def test_photos_of_the_models_own_training_come_first(
    own_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = open_bundle(own_bundle)
    assert preparing.own_photos(bundle) is None
    weights = {**bundle.manifest.weights, "run": "eet-run"}
    bundle = seal(own_bundle, dataclasses.replace(bundle.manifest, weights=weights))
    split = own_bundle.parent / "eet-run" / "split.csv"
    assert preparing.own_photos(bundle) is None
    split.parent.mkdir()
    split.write_text("path,class,split\n")
    found = preparing.own_photos(open_bundle(own_bundle))
    assert found is not None and found.resolve() == split.resolve()
