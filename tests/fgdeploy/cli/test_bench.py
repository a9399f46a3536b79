"""`fgdeploy bench`: what it times, how it says so, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails

QUICK = ("--rounds", 1, "--seconds", 0.001, "--threads", 1, "--no-peaks")


def test_bundles_and_a_file_side_by_side(run: Run, bundle: Path) -> None:
    shutil.copytree(bundle, "eet.fgd")
    shutil.copy(bundle / "model.onnx", "alone.onnx")
    engines = ("--engine", "openvino", "--engine", "onnxruntime:int8")
    done = run("bench", "eet.fgd", "alone.onnx", *engines, *QUICK, "--batch", "1,2")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split()[:4] == ["contender", "batch", "p50", "ms"]
    names = [line.rsplit(None, 10)[0].split()[:2] for line in lines[1:5]]
    assert names[0] == ["eet", "openvino:fp32"]
    assert "ratio: against eet openvino:fp32" in lines
    assert any(line.startswith("not run: eet onnxruntime:int8: eet.fgd holds") for line in lines)


def test_the_only_bundle_as_json(run: Run, bundle: Path) -> None:
    shutil.copytree(bundle, "eet.fgd")
    done = run("bench", *QUICK, "--json", "--base", "bf16")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    names = [one["name"] for one in found["contenders"]]
    assert names[:2] == ["eet onnxruntime:fp32", "eet openvino:fp32"]
    assert {"machine", "versions", "threads", "rounds", "not_run", "peaks"} <= set(found)
    assert found["versions"]["onnxruntime"]
    for one in found["contenders"]:
        assert one["macs"] > 1e6
        assert one["peak_mib"] > 10
        assert [entry["batch"] for entry in one["batches"]] == [1, 8]
        for entry in one["batches"]:
            parts = [entry[f"p{part}_ms"] for part in (50, 90, 95, 99)]
            assert sorted(parts) == parts
            assert entry["calls"] >= 10
            assert entry["ratio"] > 0


def test_photos_give_frames_accuracy_and_a_picture(run: Run, bundle: Path, moths: Path) -> None:
    words = ("bench", bundle, "--engine", "onnxruntime", *QUICK, "--data", moths)
    done = run(*words, "--plot", "a.png", "--batch", 2)
    assert done.exit_code == 0, done.output
    assert "100.00% of bits" in done.stdout
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "code", "pattern"),
    [
        ((), 2, "no bundle in this folder"),
        (("none.fgd",), 1, "none.fgd does not exist"),
        (("none.onnx",), 1, "none.onnx is not readable"),
        (("B", "--batch", "0"), 2, "--batch 0: expected a whole number of 1 or more"),
        (("B", "--batch", "5000"), 2, "--batch 5000: expected sizes from 1 to 4096"),
        (("B", "--engine", "abacus"), 2, "no backend 'abacus'"),
        (("B", "--engine", "openvino:int3"), 2, "no precision 'int3'"),
        (("B", "--threads", "0"), 2, "--threads 0"),
        (("B", "--against", "jax"), 2, "--against jax: choose timm, timm-compile, ort, openvino"),
        (("B", "--against", "timm", "--device", "tpu"), 2, "--device tpu: choose cpu or cuda"),
        (("B", "--plot", "x.jpg"), 2, "ends in .png or .svg"),
        (("B", "--base", "slow"), 2, "--base slow: none of the contenders; choose eet onnx"),
        (("B/model.onnx", "--against", "ort"), 2, "--against takes the backbone"),
        (("B/manifest.json",), 1, "manifest.json is no bundle and no whole ONNX graph"),
    ],
)
def test_mistakes(run: Run, bundle: Path, words: tuple[str, ...], code: int, pattern: str) -> None:
    if words:
        shutil.copytree(bundle, "eet")
    fails(run("bench", *(word.replace("B", "eet", 1) for word in words)), code, pattern)


def test_nothing_runs(run: Run, bundle: Path) -> None:
    done = run("bench", bundle, "--engine", "onnxruntime:int8", *QUICK)
    fails(done, 1, "nothing could be timed here: eet onnxruntime:int8: .* no int8 graph")
