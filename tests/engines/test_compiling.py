from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fgdeploy.bundle import Bundle, open_bundle
from fgdeploy.core import machine
from fgdeploy.core.errors import EngineError, FgdeployError, MissingDependency, UsageError
from fgdeploy.engines import BuildSettings, backends, build, find, open_engine, record
from fgdeploy.engines.compiling import slug
from fgdeploy.engines.onnxruntime import OnnxRuntimeEngine
from fgdeploy.engines.openvino import OpenVinoEngine
from tests.checks import refused

BUILDS = [("onnxruntime", "fp32"), ("openvino", "fp32")]
TYPES = {"onnxruntime": OnnxRuntimeEngine, "openvino": OpenVinoEngine}


@pytest.fixture
def bundle(own_bundle: Path) -> Bundle:
    return open_bundle(own_bundle)


def frames(count: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize(("backend", "precision"), BUILDS)
def test_a_compiled_engine_gives_the_same_bits(
    bundle: Bundle, backend: str, precision: str
) -> None:
    with open_engine(bundle, backend, precision) as engine:
        assert engine.describe() == f"{backend} {precision} (from model.onnx)"
        expected = engine.run(frames(5))
    built = build(bundle, backend, precision)
    (bundle.path / "model.onnx").rename(bundle.path / "model.gone")  # it is not read again
    with open_engine(bundle, backend, precision) as engine:
        assert engine.describe() == f"{backend} {precision} (compiled here)"
        found = engine.run(frames(5))
        engine.run(frames(17))  # a CPU engine takes any batch
    np.testing.assert_array_equal(found.code, expected.code)
    np.testing.assert_array_equal(found.hash, expected.hash)
    assert found.embedding is not None and expected.embedding is not None
    np.testing.assert_array_equal(found.embedding, expected.embedding)
    assert find(bundle) == [built]


def test_bf16_is_another_arithmetic_that_loading_keeps(bundle: Bundle) -> None:
    try:
        engine = open_engine(bundle, "openvino:bf16")
    except EngineError as error:
        pytest.skip(str(error))
    expected = engine.run(frames(8)).hash
    engine.close()
    with open_engine(bundle, "openvino:fp32") as plain:
        assert not np.array_equal(plain.run(frames(8)).hash, expected)
    build(bundle, "openvino", "bf16")
    with open_engine(bundle, "openvino:bf16") as compiled:
        assert "compiled here" in compiled.describe()
        np.testing.assert_array_equal(compiled.run(frames(8)).hash, expected)


def test_what_is_recorded(bundle: Bundle) -> None:
    built = build(bundle, "openvino", "fp32", BuildSettings(batches=(1, 4)))
    entry, cpu = built.record, machine.cpu()
    assert entry is not None and record.read(built.folder) == entry
    assert (entry.backend, entry.precision, entry.graph) == ("openvino", "fp32", "fp32")
    assert entry.graph_sha256 == bundle.manifest.files["model.onnx"]["sha256"]
    assert entry.bytes == (built.folder / entry.file).stat().st_size > 0
    assert entry.device == {
        "kind": "cpu",
        "name": cpu.name,
        "arch": cpu.arch,
        "features": list(cpu.features),
    }
    assert entry.batches == (1, 4)
    assert entry.build_s > 0 and entry.peak_host_mib > 1
    assert entry.created_by.startswith("fgdeploy ")
    assert entry.parity is None and entry.speed is None
    assert entry.sbom is not None and "openvino" in {x["name"] for x in entry.sbom["components"]}
    assert names(built.folder) == sorted(["engine.json", entry.file])
    assert built.folder.parent == bundle.path / "engines"
    open_bundle(bundle.path)  # an engine is no part of the manifest


def test_building_again_replaces(bundle: Bundle) -> None:
    build(bundle, "onnxruntime", "fp32")
    again = build(bundle, "onnxruntime", "fp32", BuildSettings(batches=(2,)))
    assert find(bundle) == [again]
    assert names(bundle.path / "engines") == [again.folder.name]


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ({"kind": "cpu", "arch": "x86_64", "features": ["avx2", "avx512_vnni"]}, "avx512_vnni"),
        ({"kind": "cpu", "arch": "riscv64", "features": []}, "riscv64-generic"),
        ({"kind": "cuda", "name": "NVIDIA Orin", "compute_capability": "8.7"}, "sm87-nvidia-orin"),
        (
            {"kind": "cuda", "name": "a/../B*C (x)", "compute_capability": "12.0"},
            "sm120-a-b-c-x",
        ),
        ({"kind": "cuda", "name": None, "compute_capabilities": ["8.6", "8.9"]}, "sm86-sm89"),
    ],
)
def test_slugs(device: dict[str, Any], expected: str) -> None:
    assert slug(device).endswith(expected)


