"""`fgdeploy calibrate` as a user types it, and one line for each way to get it wrong."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from fgdeploy.bundle import GRAPHS, MANIFEST, open_bundle, seal
from fgdeploy.core import atomic
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails

LENIENT = ("--min-bit-agreement", "0.8")
PLAIN = ("--range", "minmax", "--no-balance", "--no-compensate", *LENIENT)  # the fastest


@pytest.fixture
def here(run: Run, bundle: Path, many_moths: Path, tmp_path: Path) -> Path:
    """The working folder with one bundle and one folder of photos."""
    shutil.copytree(bundle, tmp_path / "eet.fgd")
    (tmp_path / "moths").symlink_to(many_moths)
    return tmp_path


def some(folder: Path, many_moths: Path, counts: dict[str, int]) -> Path:
    """A folder with so many photos of each class."""
    kinds = sorted(path for path in many_moths.iterdir() if path.is_dir())
    for (name, count), kind in zip(counts.items(), kinds, strict=False):
        (folder / name).mkdir(parents=True)
        for path in sorted(kind.iterdir())[:count]:
            shutil.copy(path, folder / name)
    return folder


def test_without_any_flags(run: Run, here: Path) -> None:
    done = run("calibrate", *LENIENT)
    assert done.exit_code == 0, done.output
    first, *_, last = done.stderr.splitlines()
    assert first == "photos to calibrate on: moths/split.csv, the only ones here"
    assert last == "next: fgdeploy build-engine eet.fgd --int8"
    rows = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in done.stdout.splitlines())
    assert rows["photos"] == "32 to calibrate on, 16 to check with"  # the train half only
    assert rows["range"] == "mse + balance + compensate"
    assert rows["int8 layers"] == "21 and the patch embedding"
    assert "of bits" in rows["int8"] and "mAP" in rows["int8"] and "of bits" in rows["fp16"]
    opened = open_bundle(here / "eet.fgd")
    files = set(opened.manifest.files)
    assert set(GRAPHS.values()) - files == {"model.fp8.onnx"}  # made when asked for
    assert {"calibration.json", "checks.npz"} <= files
    assert opened.manifest.calibration is not None
    assert opened.manifest.calibration["photos"] == 32

    before = {path: path.stat().st_mtime_ns for path in (here / "eet.fgd").iterdir()}
    again = run("calibrate", "--data", "moths/split.csv", *LENIENT)
    assert again.exit_code == 0, again.output
    assert "eet.fgd holds this very calibration already; --again makes it anew" in again.stderr
    assert {path: path.stat().st_mtime_ns for path in (here / "eet.fgd").iterdir()} == before


def test_json(run: Run, here: Path, many_moths: Path) -> None:
    flags = ("--data", many_moths, "--bundle", "eet.fgd", "--images", 24, *LENIENT)
    done = run("calibrate", *flags, "--range", "minmax", "--no-balance", "--json")
    assert done.exit_code == 0, done.output
    entry = json.loads(done.stdout)
    assert set(entry) == {
        *("range", "photos", "in_float", "bit_agreement", "map_drop", "limits", "first", "int8"),
        *("fp16", "fp8", "repair_latency_ms", "reused", "skipped", "warnings"),
        *("different", "variety"),
    }
    assert (entry["different"], entry["variety"]["photos"]) == (24, 72)
    assert 0.3 < entry["variety"]["distance"] < 0.5
    assert (entry["range"], entry["photos"], entry["in_float"]) == ("minmax", 24, [])
    assert entry["limits"] == {"min_bit_agreement": 0.8}
    assert entry["int8"]["photos"] == 72
    assert (
        entry["int8"]["bit_agreement"] == entry["bit_agreement"] == entry["first"]["bit_agreement"]
    )
    assert (entry["reused"], entry["skipped"]) == (False, [])
    assert len(entry["warnings"]) == 1 and entry["warnings"][0].startswith("only 24 photos")
    reused = json.loads(
        run("calibrate", *flags, "--range", "minmax", "--no-balance", "--json").stdout
    )
    assert (reused["reused"], reused["int8"]) == (True, None)


def test_limits_that_int8_cannot_keep(run: Run, here: Path) -> None:
    fails(
        run("calibrate", "--min-bit-agreement", "2"),
        2,
        "limit min_bit_agreement=2: expected a number from 0 to 1",
    )
    fails(run("calibrate", "--max-drop", "-1"), 2, "limit max_map_drop=-1: expected a number")
    assert sorted(os.listdir("eet.fgd")) == ["card.json", "head.npz", MANIFEST, "model.onnx"]


# --- photos


def test_no_photos_at_all(run: Run, here: Path, tmp_path: Path) -> None:
    (tmp_path / "moths").unlink()
    fails(run("calibrate"), 2, "no photos here to calibrate on; name real ones with --data")
    (tmp_path / "empty").mkdir()
    fails(run("calibrate", "--data", "empty"), 1, "no images in empty")
    fails(run("calibrate", "--data", "gone"), 1, "no folder, image or CSV at gone")


def test_several_places_with_photos(run: Run, here: Path, many_moths: Path) -> None:
    some(here / "birds", many_moths, {"a": 1})
    fails(run("calibrate"), 2, "photos lie in birds, moths/split.csv; name one with --data")


def test_too_few_photos(run: Run, here: Path, many_moths: Path) -> None:
    few = some(here / "few", many_moths, {"a": 4, "b": 3})
    fails(
        run("calibrate", "--data", few),
        1,
        "7 photos to calibrate on, expected at least 8, better 256; give --data more photos",
    )
    fails(
        run("calibrate", "--data", "moths", "--images", 7),
        2,
        "--images 7: ranges of fewer than 8 photos are chance; give 256",
    )
    assert sorted(os.listdir("eet.fgd")) == ["card.json", "head.npz", MANIFEST, "model.onnx"]


def test_few_photos_are_warned_of(run: Run, here: Path, many_moths: Path) -> None:
    few = some(here / "few", many_moths, {"a": 6, "b": 5})
    done = run("calibrate", "--data", few, *PLAIN)
    assert done.exit_code == 0, done.output
    (warning,) = (line for line in done.stderr.splitlines() if line.startswith("only "))
    assert warning.startswith("only 11 photos calibrate: ")
    assert warning.endswith("256 are better")


def test_one_class_is_warned_of(run: Run, here: Path, many_moths: Path) -> None:
    lone = some(here / "lone", many_moths, {"a": 16})
    done = run("calibrate", "--data", lone, *PLAIN)
    assert done.exit_code == 0, done.output
    assert "all photos to calibrate on are of one class (a): " in done.stderr
    assert "16 to calibrate on, 16 to check with" in done.stdout


def test_evaluation_photos_only(run: Run, here: Path, many_moths: Path) -> None:
    rows = (many_moths / "split.csv").read_text().splitlines()
    lines = [f"{many_moths}/{row}" for row in rows[1:] if row.endswith(",test")]
    Path("test.csv").write_text("\n".join([rows[0], *lines]) + "\n")
    fails(
        run("calibrate", "--data", "test.csv"),
        1,
        "the photos are all of split test, which accuracy is measured on; calibrate on training",
    )


def test_photos_that_cannot_be_read(run: Run, here: Path, many_moths: Path) -> None:
    mixed = some(here / "mixed", many_moths, {"a": 16, "b": 16, "c": 4})
    broken = sorted(mixed.rglob("*.jpg"))[5]
    broken.write_bytes(broken.read_bytes()[:300])
    (mixed / "a" / "text.jpg").write_text("text")
    raw = mixed / "c" / "raw.nef"
    raw.touch()
    fails(run("calibrate", "--data", mixed, "--strict", *PLAIN), 1, "raw.nef is raw camera data")
    raw.rename(mixed / "c" / ".raw.nef")
    fails(run("calibrate", "--data", mixed, "--strict", *PLAIN), 1, r"(text|\d).jpg is")
    (mixed / "c" / ".raw.nef").rename(raw)
    done = run("calibrate", "--data", mixed, *PLAIN)
    assert done.exit_code == 3, done.output
    for path in (broken, mixed / "a" / "text.jpg", raw):
        assert done.stderr.count(f"skipped: {path}") == 1
    assert done.stderr.splitlines()[-1].startswith("3 photos skipped")
    assert "model.int8.onnx" in open_bundle("eet.fgd").manifest.files


# --- bundles


def test_a_graph_that_is_quantised_already(run: Run, here: Path, calibrated: Path) -> None:
    folder = here / "twice.fgd"
    shutil.copytree(calibrated, folder)
    manifest = open_bundle(folder).manifest
    for name in ("calibration.json", "checks.npz", *GRAPHS.values()):
        if name not in ("model.onnx", "model.int8.onnx"):
            (folder / name).unlink(missing_ok=True)
    (folder / "model.int8.onnx").rename(folder / "model.onnx")
    seal(folder, manifest)
    fails(
        run("calibrate", "--bundle", folder, "--data", "moths"),
        1,
        "the graph is quantised already; calibrate the fp32 graph",
    )
    assert "model.int8.onnx" not in os.listdir(folder)


def test_a_calibration_of_another_graph_is_stale(run: Run, here: Path, calibrated: Path) -> None:
    folder = here / "stale.fgd"
    shutil.copytree(calibrated, folder)
    manifest = open_bundle(folder).manifest
    graph = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(graph + b"\x3a\x00")  # an empty graph to be merged in
    seal(folder, manifest)
    command = ("calibrate", "--bundle", folder, "--data", "moths", *PLAIN)
    fails(run(*command), 1, r"calibration\.json is stale: .*; run: fgdeploy calibrate --again")
    again = run(*command, "--again")
    assert again.exit_code == 0, again.output
    assert run(*command).exit_code == 0


def test_mistakes_in_flags(run: Run, here: Path) -> None:
    fails(run("calibrate", "--range", "max"), 2, "no range 'max'; choose mse, minm")
    fails(run("calibrate", "--method", "max"), 2, "no range 'max'; choose mse, minm")
    two = ("--range", "minmax", "--method", "entropy")
    fails(run("calibrate", *two), 2, "--range minmax and --method entropy name two; give --range")
    two = ("--max-map-drop", "1", "--max-drop", "2")
    fails(run("calibrate", *two), 2, "--max-map-drop 1 and --max-drop 2 name two limits; give")
    fails(run("calibrate", "--bundle", "no.fgd", "--data", "moths"), 1, "no.fgd does not exist")
    assert run("calibrate", "--images", "many").exit_code == 2
    shutil.copytree("eet.fgd", "two.fgd")
    fails(run("calibrate"), 2, r"2 bundles \(eet.fgd, two.fgd\) in this folder")


# --- what machines do


@pytest.mark.parametrize(
    ("number", "pattern"),
    [
        (errno.ENOSPC, "No space left on device; free some space, or write elsewhere"),
        (errno.EROFS, "Read-only file system; choose a place that can be written"),
    ],
)
def test_a_disk_that_is_full_or_read_only(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch, number: int, pattern: str
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    before = open_bundle("eet.fgd")
    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", refuse)
        fails(run("calibrate", "--data", "moths", *PLAIN), 1, pattern)
    assert open_bundle("eet.fgd") == before
    assert sorted(os.listdir("eet.fgd")) == ["card.json", "head.npz", MANIFEST, "model.onnx"]


def test_a_bundle_that_may_not_be_written(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(atomic, "open", refuse, raising=False)
    result = run("calibrate", "--data", "moths", *PLAIN)
    fails(result, 1, r"error: eet\.fgd/manifest\.json: Permission denied; choose a place that can")


@pytest.mark.parametrize("command", [["calibrate"], ["build-engine", "--int8"]], ids=" ".join)
def test_without_the_onnx_package(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "fgdeploy.calibration.calibrator")
    fails(
        run(*command, "--data", "moths"),
        1,
        'calibrating needs the package onnx, .* run: pip install "fgdeploy\\[calibrate\\]"$',
    )


def test_ctrl_c(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fgdeploy.calibration import calibrator

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(calibrator.qdq, "write", interrupt)
    result = run("calibrate", "--data", "moths")
    assert result.exit_code == 130
    assert sorted(os.listdir("eet.fgd")) == ["card.json", "head.npz", MANIFEST, "model.onnx"]
