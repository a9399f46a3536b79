"""`fgdeploy build-engine` as a user types it, and one line for each way to get it wrong."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgdeploy.bundle import MANIFEST, open_bundle
from fgdeploy.core import atomic, machine
from fgdeploy.core.codes import CodeFile
from fgdeploy.core.errors import EngineError
from fgdeploy.engines import backends, find, openvino
from fgdeploy.engines.onnxruntime import OnnxRuntimeEngine
from fgdeploy.engines.openvino import OpenVinoEngine
from fgdeploy.proof import bench
from fgdeploy.proof.contenders import Contender, Turn
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails

QUICK = ("build-engine", "--int8", "--no-time", "--batch", "1")
LENIENT = ("--min-bit-agreement", "0.8")
PARITY = {
    *("photos", "max_hash_diff", "mean_hash_diff", "mean_cosine", "min_cosine", "bit_agreement"),
    *("identical_codes", "clear_bits_differ", "top10_overlap", "map_reference", "map_candidate"),
    *("map_drop", "output_errors", "top1_agreement"),
}


@pytest.fixture
def fresh(run: Run, bundle: Path, many_moths: Path, tmp_path: Path) -> Path:
    """The working folder with a bundle that nobody calibrated and a folder of photos."""
    shutil.copytree(bundle, tmp_path / "eet.fgd")
    (tmp_path / "moths").symlink_to(many_moths)
    return tmp_path


@pytest.fixture
def here(run: Run, calibrated: Path, many_moths: Path, tmp_path: Path) -> Path:
    """The working folder with a calibrated bundle and a folder of photos."""
    shutil.copytree(calibrated, tmp_path / "eet.fgd")
    (tmp_path / "moths").symlink_to(many_moths)
    return tmp_path


@pytest.fixture
def openvino_int8() -> None:
    """Skip by name where OpenVINO's INT8 is refused."""
    try:
        OpenVinoEngine.check_arithmetic("int8")
    except EngineError as error:
        pytest.skip(str(error))


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let OpenVINO's INT8 take 2 ms a frame, and all others 8."""

    def apart(contender: Contender, threads: int | None, seconds: float) -> Turn:
        ms = 2.0 if contender.name == "openvino:int8" else 8.0
        times = {batch: [batch * ms] * 10 for batch in contender.batches}
        return Turn(times, {}, dict.fromkeys(times, 0.0), 99.0, contender.name)

    monkeypatch.setattr(bench, "measure_apart", apart)


def engines() -> list[str]:
    found = find(open_bundle("eet.fgd"))
    return [f"{one.record.backend}:{one.record.precision}" for one in found if one.record]


# --- the way through


@pytest.mark.usefixtures("openvino_int8", "timed")
def test_from_a_bundle_and_photos_to_int8(run: Run, fresh: Path) -> None:
    assert run("calibrate", "--data", "moths/split.csv", *LENIENT).exit_code == 0
    done = run("build-engine", "--int8")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("built eet.fgd/engines/openvino-int8-")
    assert lines[0].endswith(
        "the fastest here: onnxruntime:int8 8.0 ms, openvino:int8 2.0 ms at batch 1"
    )
    assert lines[1].startswith("against fp32: ") and lines[1].endswith("on 16 photos")
    assert lines[2].startswith("photos: 16 photos, 16 different, codes ")
    assert lines[3] == (
        "limits: 60 % of bits: 80 % of bits, widened for 16 photos (limits are set for 1,024)"
    )
    assert lines[4].startswith("against the calibrated INT8: ")
    assert lines[4].endswith("of codes equal; limit 80 % of bits, never widened")
    assert lines[5].split()[:4] == ["engine", "p50", "ms,", "batch"]
    assert ["openvino:int8", "2.00", "2.00", "500.0"] in [line.split()[:4] for line in lines]
    assert lines[-2].startswith("int8 is 4.0x as fast as ")
    assert lines[-1].startswith("runs by default: openvino:int8, fastest of 1 built for this mach")
    assert done.stderr.splitlines() == [
        "compiling onnxruntime int8",
        "compiling openvino int8",
        "next: fgdeploy hash PHOTOS --bundle eet.fgd",
    ]
    assert engines() == ["openvino:int8"]

    hashed = run("hash", "moths", "-o", "codes.npz")
    assert hashed.exit_code == 0, hashed.output
    assert "openvino int8 (compiled here), fastest of 1 built for this machine" in hashed.stderr
    assert CodeFile.load(Path("codes.npz")).codes.shape == (96, 4)
    scored = run("eval", "moths/split.csv")
    assert scored.exit_code == 0, scored.output
    assert "openvino int8 (compiled here)" in scored.stdout
    assert run("hash", "moths", "-o", "fp32.npz", "--backend", "openvino:fp32").exit_code == 0
    left, right = (CodeFile.load(Path(name)).codes for name in ("codes.npz", "fp32.npz"))
    assert not np.array_equal(left, right)
    assert np.unpackbits(left ^ right).mean() < 0.1
    held = run("parity", "moths", "--candidate", "openvino:int8", "--min-bit-agreement", "0.8")
    assert "openvino:int8 against onnxruntime:fp32 on 96 photos" in held.stdout
    assert run("inspect").exit_code == 0


