from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from fgdeploy.bundle import Bundle, open_bundle, sha256
from fgdeploy.core import machine
from fgdeploy.core.errors import EngineError, MissingDependency, UsageError
from fgdeploy.core.machine import Cpu
from fgdeploy.engines import Built, Record, available, find, open_engine, ort_session
from fgdeploy.engines.onnxruntime import session_options
from tests.checks import refused


@pytest.fixture
def bundle(built_bundle: Path) -> Bundle:
    return open_bundle(built_bundle)


def of(bundle: Bundle, backend: str) -> tuple[Built, Record]:
    for built in find(bundle):
        if built.record is not None and built.record.backend == backend:
            return built, built.record
    raise AssertionError(backend)


def change(bundle: Bundle, of_backend: str, **changes: Any) -> None:
    built, entry = of(bundle, of_backend)
    dataclasses.replace(entry, **changes).write(built.folder)


def measured(bundle: Bundle, backend: str, p50_ms: float) -> None:
    change(bundle, backend, speed={"1": {"p50_ms": p50_ms, "p95_ms": 9.0, "images_per_s": 1.0}})


def opened(*arguments: Any, **named: Any) -> tuple[str, str, list[str]]:
    """Return what runs, why, and what was told."""
    told: list[str] = []
    with open_engine(*arguments, **named, notify=told.append) as engine:
        return engine.describe(), engine.reason, told


# --- engines that fit


def test_auto_takes_the_fastest(bundle: Bundle) -> None:
    what, why, told = opened(bundle)
    assert (what, told) == ("onnxruntime fp32 (compiled here)", [])
    assert why == "built for this machine, 1 of 2, not measured yet"
    measured(bundle, "openvino", 5.93)
    assert opened(bundle) == (
        "openvino fp32 (compiled here)",
        "fastest of 2 built for this machine: 5.9 ms",
        [],
    )
    measured(bundle, "onnxruntime", 3.0)
    assert opened(bundle)[0] == "onnxruntime fp32 (compiled here)"
    change(bundle, "onnxruntime", parity={"passed": False})
    assert opened(bundle)[0] == "openvino fp32 (compiled here)"


def test_a_named_one(bundle: Bundle) -> None:
    measured(bundle, "onnxruntime", 3.0)
    for name in ("openvino", "openvino:fp32", "openvino:auto"):
        assert opened(bundle, name)[0] == "openvino fp32 (compiled here)"
    assert opened(bundle, "auto", "fp32")[0] == "onnxruntime fp32 (compiled here)"
    assert opened(bundle, "auto:fp32")[0] == "onnxruntime fp32 (compiled here)"


def test_an_engine_that_failed_parity_runs_only_by_name(bundle: Bundle) -> None:
    for backend in ("onnxruntime", "openvino"):
        change(bundle, backend, parity={"passed": False})
    with refused(EngineError, r"it failed parity.*it failed parity.*--fallback"):
        open_engine(bundle)
    assert opened(bundle, "openvino:fp32")[0] == "openvino fp32 (compiled here)"
    assert opened(bundle, fallback=True)[0] == "onnxruntime fp32 (from model.onnx)"


def test_contradictions(bundle: Bundle) -> None:
    with refused(UsageError, r"backend openvino:int8 and precision fp32 differ"):
        open_engine(bundle, "openvino:int8", "fp32")
    with refused(UsageError, r"no backend 'magic'"):
        open_engine(bundle, "magic:int8")
    with refused(UsageError, r"no precision 'fp7'"):
        open_engine(bundle, "openvino:fp7")


# --- engines that do not fit


def another_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cpu", lambda: Cpu("Other", "riscv64", ()))