# --- refused before any work


@pytest.mark.parametrize(
    ("backend", "precision", "kind", "words"),
    [
        ("magic", "fp32", UsageError, r"no backend 'magic'; choose"),
        ("openvino", "fp8", UsageError, r"no precision 'fp8'; choose fp32, bf16, fp16, int8"),
        ("onnxruntime", "bf16", UsageError, r"no precision 'bf16'; choose fp32, fp16, int8"),
        ("openvino", "int8", EngineError, r"holds no int8 graph; run: fgdeploy calibrate"),
    ],
)
def test_what_cannot_be_built(
    bundle: Bundle,
    backend: str,
    precision: str,
    kind: type[FgdeployError],
    words: str,
) -> None:
    before = names(bundle.path)
    with refused(kind, words):
        build(bundle, backend, precision)
    assert names(bundle.path) == before


def test_a_package_that_is_missing(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "installed", lambda name: False)
    with refused(MissingDependency, r"tensorrt engine needs the package tensorrt"):
        build(bundle, "tensorrt", "fp32")


def test_compute_capabilities_are_for_rtx(bundle: Bundle) -> None:
    with refused(UsageError, r"own device only.*--backend tensorrt-rtx"):
        build(bundle, "openvino", "fp32", BuildSettings(compute_capabilities=("8.6",)))


# --- failures leave nothing


def no_space(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("[Backend] : 6\nout of memory")


def stopped(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize("before", ["nothing", "an older engine"])
@pytest.mark.parametrize(
    ("owner", "name", "fault", "kind", "words"),
    [
        (os, "fsync", no_space, EngineError, r"cannot write .*No space left.*nothing was kept"),
        (os, "rename", no_space, EngineError, r"No space left"),
        (OnnxRuntimeEngine, "compile", no_space, EngineError, r"No space left"),
        (OnnxRuntimeEngine, "compile", broken, EngineError, r"onnxruntime cannot compile model"),
        (OnnxRuntimeEngine, "_run", broken, EngineError, r"failed on 1 frames.*out of memory"),
        (OnnxRuntimeEngine, "_run", stopped, KeyboardInterrupt, ""),
    ],
)
def test_a_failure_leaves_what_was(
    bundle: Bundle,
    before: str,
    owner: Any,
    name: str,
    fault: Callable[..., Any],
    kind: type[BaseException],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if before == "an older engine":
        build(bundle, "onnxruntime", "fp32")
    kept, held = find(bundle), names(bundle.path)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fault)
        with refused(kind, words):
            build(bundle, "onnxruntime", "fp32")
    assert (find(bundle), names(bundle.path)) == (kept, held)
    if kept:
        assert names(bundle.path / "engines") == [kept[0].folder.name]


def test_engines_behind_a_link_are_not_written(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (bundle.path / "engines").symlink_to(tmp_path / "elsewhere")
    with refused(EngineError, r"engines is a symbolic link"):
        build(bundle, "onnxruntime", "fp32")
    assert names(tmp_path / "elsewhere") == []
