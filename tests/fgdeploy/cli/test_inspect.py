"""`fgdeploy inspect` as a user types it, and bundles that are damaged."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fgdeploy.bundle import open_bundle, seal
from fgdeploy.engines import build
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails


def test_classes_where_the_graph_gives_logits(
    run: Run, naming_bundle: Path, toy_bundle: Path, tmp_path: Path
) -> None:
    assert "classes      6, such as kind 0\n" in run("inspect", naming_bundle).stdout
    assert "classes" not in run("inspect", toy_bundle).stdout
    nameless = Path(shutil.copytree(naming_bundle, tmp_path / "n.fgd"))
    seal(nameless, dataclasses.replace(open_bundle(nameless).manifest, classes=()))
    assert "classes      6, without names\n" in run("inspect", nameless).stdout


def test_inspect(run: Run, bundle: Path) -> None:
    shown = run("inspect", bundle)
    assert shown.exit_code == 0
    for text in ("test_vit (6 blocks, width 64)", "4x4 + 1 tokens", "2:8, 4:4", "published"):
        assert text in shown.stdout
    table = shown.stdout.partition("token rows through the blocks\n")[2].partition("\n\n")[0]
    assert [line.split() for line in table.splitlines()][-6:] == [
        ["1", "17", "17", "17"],
        ["2", "17", "17", "9"],
        ["3", "9", "9", "9"],
        ["4", "9", "9", "5"],
        ["5", "5", "5", "5"],
        ["6", "5", "1", "1"],
    ]
    assert json.loads(run("inspect", bundle, "--json").stdout)["bits"] == 32


def test_inspect_says_what_engines_compute(run: Run, toy_bundle: Path, tmp_path: Path) -> None:
    built = Path(shutil.copytree(toy_bundle, tmp_path / "t.fgd"))
    assert "engines that were built" not in run("inspect", built).stdout
    for backend in ("onnxruntime", "openvino"):
        build(open_bundle(built), backend, "fp32")
    (built / "engines" / "torn").mkdir()
    table = run("inspect", built).stdout.partition("engines that were built\n")[2]
    lines = [line.split(maxsplit=1) for line in table.partition("\n\n")[0].splitlines()]
    found = {name: words for name, words in lines if ":" in name or name == "torn"}
    assert found["onnxruntime:fp32"].endswith("products in float32")
    assert found["openvino:fp32"].endswith("products in float32")
    assert "engine.json" in found["torn"]


def test_inspect_counts_blocks_that_do_the_same_together(run: Run, tmp_path: Path) -> None:
    flags = ["--backbone", "test_vit", "--weights", "random", "--image-size", "64"]
    result = run("export", "--no-time", *flags, "--head", "lsh", "--set", "stages=3:8")
    assert result.exit_code == 0, result.output
    table = run("inspect").stdout.partition("token rows through the blocks\n")[2]
    assert [line.split() for line in table.partition("\n\n")[0].splitlines()][-4:] == [
        ["1-2", "17", "17", "17"],
        ["3", "17", "17", "9"],
        ["4-5", "9", "9", "9"],
        ["6", "9", "1", "1"],
    ]


@pytest.mark.parametrize(
    ("damage", "pattern"),
    [
        (lambda b: (b / "model.onnx").write_bytes(b""), r"model.onnx: expected \d+ bytes, got 0"),
        (lambda b: (b / "manifest.json").unlink(), "lacks manifest.json"),
        (lambda b: (b / "manifest.json").write_text("{"), "manifest.json is not JSON"),
        (lambda b: (b / "model.onnx").unlink(), "lacks model.onnx"),
    ],
)
def test_damaged_bundles(run: Run, bundle: Path, damage: Any, pattern: str) -> None:
    shutil.copytree(bundle, "bad.fgd")
    damage(Path("bad.fgd"))
    fails(run("inspect"), 1, pattern)
    Path("a.png").write_bytes(b"")
    fails(run("hash", "."), 1, pattern)


def test_inspect_prints_the_bill_of_materials(run: Run, toy_bundle: Path, tmp_path: Path) -> None:
    fails(run("inspect", toy_bundle, "--sbom"), 1, "no engine in .* says what it was built with")
    built = shutil.copytree(toy_bundle, tmp_path / "built.fgd")
    build(open_bundle(built), "onnxruntime", "fp32")
    bill = json.loads(run("inspect", built, "--sbom").stdout)
    assert bill["specVersion"] == "1.6" and bill["metadata"]["component"]["name"] == "built.fgd"
    assert {"onnxruntime", "onnxruntime:fp32"} <= {one["name"] for one in bill["components"]}