@pytest.mark.usefixtures("openvino_int8", "timed")
def test_int8_calibrates_where_nothing_is_calibrated(run: Run, fresh: Path) -> None:
    done = run("build-engine", "--int8", *LENIENT, "--batch", "4,1,4", "--json")
    assert done.exit_code == 0, done.output
    assert "photos to calibrate on: moths/split.csv, the only ones here" in done.stderr
    entry = json.loads(done.stdout)
    assert set(entry) == {
        *("engine", "name", "bytes", "reason", "refused", "parity", "limits", "speeds"),
        *("variety", "default", "default_why", "verdict", "limits_why", "int8_codes"),
    }
    assert entry["name"] == "openvino:int8"
    assert Path(entry["engine"]).parent == Path("eet.fgd/engines")
    assert entry["bytes"] == (Path(entry["engine"]) / "engine.blob").stat().st_size
    assert set(entry["parity"]) == PARITY and entry["parity"]["photos"] == 16
    assert entry["parity"]["map_drop"] is not None  # photos have labels, frames have not
    assert entry["limits"] == {"min_bit_agreement": 0.8}
    assert entry["limits_why"] == "as asked for"
    assert set(entry["int8_codes"]) == {"bit_agreement", "identical_codes", "min_bit_agreement"}
    assert entry["int8_codes"]["bit_agreement"] > entry["int8_codes"]["min_bit_agreement"] == 0.8
    assert {"onnxruntime:int8", "onnxruntime:fp32", "openvino:fp32"} <= set(entry["speeds"])
    assert list(entry["speeds"]["openvino:int8"]) == ["1", "4", "peak_mib"]
    assert entry["verdict"].startswith("int8 is 4.0x as fast as ")
    assert open_bundle("eet.fgd").manifest.calibration is not None
    again = run(*QUICK, *LENIENT)
    assert again.exit_code == 0 and "to calibrate on" not in again.stderr
    assert again.stderr.splitlines()[-1] == "next: fgdeploy hash PHOTOS --bundle eet.fgd"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_other_precisions(run: Run, here: Path, precision: str) -> None:
    done = run("build-engine", f"--{precision}", "--backend", "onnxruntime", "--no-time", "--json")
    assert done.exit_code == 0, done.output
    entry = json.loads(done.stdout)
    assert (entry["name"], entry["verdict"], entry["speeds"]) == (
        f"onnxruntime:{precision}",
        None,
        {},
    )
    assert entry["parity"]["bit_agreement"] > 0.98
    hashed = run("hash", "moths")
    assert f"with onnxruntime {precision} (compiled here)" in hashed.stderr


@pytest.mark.usefixtures("timed")
def test_where_openvinos_int8_clips_it_is_left_out(
    run: Run, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "_int8_error", lambda: 0.144)
    refused = run("build-engine", "--int8", "--backend", "openvino")
    fails(refused, 1, r"OpenVINO's INT8 is wrong on this CPU \(.*take onnxruntime's INT8")
    assert "to calibrate on" not in refused.stderr  # no minutes for what cannot be
    done = run("build-engine", "--int8", *LENIENT)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("built eet.fgd/engines/onnxruntime-int8-")
    assert "\nleft out: openvino: OpenVINO's INT8 is wrong on this CPU (" in done.stdout
    assert engines() == ["onnxruntime:int8"]


