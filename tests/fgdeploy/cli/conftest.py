"""A small real bundle and photos for the command line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fgdeploy.bundle import open_bundle
from fgdeploy.calibration.calibration_settings import CalibrationSettings
from fgdeploy.calibration.calibrator import calibrate
from fgdeploy.demo.moths import write_moths
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.export.exporter import export_bundle
from fgdeploy.gallery import add_photos, open_or_create
from fgdeploy.hasher import load
from fgdeploy.photos import read
from fgdeploy.proof.parity import Limits

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def moths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sub-species of six photos, with split.csv."""
    folder = tmp_path_factory.mktemp("photos") / "moths"
    write_moths(folder, 3, 6, size=96)
    return folder


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EET on a random small ViT at 64 pixels, 32 bits."""
    target = tmp_path_factory.mktemp("bundles") / "eet.fgd"
    options = {"stages": "2:8,4:4"}
    settings = ExportSettings(
        backbone="test_vit", weights="random", image_size=64, options=options, bits=32, head="lsh"
    )
    return export_bundle(settings, target).bundle.path


@pytest.fixture(scope="session")
def kept_gallery(moths: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of all moths; do not write into it."""
    folder = tmp_path_factory.mktemp("galleries") / "g.fgi"
    with load(bundle) as hasher, open_or_create(folder, hasher)[0] as index:
        add_photos(index, hasher, read(moths))
    return folder


@pytest.fixture
def gallery(kept_gallery: Path, tmp_path: Path) -> Path:
    """The index `g.fgi` of all moths in the folder that `run` runs in: ids 1 to 18."""
    return Path(shutil.copytree(kept_gallery, tmp_path / "g.fgi"))


@pytest.fixture(scope="session")
def many_moths(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six sub-species of sixteen photos, half of them to train on: enough to calibrate."""
    folder = tmp_path_factory.mktemp("photos") / "many"
    write_moths(folder, 6, 16, size=64)
    return folder


@pytest.fixture(scope="session")
def calibrated(bundle: Path, many_moths: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle with INT8 and FP16 graphs, whatever they cost it: do not write into it."""
    folder = Path(shutil.copytree(bundle, tmp_path_factory.mktemp("calibrated") / "eet.fgd"))
    limits = Limits(min_bit_agreement=0.8)
    calibrate(open_bundle(folder), read(many_moths / "split.csv"), CalibrationSettings(), limits)
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `fgdeploy ARGUMENTS` in an empty folder, as from a shell."""
    from fgdeploy.cli.app import app

    monkeypatch.chdir(tmp_path)
    runner = CliRunner()

    def call(*arguments: object) -> Result:
        return runner.invoke(app, [str(argument) for argument in arguments])

    return call