def test_another_machine(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    another_cpu(monkeypatch)
    with refused(
        EngineError,
        r"^no engine that was built fits this machine: onnxruntime-fp32-[\w-]+: built on a \w+ "
        r"CPU, this machine is riscv64; openvino-.*; rebuild with: fgdeploy build-engine "
        r"--backend onnxruntime, or run the plain graph with: --fallback$",
    ):
        open_engine(bundle)
    with refused(EngineError, r"rebuild with: fgdeploy build-engine --backend openvino, or"):
        open_engine(bundle, "openvino")
    what, why, told = opened(bundle, fallback=True)
    assert what == "onnxruntime fp32 (from model.onnx)"
    assert "riscv64" in why
    assert len(told) == 1
    assert told[0].endswith("running onnxruntime fp32 (from model.onnx) instead")
    assert opened(bundle, "openvino", fallback=True)[0] == "openvino fp32 (from model.onnx)"
    # The graph of the precision that was asked for gives the same numbers
    what, why, told = opened(bundle, "openvino:fp32")
    assert (what, told) == ("openvino fp32 (from model.onnx)", [])
    assert "riscv64" in why


def test_another_version(bundle: Bundle) -> None:
    for backend in ("onnxruntime", "openvino"):
        change(bundle, backend, backend_version="1.2.3")
    with refused(EngineError, r"built for ONNX Runtime 1\.2\.3, this machine has .*OpenVINO 1\.2"):
        open_engine(bundle)


def test_another_graph(bundle: Bundle) -> None:
    for backend in ("onnxruntime", "openvino"):
        change(bundle, backend, graph_sha256="0" * 64)
    with refused(EngineError, r"built from another model\.onnx \(the bundle was exported again"):
        open_engine(bundle)


def test_an_engine_for_elsewhere_does_not_hide_one_that_fits(bundle: Bundle) -> None:
    change(bundle, "onnxruntime", backend_version="1.2.3")
    assert opened(bundle) == (
        "openvino fp32 (compiled here)",
        "built for this machine, 1 of 1, not measured yet",
        [],
    )


def test_an_unknown_backend(bundle: Bundle) -> None:
    for backend in ("onnxruntime", "openvino"):
        change(bundle, backend, backend="magic")
    with refused(EngineError, r"made by magic, a backend that is not known here"):
        open_engine(bundle)


# --- engines that are damaged


def test_a_cut_engine(bundle: Bundle) -> None:
    built, entry = of(bundle, "onnxruntime")
    os.truncate(built.folder / entry.file, 100)
    for name in ("auto", "onnxruntime", "onnxruntime:fp32"):
        with refused(EngineError, r"corrupt or cut engine: expected \d+ bytes, got 100; rebuild"):
            open_engine(bundle, name)
    what, _, told = opened(bundle, fallback=True)
    assert what == "openvino fp32 (compiled here)"
    assert len(told) == 1 and "corrupt or cut" in told[0] and told[0].endswith("here) instead")
    what, _, told = opened(bundle, "onnxruntime:fp32", fallback=True)
    assert what == "onnxruntime fp32 (from model.onnx)" and len(told) == 1


def test_a_broken_record(bundle: Bundle) -> None:
    for backend in ("onnxruntime", "openvino"):
        built, _ = of(bundle, backend)
        (built.folder / "engine.json").write_text("{")
    for name in ("auto", "openvino", "openvino:fp32"):
        with refused(EngineError, r"engine\.json is not JSON.*or run the plain graph with: --fall"):
            open_engine(bundle, name)
    assert opened(bundle, fallback=True)[0] == "onnxruntime fp32 (from model.onnx)"


def test_an_engine_that_a_record_does_not_describe(bundle: Bundle) -> None:
    change(bundle, "onnxruntime", precision="bf16")
    with refused(EngineError, r"describes no engine of onnxruntime; remove the folder"):
        open_engine(bundle)
    built, _ = of(bundle, "openvino")
    (built.folder / "engine.blob").rename(built.folder / "other.bin")
    change(bundle, "openvino", file="other.bin")
    with refused(EngineError, r"describes no engine of openvino"):
        open_engine(bundle, "openvino")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_an_engine_that_does_not_load(bundle: Bundle, backend: str) -> None:
    built, entry = of(bundle, backend)
    path = built.folder / entry.file
    path.write_bytes(b"nonsense" * 100)
    change(bundle, backend, bytes=800, sha256=sha256(path))
    with refused(EngineError, rf"{backend} cannot load .*{entry.file}: .*; see: fgdeploy doctor$"):
        open_engine(bundle, backend)
    assert "from model.onnx" in opened(bundle, f"{backend}:fp32", fallback=True)[0]


# --- GPUs that are not there


def test_gpu_backends_need_a_gpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: [])
    assert set(available()) <= {"onnxruntime", "openvino"}


def test_a_backend_that_is_not_installed(bundle: Bundle) -> None:
    if "tensorrt" in available():
        pytest.skip("tensorrt is installed")
    with refused(MissingDependency, r"the tensorrt engine needs the package tensorrt"):
        open_engine(bundle, "tensorrt")
    what, _, told = opened(bundle, "tensorrt", fallback=True)
    assert what == "onnxruntime fp32 (from model.onnx)"
    assert "tensorrt engine needs" in told[0]


def test_a_gpu_engine_that_was_not_built(bundle: Bundle) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    with refused(
        EngineError,
        r"holds no tensorrt-rtx int8 engine for this machine: none was built; build with: "
        r"fgdeploy build-engine --backend tensorrt-rtx --int8$",
    ):
        open_engine(bundle, "tensorrt-rtx:int8")


def test_onnxruntime_that_falls_back_to_the_cpu(bundle: Bundle) -> None:
    with (
        pytest.warns(UserWarning, match="not in available provider names"),
        refused(EngineError, r"ONNX Runtime cannot start its CUDAExecutionProvider here"),
    ):
        ort_session.start(bundle.graph(), session_options())
