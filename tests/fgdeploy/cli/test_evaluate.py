"""`fgdeploy eval`: protocols side by side, JSON, and the report."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgdeploy.bundle import open_bundle, seal
from fgdeploy.evaluation.targets import TARGETS_FILE, Targets
from fgdeploy.photos import read
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails

SCORES = {"queries", "gallery", "map", "tie_aware_map", "recall", "precision", "without_relevant"}


@pytest.fixture
def with_targets(bundle: Path, moths: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that brings target codes of the classes of `moths`."""
    copy = Path(shutil.copytree(bundle, tmp_path / "targets.fgd"))
    classes = np.array(sorted(folder.name for folder in moths.iterdir() if folder.is_dir()))
    codes = np.random.default_rng(0).integers(0, 256, (6, 4), dtype=np.uint8)
    Targets(classes, np.arange(6) % len(classes), codes, 32).save(copy / TARGETS_FILE)
    seal(copy, open_bundle(copy).manifest)
    return copy


def _named(source: Path, target: Path, *names: str) -> Path:
    """Copy a bundle with logits, and give its six classes these names."""
    copy = Path(shutil.copytree(source, target))
    seal(copy, dataclasses.replace(open_bundle(copy).manifest, classes=names))
    return copy


def columns(stdout: str) -> list[str]:
    return stdout.splitlines()[1].split()[1:]


def test_three_columns_with_targets(run: Run, moths: Path, with_targets: Path) -> None:
    result = run("eval", moths / "split.csv", "-b", with_targets, "--precision-at", "1,5")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert (
        lines[0]
        == "9 test photos against 9 train photos, 32 bits, onnxruntime fp32 (from model.onnx)"
    )
    assert columns(result.stdout) == ["asym_targets", "asym_sign", "symmetric"]
    names = [line[: len("mAP, ties averaged")].strip() for line in lines[2:]]
    assert names == ["mAP", "mAP, ties averaged", "R@1", "R@2", "R@4", "R@8", "P@1", "P@5"]
    for line in lines[2:]:
        assert [0 <= float(cell) <= 1 for cell in line.split()[-3:]] == [True] * 3
    assert "no asym_targets" not in result.stderr


def test_two_columns_without(run: Run, moths: Path, bundle: Path) -> None:
    result = run("eval", moths / "split.csv", "-b", bundle)
    assert result.exit_code == 0
    assert columns(result.stdout) == ["asym_sign", "symmetric"]
    reasons = [line for line in result.stderr.splitlines() if line.startswith("no ")]
    assert reasons == ["no asym_targets: the model brings no target codes (targets.npz)"]


def test_one_column_without_splits(run: Run, moths: Path, with_targets: Path) -> None:
    result = run("eval", moths, "-b", with_targets)
    assert columns(result.stdout) == ["symmetric"]
    assert result.stderr == ""


def test_targets_of_other_classes(run: Run, moths: Path, with_targets: Path) -> None:
    manifest = open_bundle(with_targets).manifest
    targets = Targets(np.array(["owl"]), np.zeros(2, np.int64), np.zeros((2, 4), np.uint8), 32)
    targets.save(with_targets / TARGETS_FILE)
    seal(with_targets, manifest)
    result = run("eval", moths / "split.csv", "-b", with_targets)
    assert columns(result.stdout) == ["asym_sign", "symmetric"]
    assert "no asym_targets: none of the 1 class in targets.npz" in result.stderr


def test_json_keeps_its_keys_and_adds_protocols(run: Run, moths: Path, with_targets: Path) -> None:
    result = run("eval", moths / "split.csv", "-b", with_targets, "--json")
    entry = json.loads(result.stdout)
    assert set(entry) == SCORES | {"bits", "protocol", "skipped", "protocols", "accuracy"}
    assert entry["accuracy"] is None
    assert list(entry["protocols"]) == ["asym_targets", "asym_sign", "symmetric"]
    assert all(set(scores) == SCORES for scores in entry["protocols"].values())
    assert {key: entry[key] for key in SCORES} == entry["protocols"]["asym_sign"]
    assert [scores["gallery"] for scores in entry["protocols"].values()] == [6, 9, 8]
    assert len(result.stdout) < 2000


