"""The demo, small."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Run = Callable[..., Result]


def test_demo(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fgdeploy.demo.BACKBONE", "test_vit")
    flags = ["demo", "--folder", "d", "--species", "3", "--images", "4"]
    result = run(*flags)
    assert result.exit_code == 0, result.output
    assert "EET, pruned" in result.stdout
    assert "chance" in result.stdout
    assert {entry.name for entry in (tmp_path / "d").iterdir()} == {
        ".fgdeploy-demo",
        "photos",
        "dense.fgd",
        "eet.fgd",
        "gallery.fgi",
        "search.html",
    }
    again = run(*flags, "--json")
    report = json.loads(again.stdout)
    assert [step[0] for step in report["steps"]][-1] == "parity"


def test_demo_keeps_its_hands_off_other_folders(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("keep")
    result = run("demo", "--folder", "mine")
    assert result.exit_code == 1
    assert "mine was not made by the demo; choose another --folder" in result.stderr
    assert (tmp_path / "mine" / "a.txt").read_text() == "keep"
    assert run("demo", "--species", "1").exit_code == 2