@pytest.mark.usefixtures("openvino_int8")
def test_photos_that_are_named_judge(run: Run, here: Path) -> None:
    done = run(*QUICK, "--data", "moths/split.csv", "--backend", "auto", *LENIENT, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["parity"]["map_drop"] is not None
    assert "to calibrate on" not in done.stderr
    assert engines() == ["onnxruntime:int8", "openvino:int8"]


def test_photos_that_cannot_be_read(run: Run, here: Path, many_moths: Path) -> None:
    shutil.copytree(many_moths, "mixed")
    Path("mixed/split.csv").unlink()
    photos = sorted(Path("mixed").rglob("*.jpg"))
    for path in photos[::3]:
        path.write_text("text")
    done = run(*QUICK, "--backend", "onnxruntime", "--data", "mixed", *LENIENT)
    assert done.exit_code == 3, done.output
    named = [line for line in done.stderr.splitlines() if line.startswith("skipped: ")]
    assert 0 < len(named) == len(set(named)) <= len(photos[::3])
    assert engines() == ["onnxruntime:int8"]


# --- limits


def test_an_engine_that_misses_its_limits(run: Run, here: Path) -> None:
    limits = ("--min-bit-agreement", "1")
    result = run(*QUICK, "--backend", "onnxruntime", "--data", "moths/split.csv", *limits)
    fails(
        result, 1, r"does not keep to fp32: onnxruntime:int8: bit agreement is 0\.\d+, limit >= 1"
    )
    (built,) = find(open_bundle("eet.fgd"))
    assert built.record is not None and built.record.failed
    fails(run("hash", "moths"), 1, "it failed parity; rebuild with: fgdeploy build-engine")
    assert not Path("codes.npz").exists()
    plain = run("hash", "moths", "--fallback")
    assert plain.exit_code == 0, plain.output
    assert "fp32 (from model.onnx)" in plain.stderr
    assert run(*QUICK, "--backend", "onnxruntime", *LENIENT).exit_code == 0
    assert run("hash", "moths").exit_code == 0


@pytest.mark.usefixtures("openvino_int8")
def test_one_of_two_misses_its_limits(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_ = OpenVinoEngine._run

    def wrong(self: OpenVinoEngine, frames: Any) -> Any:
        outputs = run_(self, frames)
        outputs.code[:] ^= 255
        return outputs

    monkeypatch.setattr(OpenVinoEngine, "_run", wrong)
    done = run(*QUICK, *LENIENT)
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("built eet.fgd/engines/onnxruntime-int8-")
    assert "left out: openvino:int8: bit agreement is 0.0" in done.stdout


# --- mistakes


@pytest.mark.parametrize(
    ("flags", "pattern"),
    [
        ([], r"choose one of --int8, --fp8, --fp16, --bf16 and --fp32, got 0$"),
        (["--int8", "--fp16"], r"choose one of .*, got 2$"),
        (["--int8", "--batch", "eight"], "--batch eight: expected a whole number"),
        (["--int8", "--batch", "1,,8"], "--batch : expected a whole number"),
        (["--int8", "--batch", "1;8"], "--batch 1;8: expected a whole number"),
        (["--int8", "--batch", ""], "--batch : expected a whole number"),
        (["--int8", "--batch", "0,8"], r"--batch 0: expected a whole number of 1 or more"),
        (["--int8", "--batch", "99999"], r"--batch 99999: expected sizes from 1 to 4096"),
        (["--int8", "--dla"], r"a DLA has no LayerNorm, .*leave --dla out and run on the GPU$"),
        (
            ["--int8", "--compute-capability", "8.7"],
            r"no target for compute capability 8\.7, only 7\.5, .*Jetson \(8\.7\).*--backend tenso",
        ),
        (["--int8", "--compute-capability", "new"], r"no target for compute capability new"),
        (
            ["--int8", "--no-time", "--compute-capability", "8.6, 8.9"],
            r"own device only; .*or take --backend tensorrt-rtx$",
        ),
        (
            ["--int8", "--workspace-mib", "0"],
            r"--workspace-mib 0: expected a whole number of 1 or more",
        ),
        (["--int8", "--threads", "0"], r"--threads 0: expected a whole number from 1 to 1024"),
        (["--int8", "--backend", "abacus"], r"no backend 'abacus'; choose auto, onnxruntime, op"),
        (["--bf16", "--backend", "onnxruntime"], r"no precision 'bf16'; choose fp32, fp16, int8"),
        (["--int8", "--max-drop", "nan"], r"--max-drop nan: expected a finite number"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_flags_that_can_never_be_right(
    run: Run, here: Path, flags: list[str], pattern: str
) -> None:
    fails(run("build-engine", *flags), 2, pattern)
    assert engines() == []


def test_int8_without_photos(run: Run, fresh: Path) -> None:
    (fresh / "moths").unlink()
    fails(run("build-engine", "--int8"), 2, "no photos here to calibrate on; name real ones with")
    assert sorted(os.listdir("eet.fgd")) == ["card.json", "head.npz", MANIFEST, "model.onnx"]


def test_a_backend_that_is_not_installed(
    run: Run, fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = backends.installed
    monkeypatch.setattr(backends, "installed", lambda name: name != "tensorrt" and there(name))
    fails(
        run("build-engine", "--int8", "--backend", "tensorrt"),
        1,
        r"the tensorrt engine needs the package tensorrt, .*pip install \"fgdeploy\[tensorrt\]\"",
    )
    assert open_bundle("eet.fgd").manifest.calibration is None  # said before the long work


def test_a_gpu_backend_without_a_gpu(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    monkeypatch.setattr(machine, "gpus", lambda: [])
    fails(
        run("build-engine", "--int8", "--backend", "tensorrt-rtx"),
        1,
        "tensorrt-rtx needs a GPU: no NVIDIA GPU on this machine; name the GPUs to compile for",
    )
    ahead = run(*QUICK, "--backend", "tensorrt-rtx", "--compute-capability", "8.6")
    assert ahead.exit_code == 0, ahead.output
    assert ahead.stdout.startswith("built eet.fgd/engines/tensorrt-rtx-int8-sm86 (")
    assert "compiled for GPUs elsewhere, so it could not be tried here" in ahead.stderr
    assert run("hash", "moths").exit_code == 0  # here it is nobody's engine


def test_a_batch_beyond_the_profile(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for TensorRT, whose engines take no more than they were built for."""
    monkeypatch.setattr(OnnxRuntimeEngine, "max_batch", 2)
    built = run(*QUICK, "--backend", "onnxruntime", "--batch", "1,2", *LENIENT)
    assert built.exit_code == 0, built.output
    fails(
        run("hash", "moths", "--batch", "8"),
        1,
        "built for batches of 1 to 2, got 8 frames; run with --batch 2, or rebuild with "
        "--batch 1,2,8",
    )
    assert not Path("codes.npz").exists()
    assert run("hash", "moths").exit_code == 0


# --- what machines do


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file system")],
)
def test_a_disk_that_is_full_or_read_only(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    before = sorted(os.listdir("eet.fgd"))
    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", refuse)
        fails(
            run(*QUICK, "--backend", "onnxruntime"),
            1,
            rf"cannot write eet\.fgd/engines/onnxruntime-int8-\S+ \({words}\); nothing was kept; "
            "free some space or check the rights, and build again",
        )
    assert sorted(os.listdir("eet.fgd")) == before


def test_a_bundle_that_may_not_be_written(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    fails(
        run(*QUICK, "--backend", "onnxruntime"),
        1,
        r"cannot write eet\.fgd/engines/onnxruntime-int8-\S+ \(Permission denied\); nothing was",
    )


@pytest.mark.usefixtures("openvino_int8")
def test_a_backend_that_breaks_is_left_out(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such\nkernel")

    monkeypatch.setattr(OnnxRuntimeEngine, "compile", broken)
    done = run(*QUICK, *LENIENT)
    assert done.exit_code == 0, done.output
    words = (
        r"^left out: onnxruntime: onnxruntime cannot compile model\.int8(\.u8)?\.onnx: no such ker"
    )
    assert re.search(words, done.stdout, re.MULTILINE), done.stdout
    assert engines() == ["openvino:int8"]


def test_a_measurement_that_fails(run: Run, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(contender: Contender, threads: int | None, seconds: float) -> Turn:
        raise EngineError("ended by signal 9")

    monkeypatch.setattr(bench, "measure_apart", dead)
    words = "onnxruntime:int8 cannot be measured: ended by signal 9; see: fgdeploy doctor"
    fails(run("build-engine", "--int8", "--backend", "onnxruntime", *LENIENT), 1, words)
    assert engines() == ["onnxruntime:int8"]  # it keeps to its limits, only its time is not known