def test_report(run: Run, moths: Path, with_targets: Path, tmp_path: Path) -> None:
    command = ("eval", moths / "split.csv", "-b", with_targets, "--report", "report")
    result = run(*command, "--json")
    assert result.exit_code == 0, result.output
    files = sorted(path.name for path in (tmp_path / "report").iterdir())
    curves = [f"curve_{name}.csv" for name in ("asym_sign", "asym_targets", "symmetric")]
    assert files == [*curves, "per_class.csv", "pr_curve.png"]
    with Image.open(tmp_path / "report" / "pr_curve.png") as image:
        image.verify()
    with open(tmp_path / "report" / "per_class.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 9
    scores = json.loads(result.stdout)["protocols"]
    for name in scores:
        own = [row for row in rows if row["protocol"] == name]
        mean = sum(int(row["queries"]) * float(row["map"]) for row in own) / 9
        assert mean == pytest.approx(scores[name]["map"], abs=1e-12)
    assert run(*command).exit_code == 0  # over the old one


def test_report_where_none_can_be(
    run: Run, moths: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    for place in ("no/report", "file"):
        result = run("eval", moths, "-b", bundle, "--report", place)
        assert result.exit_code == 1
        assert result.stderr == (
            f"error: --report {place}: expected a folder, or a new name in one that exists\n"
        )
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run("eval", moths, "-b", bundle, "--report", "report")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: drawing the PR curve needs the package matplotlib,")
    assert not (tmp_path / "report").exists()


def test_eval(run: Run, moths: Path, bundle: Path) -> None:
    split = json.loads(run("eval", moths / "split.csv", "-b", bundle, "--json").stdout)
    assert (split["queries"], split["gallery"]) == (9, 9)
    assert set(split["recall"]) == {"1", "2", "4", "8"}
    assert 0 < split["map"] <= 1
    whole = run("eval", moths, "-b", bundle, "--precision-at", "1,5")
    assert whole.exit_code == 0
    assert "each of 18 photos against all others, 32 bits" in whole.stdout
    assert "P@5" in whole.stdout
    fails(
        run("eval", moths, "-b", bundle, "--precision-at", "x"),
        2,
        "--precision-at x: expected",
    )
    lonely = sorted(moths.iterdir())[0]
    fails(run("eval", lonely, "-b", bundle), 1, "all photos are of one class")
    fails(
        run("eval", moths / "split.csv", "-b", bundle, "--queries", "val"), 1, "no photos of split"
    )


def test_accuracy_of_class_logits(
    run: Run, moths: Path, naming_bundle: Path, tmp_path: Path
) -> None:
    kinds = sorted(folder.name for folder in moths.iterdir() if folder.is_dir())
    named = _named(naming_bundle, tmp_path / "n.fgd", *kinds[:2], "a", "b", "c", "d")
    given = run("eval", moths / "split.csv", "-b", named, "--report", "report", "--json")
    assert given.exit_code == 0, given.output
    entry = json.loads(given.stdout)["accuracy"]
    assert set(entry) == {"queries", "top1", "top5", "without_class"}
    with open("report/accuracy.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == kinds[:2]
    assert sum(int(row["queries"]) for row in rows) == entry["queries"] == 6
    for name in ("top1", "top5"):
        mean = sum(int(row["queries"]) * float(row[name]) for row in rows) / 6
        assert mean == pytest.approx(entry[name], abs=1e-12)
    assert entry["without_class"] == 3
    said = f"accuracy: 3 queries of 1 class that the model does not have left out: {kinds[2]}"
    assert said in given.stderr
    shown = run("eval", moths / "split.csv", "-b", named).stdout.splitlines()
    title = shown.index("by class logits, 6 queries")
    assert shown[title + 1].split() == ["measure", "share"]
    assert [line.split()[-1] for line in shown[title + 2 :]] == [
        f"{entry[name]:.4f}" for name in ("top1", "top5")
    ]
    answers = run("classify", moths / "split.csv", "-b", named, "--json", "-k", "1").stdout
    test = {str(photo.path) for photo in read(moths / "split.csv") if photo.split == "test"}
    found = [json.loads(line) for line in answers.splitlines()]
    right = [
        one["label"] == one["classes"][0]["name"]
        for one in found
        if one["photo"] in test and one["label"] in kinds[:2]
    ]
    assert sum(right) / len(right) == entry["top1"]


def test_no_accuracy_without_names(
    run: Run, moths: Path, naming_bundle: Path, bundle: Path, tmp_path: Path
) -> None:
    nameless = _named(naming_bundle, tmp_path / "n.fgd")
    result = run("eval", moths, "-b", nameless, "--report", "report")
    assert result.exit_code == 0
    assert "no accuracy: the bundle does not name its classes" in result.stderr
    assert "by class logits" not in result.stdout
    assert not (tmp_path / "report" / "accuracy.csv").exists()
    foreign = run("eval", moths, "-b", naming_bundle, "--json")
    assert json.loads(foreign.stdout)["accuracy"] is None
    assert "no accuracy: none of the photos' classes, such as " in foreign.stderr
    assert "accuracy" not in run("eval", moths, "-b", bundle).output
