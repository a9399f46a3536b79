"""`fgdeploy train` from a shell: what it prints, and one line for every bad input."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import Result

from tests.fgdeploy.cli.conftest import Run

SMALL = (
    *("--backbone", "test_vit", "--weights", "random", "--image-size", 64),
    *("--stages", "2:8,4:4", "--bits", 16, "--epochs", 1, "--batch", 4),
)


@pytest.fixture
def table(moths: Path) -> Path:
    """Return the CSV of the drawn photos."""
    return moths / "split.csv"


def _one_line(result: Result, code: int) -> str:
    assert result.exit_code == code, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.output
    return lines[0]


def test_train_then_export_then_eval(run: Run, table: Path) -> None:
    trained = run("train", table, *SMALL)
    assert trained.exit_code == 0, trained.output
    header, *rows = trained.stdout.splitlines()
    assert header.split()[:3] == ["network", "protocol", "mAP"]
    assert [row.split()[:2] for row in rows] == [
        ["student", name] for name in ("asym_targets", "asym_sign", "symmetric")
    ]
    assert "eet, recipe fast: 9 photos of 3 classes, 16 bits, 1 epoch of 3 steps" in trained.stderr
    assert "epoch 1: loss" in trained.stderr
    told = trained.stderr.splitlines()[-3:]
    assert told[0].startswith("training photos, student: ")
    assert " of bits and " in told[0] and "as a gallery they rank " in told[0]
    assert told[1].startswith("advice: the codes of the training photos are not learned yet")
    assert trained.stderr.splitlines()[-1] == (
        "wrote eet-run/model.safetensors; next: fgdeploy export eet-run -o eet-run.fgd"
    )
    page = run("report", "eet-run")
    assert page.exit_code == 0, page.output
    assert "Report of the training eet-run" in Path("report.html").read_text(encoding="utf-8")
    assert json.loads(run("report", "eet-run", "--json").stdout)["headline"] == "asym_sign"
    refused = _one_line(run("report", "eet-run", "--data", table), 2)
    assert "eet-run is a training; --data, --index and --backend are of bundles" in refused
    exported = run("export", "--no-time", "eet-run/model.safetensors", "-o", "eet-run.fgd")
    assert exported.exit_code == 0, exported.output
    scored = run("eval", table, "--json")
    assert scored.exit_code == 0, scored.output
    protocols = json.loads(scored.stdout)["protocols"]
    assert set(protocols) == {"asym_targets", "asym_sign", "symmetric"}


def test_json(run: Run, table: Path) -> None:
    result = run("train", table, *SMALL, "--json", "-o", "r")
    entry = json.loads(result.stdout)
    assert entry["weights"] == "r/model.safetensors"
    assert entry["skipped"] == []
    assert 0 <= entry["scores"]["student"]["asym_sign"]["map"] <= 1
    assert 0 <= entry["training_photos"]["student"]["bits_equal"] <= 1
    assert entry["advice"].endswith("--epochs 2")


def test_a_folder_of_classes_holds_out_a_part(run: Run, moths: Path, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    shutil.copytree(moths, root)
    (root / "split.csv").unlink()
    result = run("train", root, *SMALL, "--val-fraction", 0.5, "-o", "r")
    assert result.exit_code == 0, result.output
    assert "9 photos of 3 classes" in result.stderr
    nothing = run("train", root, *SMALL, "--holdout", 0, "-o", "s")
    assert nothing.exit_code == 0, nothing.output
    assert "no photos were held out" in nothing.stderr
    twice = run("train", root, *SMALL, "--val-fraction", 0.5, "--holdout", 0.5, "-o", "t")
    assert "--holdout is the older name of --val-fraction" in _one_line(twice, 2)
    assert "--holdout" not in run("train", "--help").stdout


def test_folds(run: Run, moths: Path, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    shutil.copytree(moths, root)
    (root / "split.csv").unlink()
    result = run("train", root, *SMALL, "--folds", 2, "-o", "r")
    assert result.exit_code == 0, result.output
    header, *rows = result.stdout.splitlines()
    assert header.split()[:2] == ["protocol", "mAP"]
    assert [row.split()[0] for row in rows] == ["asym_targets", "asym_sign", "symmetric"]
    assert all(row.count("±") == 3 for row in rows)
    assert "mean and spread over 2 folds; the model learned from all photos" in result.stderr
    again = run("train", root, *SMALL, "--folds", 2, "-o", "r", "--resume", "--json")
    held = json.loads(again.stdout)["folds"]
    assert held["count"] == 2 and f"{held['protocols']['symmetric']['map']['mean']:.4f}" in rows[2]
    assert run("report", "r").exit_code == 0
    shown = Path("report.html").read_text(encoding="utf-8")
    assert f"{held['protocols']['symmetric']['map']['mean']:.4f} ±" in shown
    table = _one_line(run("train", moths / "split.csv", *SMALL, "--folds", 2, "-o", "t"), 2)
    assert "says itself which photos train" in table


def test_unreadable_photos_end_with_3_or_stop(run: Run, moths: Path, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    shutil.copytree(moths, root)
    (root / "split.csv").unlink()
    broken = sorted(root.glob("*/0000.jpg"))[0]
    broken.write_bytes(broken.read_bytes()[:900])
    result = run("train", root, *SMALL, "-o", "r")
    assert result.exit_code == 3
    named = [line for line in result.stderr.splitlines() if line.startswith("skipped: ")]
    assert len(named) == 1
    assert str(broken) in named[0]
    assert "1 photo skipped (--strict stops at the first)" in result.stderr
    assert (tmp_path / "r" / "model.safetensors").is_file()
    assert str(broken) in _one_line(run("train", root, *SMALL, "-o", "s", "--strict"), 1)


@pytest.mark.parametrize(
    "flags,code,words",
    [
        (["--recipe", "none"], 2, "choose fast, paper"),
        (["--without", "dkt"], 2, "has the parts"),
        (["--bits", "7"], 2, "8"),
        (["--stages", "9:4"], 2, "below 6"),
        (["--weights", "missing.pth"], 2, "no such file"),
        (["--teacher", "missing.pth"], 1, "no checkpoint at"),
        (["--image-size", "63"], 2, "no multiple"),
        (["--precision", "fp8"], 2, "choose auto, fp32, bf16, fp16"),
        (["--resume"], 1, "no run in eet-run to resume"),
        (["-o", "no/such/place"], 1, "no folder no/such"),
        (["--lr", "1e30", "--recipe", "paper", "--epochs", "6", "--warmup", "0"], 1, "lower --lr"),
    ],
)
def test_bad_options(run: Run, table: Path, flags: list[str], code: int, words: str) -> None:
    given = [str(word) for word in SMALL]
    for flag in flags[::2]:
        if flag in given:
            del given[given.index(flag) : given.index(flag) + 2]
    assert words in _one_line(run("train", table, *given, *flags), code)


def test_bad_data(run: Run, table: Path, tmp_path: Path) -> None:
    assert "no folder, image or CSV" in _one_line(run("train", "nowhere", *SMALL), 1)
    (tmp_path / "list.csv").write_text("path,class\nnone.jpg,a\n")
    assert "line 2: no file 'none.jpg'" in _one_line(run("train", "list.csv", *SMALL), 1)
    (tmp_path / "empty").mkdir()
    assert "no images in empty" in _one_line(run("train", "empty", *SMALL), 1)


def test_without_torch_the_extra_is_named(
    run: Run, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fgdeploy.training.trainer", None)
    assert 'pip install "fgdeploy[train]"' in _one_line(run("train", table), 1)


@pytest.mark.slow
def test_ctrl_c_keeps_the_state_and_exits_with_130(table: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fgdeploy", "train", str(table), *map(str, SMALL), "-o", "r"]
    command[command.index("--epochs") + 1] = "500"
    child = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        until = time.monotonic() + 120
        while not (tmp_path / "r" / "log.csv").is_file() and time.monotonic() < until:
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=120)
    finally:
        child.kill()
    assert child.returncode == 130, said.decode()
    lines = said.decode().splitlines()
    assert lines[-2:] == [
        "the state is kept in r; go on with the same command and --resume",
        "interrupted",
    ]
    assert (tmp_path / "r" / "state.pt").is_file()
    assert not (tmp_path / "r" / "model.safetensors").exists()
