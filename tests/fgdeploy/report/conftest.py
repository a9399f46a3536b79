"""Photos whose names and classes try to get into a page, and a bundle measured on them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgdeploy.bundle import open_bundle
from fgdeploy.report.bundle_report import BundleReport, make_report
from fgdeploy.report.measuring import ReportSettings

LABELS = ("<script>alert(1)</script>", 'owl" onload="alert(2)', "plain & simple")


@pytest.fixture(scope="session")
def odd_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a list of 36 patchy photos of three classes with odd names, half of them queries."""
    folder = tmp_path_factory.mktemp("odd")
    chooser = np.random.default_rng(3)
    rows = [("path", "class", "split")]
    for index in range(36):
        label = LABELS[index % 3]
        cells = np.kron(chooser.integers(0, 256, (6, 8, 3)), np.ones((8, 8, 1)))
        cells[:, :, index % 3] += 25
        pixels = np.clip(cells, 0, 255).astype(np.uint8)
        path = folder / f"<img src=x onerror=alert({index})>.png"
        Image.fromarray(pixels).save(path)
        rows.append((str(path), label, ("train", "test")[index // 3 % 2]))
    with (folder / "split.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return folder / "split.csv"


@pytest.fixture(autouse=True)
def day(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every report be of one day."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    yield


@pytest.fixture(scope="session")
def measured(toy_bundle: Path, odd_photos: Path) -> BundleReport:
    """The toy bundle's report on the odd photos, nothing timed."""
    from fgdeploy.photos import read

    settings = ReportSettings(backends=("onnxruntime", "openvino"), timed=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1800000000")
        return make_report(
            open_bundle(toy_bundle), read(odd_photos), settings, "fgdeploy report toy.fgd"
        )
