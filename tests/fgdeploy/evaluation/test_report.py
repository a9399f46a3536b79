from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgdeploy.core.errors import MissingDependency
from fgdeploy.evaluation import Curve, Detail, evaluate_in_detail
from fgdeploy.evaluation.report import (
    check_drawing,
    draw_curves,
    write_classes,
    write_curve,
    write_report,
)
from tests.checks import refused

AWKWARD = 'Müller, "the moth"\nsecond line'


@pytest.fixture
def protocols() -> dict[str, Detail]:
    chooser = np.random.default_rng(0)
    codes = chooser.integers(0, 256, (30, 2), dtype=np.uint8)
    names = np.array(["owl", AWKWARD, "a"])[chooser.integers(0, 3, 30)]
    return {
        "asym_sign": evaluate_in_detail(codes[:10], names[:10], codes[10:], names[10:]),
        "symmetric": evaluate_in_detail(codes, names, codes, names, same_set=True),
    }


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_curve_comes_back_to_the_last_digit(tmp_path: Path, protocols: dict[str, Detail]) -> None:
    curve = protocols["symmetric"].curve
    write_curve(tmp_path / "curve.csv", curve)
    rows = rows_of(tmp_path / "curve.csv")
    read = Curve(
        tuple(int(row["radius"]) for row in rows),
        tuple(float(row["precision"]) for row in rows),
        tuple(float(row["recall"]) for row in rows),
    )
    assert read == curve
    assert read.radii[-1] == 16


def test_the_table_of_classes_holds_all_protocols(
    tmp_path: Path, protocols: dict[str, Detail]
) -> None:
    write_classes(tmp_path / "classes.csv", protocols)
    rows = rows_of(tmp_path / "classes.csv")
    expected = [(name, row) for name, detail in protocols.items() for row in detail.classes]
    assert len(rows) == len(expected) > 3
    for found, (name, row) in zip(rows, expected, strict=True):
        assert (found["protocol"], found["class"]) == (name, row.name)
        assert int(found["queries"]) == row.queries
        assert float(found["map"]) == row.map
        assert float(found["tie_aware_map"]) == row.tie_aware_map
        assert float(found["recall_at_1"]) == row.recall_at_1
    assert AWKWARD in {row["class"] for row in rows}


def test_the_plot_is_an_image_with_a_line_for_each(
    tmp_path: Path, protocols: dict[str, Detail]
) -> None:
    curves = {name: detail.curve for name, detail in protocols.items()}
    draw_curves(tmp_path / "pr.png", curves)
    with Image.open(tmp_path / "pr.png") as image:
        image.load()
        assert image.format == "PNG"
        assert image.size == (960, 720)
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in ((31, 119, 180), (255, 127, 14)):  # the first two of matplotlib's cycle
        assert (pixels == colour).all(axis=1).sum() > 50


def test_a_report_is_these_files(tmp_path: Path, protocols: dict[str, Detail]) -> None:
    names = ["curve_asym_sign.csv", "curve_symmetric.csv", "per_class.csv", "pr_curve.png"]
    for _ in range(2):  # over an old one too
        written = write_report(tmp_path / "report", protocols)
        assert [path.name for path in written] == names
        assert sorted(path.name for path in (tmp_path / "report").iterdir()) == names


def test_without_matplotlib_nothing_is_written(
    tmp_path: Path, protocols: dict[str, Detail], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    words = (
        "^drawing the PR curve needs the package matplotlib, which is not installed; "
        r'run: pip install "fgdeploy\[train\]"$'
    )
    with refused(MissingDependency, words):
        check_drawing()
    with refused(MissingDependency, words):
        write_report(tmp_path / "report", protocols)
    assert list(tmp_path.iterdir()) == []


def test_drawing_needs_no_screen_and_leaves_no_global_state(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
import fgdeploy.evaluation.report as report
assert "matplotlib" not in sys.modules
report.draw_curves(Path(sys.argv[1]), {"symmetric": report.Curve((3, 4), (1.0, 0.5), (0.5, 1.0))})
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "a.png"], check=True, timeout=120)
    assert (tmp_path / "a.png").exists()
