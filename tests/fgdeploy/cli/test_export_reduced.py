"""A bundle of a token reduction through every command that takes one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fgdeploy.core.text import counted
from tests.fgdeploy.cli.conftest import Run

FLAGS = ("--backbone", "test_vit", "--weights", "random", "--image-size", "64", "--no-time")


def test_clca_through_all_commands(run: Run, moths: Path, tmp_path: Path) -> None:
    def well(*words: object) -> str:
        done = run(*words)
        assert done.exit_code == 0, done.output
        return done.stdout

    options = ("--set", "reduction=tome", "--set", "keep_rate=0.4")
    exported = run("export", "--method", "clca", *options, *FLAGS, "--bits", 32, "--head", "lsh")
    assert exported.exit_code == 0, exported.output
    assert "ToMe merges at most half" in exported.stderr
    assert "as published" in exported.stdout and "as fast" not in exported.stdout
    manifest = json.loads(well("inspect", "--json"))
    assert manifest["method"] == "clca" and manifest["options"]["reduction"] == "tome"
    assert manifest["graph"]["pins"] == ["steps.*select/*"]
    assert manifest["outputs"]["embedding"]["shape"] == [2 * 64]
    shown = well("inspect")
    assert "token rows through the blocks" in shown and "tome" in shown
    assert json.loads(well("parity", moths, "--reference", "pytorch", "--json"))["breaches"] == []
    pytest.importorskip("openvino")
    well("build-engine", "--fp32", "--backend", "openvino", "--no-time", "--data", moths)
    well("pack", "-o", "clca.fgdz")
    well("unpack", "clca.fgdz", "-o", "again.fgd")
    well("hash", moths, "-b", "again.fgd", "-o", "codes.npz")
    assert counted(18, "photo") in run("index", "add", "g.fgi", moths, "-b", "again.fgd").output
    photo = next(moths.rglob("*.jpg"))
    found = json.loads(well("search", photo, "-i", "g.fgi", "-b", "again.fgd", "-k", 3, "--json"))
    assert found["hits"][0]["distance"] == 0
    scores = json.loads(well("eval", moths / "split.csv", "-b", "again.fgd", "--json"))
    assert scores
