"""The demo, small; `make demo` runs it whole."""

from __future__ import annotations

import json
from pathlib import Path

from tests.fgdeploy.cli.conftest import Run

SMALL = ("--species", 3, "--images", 6, "--epochs", 2)


def test_demo(run: Run, tmp_path: Path) -> None:
    result = run("demo", "--folder", "d", *SMALL)
    assert result.exit_code == 0, result.output
    steps, _, scores = result.stdout.partition("\n\n")
    assert [line.split("  ")[0] for line in steps.splitlines()] == [
        "step",
        "draw",
        "train the teacher",
        "train the student",
        "export before.fgd",
        "export dense.fgd",
        "export eet.fgd",
        "index",
        "search",
        "evaluate before training, pruned, onnxruntime",
        "evaluate dense teacher, pytorch",
        "evaluate pruned student, pytorch",
        "evaluate dense teacher, onnxruntime",
        "evaluate pruned student, onnxruntime",
        "parity",
    ]
    title, header, *rows = scores.splitlines()
    assert title == "scores"
    assert header.split() == ["model", "runtime", "mAP", "R@1", "G", "MACs", "ms/photo"]
    assert rows[0].startswith("before training, pruned  onnxruntime ")
    assert [line.split()[:3] for line in rows[1:5]] == [
        ["dense", "teacher", "pytorch"],
        ["pruned", "student", "pytorch"],
        ["dense", "teacher", "onnxruntime"],
        ["pruned", "student", "onnxruntime"],
    ]
    assert rows[5].startswith("chance mAP is about 0.333; trained here on a small ViT")
    assert {entry.name for entry in (tmp_path / "d").iterdir()} == {
        ".fgdeploy-demo",
        "photos",
        "teacher",
        "student",
        "before.fgd",
        "dense.fgd",
        "eet.fgd",
        "gallery.fgi",
        "search.html",
    }
    again = run("demo", "--folder", "d", *SMALL, "--json")
    report = json.loads(again.stdout)
    assert [step[0] for step in report["steps"]][-1] == "parity"
    by_model = {(row[0], row[1]): row for row in report["scores"]}
    for model in ("dense teacher", "pruned student"):  # the export ranks as PyTorch does
        assert by_model[model, "pytorch"][2:4] == by_model[model, "onnxruntime"][2:4]


def test_demo_keeps_its_hands_off_other_folders(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("keep")
    result = run("demo", "--folder", "mine")
    assert result.exit_code == 1
    assert "mine was not made by the demo; choose another --folder" in result.stderr
    assert (tmp_path / "mine" / "a.txt").read_text() == "keep"
    assert run("demo", "--species", "1").exit_code == 2
    assert run("demo", "--images", "2").exit_code == 2
    assert run("demo", "--epochs", "0").exit_code == 2
