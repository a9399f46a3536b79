"""The CUDA engine on a machine without a GPU: the CPU provider stands in, calls are kept."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from fgdeploy.bundle import Bundle, open_bundle
from fgdeploy.core.errors import EngineError, MissingDependency
from fgdeploy.core.machine import Gpu
from fgdeploy.engines import BuildSettings, backends, build, open_engine, ort_cuda, ort_session
from fgdeploy.engines.base import EngineSource
from tests.checks import refused

CPU = "CPUExecutionProvider"


class Standin:
    """ONNX Runtime with a GPU, as far as the engine looks: the CPU computes.

    launches: the id of each launch; threads: which ran them; refuse: what starting a session says.
    """

    def __init__(self) -> None:
        self.launches: list[str] = []
        self.threads: set[int] = set()
        self.settings: list[dict[str, str]] = []
        self.refuse: str | None = None
        self.provider = ort_session.PROVIDER

    def start(self, graph: Any, options: Any, providers: Any, enable_fallback: int) -> Any:
        ((name, settings),) = providers
        assert (name, enable_fallback) == (ort_session.PROVIDER, 0)
        self.settings.append(settings)
        if self.refuse and "enable_cuda_graph" in settings:
            raise RuntimeError(self.refuse)
        self.threads.add(threading.get_ident())
        return Session(self, real(graph, options, providers=[CPU]))


class Session:
    def __init__(self, standin: Standin, session: Any) -> None:
        self._standin, self._session = standin, session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def get_providers(self) -> list[str]:
        return [self._standin.provider]

    def run(self, names: list[str], feeds: Any, options: Any) -> Any:
        self._note(options)
        return self._session.run(names, feeds, options)

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        self._note(options)
        self._session.run_with_iobinding(binding, options)

    def _note(self, options: Any) -> None:
        self._standin.launches.append(options.get_run_config_entry("gpu_graph_id"))
        self._standin.threads.add(threading.get_ident())


real = onnxruntime.InferenceSession


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> Standin:
    made = Standin()

    def on_cpu(shape: Any, kind: Any) -> Any:
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), kind, "cpu", 0)

    gpu = Gpu(name="Some GPU", compute_capability="9.0", driver="580.0", memory_mib=80000)
    monkeypatch.setattr(onnxruntime, "InferenceSession", made.start)
    monkeypatch.setattr(ort_session, "_on_gpu", on_cpu)
    monkeypatch.setattr(backends, "installed", lambda name: True)
    monkeypatch.setattr("fgdeploy.core.machine.gpus", lambda: [gpu])
    return made


def frames(count: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), np.uint8)


def opened(path: Path, precision: str = "fp32") -> ort_cuda.OnnxRuntimeCudaEngine:
    bundle = open_bundle(path)
    source = EngineSource(bundle.graph("fp32"), precision, batches=(1, 4))
    return ort_cuda.OnnxRuntimeCudaEngine(bundle.manifest, source)


def test_sizes_it_was_built_for_replay_and_others_do_not(
    own_bundle: Path, standin: Standin
) -> None:
    with open_engine(open_bundle(own_bundle), "openvino") as other:
        expected = {count: other.run(frames(count)) for count in (1, 3, 4, 9)}
    with opened(own_bundle) as engine:
        assert standin.launches == ["1", "4"]  # captured when opened
        for count in (4, 3, 1, 9, 4):
            found = engine.run(frames(count))
            np.testing.assert_array_equal(found.code, expected[count].code)
            np.testing.assert_allclose(found.hash, expected[count].hash, atol=1e-4)
        assert engine.describe().endswith("(from model.onnx, CUDA graphs)")
    assert standin.launches[2:] == ["4", "-1", "1", "-1", "4"]
    (settings,) = standin.settings
    assert settings == {**ort_session.SETTINGS, "enable_cuda_graph": "1"}
    assert settings["use_tf32"] == "0" and settings["enable_skip_layer_norm_strict_mode"] == "1"
    assert settings["sdpa_kernel"] == "3"  # without cuDNN's attention


def test_one_thread_runs_whatever_thread_asks(own_bundle: Path, standin: Standin) -> None:
    with opened(own_bundle) as engine, ThreadPoolExecutor(3) as pool:
        alone = [engine.run(frames(4)).hash for _ in range(2)]
        found = list(pool.map(lambda _: engine.run(frames(4)).hash, range(6)))
        assert len(standin.threads) == 1 and threading.get_ident() not in standin.threads
    for one in found:
        np.testing.assert_array_equal(one, alone[0])


def test_results_outlive_the_next_run(own_bundle: Path, standin: Standin) -> None:
    with opened(own_bundle) as engine:
        first = engine.run(frames(1)[:1]).hash
        before = first.copy()
        engine.run(frames(4)[:1])
        np.testing.assert_array_equal(first, before)


def test_a_graph_that_cannot_be_captured_runs_op_by_op(own_bundle: Path, standin: Standin) -> None:
    standin.refuse = "This session cannot use the graph capture feature as requested by the user"
    with opened(own_bundle) as engine:
        engine.run(frames(4))
        assert "no CUDA graphs" in engine.describe()
        assert ort_cuda.OnnxRuntimeCudaEngine.cuda_graphs is True
    assert standin.launches == ["-1"]
    standin.refuse = "out of memory"
    with pytest.raises(RuntimeError, match="out of memory"):
        opened(own_bundle)


def test_missing_cuda_is_said_in_one_line(
    own_bundle: Path, standin: Standin, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    standin.provider = CPU
    monkeypatch.setattr(
        onnxruntime,
        "preload_dlls",
        lambda: print("Failed to load libcudnn.so.9: no such file"),
        raising=False,
    )
    with refused(EngineError, r"CUDAExecutionProvider here \(Failed to load libcudnn.*cuda,cudnn"):
        opened(own_bundle)
    assert capsys.readouterr().out == ""


def test_int8_is_refused_with_what_was_measured(own_bundle: Path, standin: Standin) -> None:
    with refused(EngineError, r"back into floating point .* H200\); take --fp16"):
        build(open_bundle(own_bundle), "onnxruntime-cuda", "int8")


def test_without_onnx(own_bundle: Path, standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "fgdeploy.engines.ort_half", raising=False)
    with refused(MissingDependency, r'the package onnx.*fgdeploy\[gpu\]"$'):
        build(open_bundle(own_bundle), "onnxruntime-cuda", "fp32")
    assert not (own_bundle / "engines").exists()


def test_a_built_engine_says_what_it_computes(pruned: Bundle, standin: Standin) -> None:
    entry = build(pruned, "onnxruntime-cuda", "fp32", BuildSettings(batches=(2,))).record
    assert entry.graph == "fp32" and entry.layers is not None
    assert entry.layers["fused"] == {"attention": 6, "layer_norm": 13, "gelu": 6}
    assert entry.flags["rewritten"] == {"attention": 6, "layer_norm": 12, "gelu": 6}
    assert entry.flags["casts"] == 0


# --- memory that is pinned


class Runtime:
    def __init__(self, answer: int) -> None:
        self.answer, self.calls = answer, []

    def cudaHostRegister(self, address: Any, size: Any, flags: Any) -> int:
        self.calls.append(("register", address.value, size.value))
        return self.answer

    def cudaHostUnregister(self, address: Any) -> int:
        self.calls.append(("unregister", address.value))
        return 0


@pytest.mark.parametrize("answer", [0, 2])
def test_pages_are_held_and_let_go(monkeypatch: pytest.MonkeyPatch, answer: int) -> None:
    runtime = Runtime(answer)
    monkeypatch.setattr(ort_session, "_runtime", lambda: runtime)
    held = ort_session.Pinned((2, 3))
    address = held.array.ctypes.data
    assert held.pinned is (answer == 0)
    held.free()
    held.free()
    taken = [("register", address, 6)]
    assert runtime.calls == (taken if answer else [*taken, ("unregister", address)])


def test_without_cuda_the_memory_is_not_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_session, "_runtime", lambda: None)
    held = ort_session.Pinned((2, 3))
    assert held.array.shape == (2, 3) and not held.pinned
    held.free()
