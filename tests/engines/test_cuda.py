"""The CUDA runner on a machine without a GPU: small stand-ins that keep the calls they get."""

from __future__ import annotations

import functools
import gc
import importlib
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fgdeploy.core import machine as machines
from fgdeploy.core.errors import EngineError
from fgdeploy.engines import backends
from tests.checks import refused
from tests.engines.fake_gpu import Context, Machine, fake_bindings, fake_driver, fake_trt


@pytest.fixture
def machine() -> Machine:
    return Machine()


# What is installed: pycuda alone, with cuda-bindings, which records CUDA graphs, or these alone.
@pytest.fixture(params=["pycuda", "both", "bindings"])
def installed(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def cuda(machine: Machine, installed: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module under test, imported with packages that are not there."""
    put = functools.partial(monkeypatch.setitem, sys.modules)
    pycuda: Any = ModuleType("pycuda")
    pycuda.driver = fake_driver(machine)
    put("pycuda", pycuda if installed != "bindings" else None)
    put("pycuda.driver", pycuda.driver if installed != "bindings" else None)
    bindings: Any = ModuleType("cuda.bindings")
    bindings.driver = fake_bindings(machine)
    put("cuda.bindings", bindings if installed != "pycuda" else None)
    put("cuda.bindings.driver", bindings.driver if installed != "pycuda" else None)
    ours = ("fgdeploy.engines.cuda", "fgdeploy.engines.cuda_driver")
    for name in ours:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module(ours[0])
    for name in ours:
        sys.modules.pop(name, None)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "engine.plan"
    path.write_bytes(b"plan")
    return path


RECORDING = pytest.mark.parametrize("installed", ["both", "bindings"], indirect=True)
BINDINGS = pytest.mark.parametrize("installed", ["bindings"], indirect=True)


def frames(count: int, first: int = 0) -> npt.NDArray[np.uint8]:
    values = np.zeros((count, 32, 32, 3), np.uint8)
    values[:, 0, 0, 0] = np.arange(first, first + count)
    return values


def check(outputs: dict[str, npt.NDArray[Any]], count: int, first: int = 0) -> None:
    assert set(outputs) == {"code", "hash"}
    np.testing.assert_array_equal(outputs["code"], np.full((count, 2), count))
    np.testing.assert_array_equal(outputs["hash"][:, 0], np.arange(first, first + count))


def test_all_batches(cuda: Any, machine: Machine, plan: Path, installed: str) -> None:
    graphs = installed != "pycuda"
    runner = cuda.Runner(fake_trt(machine), plan, (1, 8))
    assert runner.graphs is graphs
    for count in (1, 8, 3, 8, 1, 2):
        machine.calls.clear()
        check(runner.run(frames(count, first=count)), count, first=count)
        replayed = graphs and count in (1, 8)
        assert ("launch" in machine.calls) is replayed
        assert ("execute" in machine.calls) is not replayed
        assert machine.calls[-3:] == ["to host", "to host", "synchronize"]
    runner.close()


@RECORDING
def test_graphs_can_be_left_out(cuda: Any, machine: Machine, plan: Path) -> None:
    runner = cuda.Runner(fake_trt(machine), plan, (1, 8), graphs=False)
    assert not runner.graphs and "begin" not in machine.calls
    runner.close()


@RECORDING
@pytest.mark.parametrize("step", ["begin", "end", "instantiate"])
def test_where_cuda_refuses_to_record(step: str, cuda: Any, machine: Machine, plan: Path) -> None:
    machine.refuse.add(step)
    runner = cuda.Runner(fake_trt(machine), plan, (1, 8))
    assert not runner.graphs
    machine.recording = None
    check(runner.run(frames(8)), 8)
    runner.close()


@RECORDING
def test_warm_before_recording(cuda: Any, machine: Machine, plan: Path, installed: str) -> None:
    cuda.Runner(fake_trt(machine), plan, (4,)).close()
    memory = ("mem", "cu", "pinned", "free", "set_tensor")
    order = [name for name in machine.calls if not name.startswith(memory)]
    assert order == [
        *("deserialise", "stream", "context", "set_input_shape", "execute", "synchronize"),
        *("begin", "execute", "end", "instantiate", "destroy graph"),
        *("synchronize", "destroy launch"),
        *(["end stream"] if installed == "bindings" else []),
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("deserialise", r"tensorrt cannot load .*engine\.plan: TensorRT gave no reason"),
        ("context", r"tensorrt cannot start the engine: .*smaller --batch"),
        ("set_input_shape", r"tensorrt failed to take frames \(1, 32, 32, 3\)"),
        ("set_tensor_address", r"tensorrt failed to take memory for frames"),
        ("execute", r"tensorrt failed to run"),
    ],
)
def test_every_answer_is_checked(
    name: str, words: str, cuda: Any, machine: Machine, plan: Path
) -> None:
    machine.refuse.add(name)
    with refused(EngineError, words):
        cuda.Runner(fake_trt(machine), plan, (1, 8))
    assert machine.calls.count("free device") == machine.calls.count("mem_alloc")
    assert machine.depth.value == 0


def test_a_run_that_fails_later(cuda: Any, machine: Machine, plan: Path) -> None:
    runner = cuda.Runner(fake_trt(machine), plan, (1, 8))
    machine.refuse.add("execute")
    with refused(EngineError, r"tensorrt failed to run"):
        runner.run(frames(2))
    machine.refuse.clear()
    check(runner.run(frames(2)), 2)
    runner.close()


@RECORDING
def test_a_graph_that_does_not_start(cuda: Any, machine: Machine, plan: Path) -> None:
    runner = cuda.Runner(fake_trt(machine), plan, (1, 8))
    machine.refuse.add("launch")
    with refused(EngineError, r"a CUDA graph did not start \(CUDA_ERROR_OUT_OF_MEMORY\)"):
        runner.run(frames(8))
    runner.close()


def test_any_thread_may_run_it(cuda: Any, machine: Machine, plan: Path) -> None:
    runner = cuda.Runner(fake_trt(machine), plan, (1, 8))
    check(runner.run(frames(4, first=10)), 4, first=10)
    contexts = machine.calls.count("context")
    others: list[dict[str, npt.NDArray[Any]]] = []
    for first in (50, 70):
        given = frames(4, first)
        worker = threading.Thread(target=lambda at: others.append(runner.run(at)), args=[given])
        worker.start()
        worker.join()
        check(others[-1], 4, first)
    assert machine.calls.count("context") == contexts  # threads that come and go take no memory
    machine.calls.clear()
    runner.close()
    assert machine.calls.count("free device") == machine.calls.count("free pinned") == 3
    machine.calls.clear()
    runner.close()
    assert machine.calls == []


def test_rtx_records_by_itself(cuda: Any, machine: Machine, plan: Path) -> None:
    trt = fake_trt(machine)
    trt.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
    given: list[str] = []

    def execution_context(config: Any) -> Context:
        given.append(config.cuda_graph_strategy)
        return Context(machine)

    with_config = trt.Runtime(None).engine
    with_config.create_runtime_config = lambda: SimpleNamespace(cuda_graph_strategy="none")
    with_config.create_execution_context = execution_context
    runner = cuda.Runner(trt, plan, (1, 8))
    assert runner.graphs and given == ["whole"]
    check(runner.run(frames(5)), 5)
    runner.close()


@BINDINGS
@pytest.mark.parametrize("name", ["cuMemAlloc", "cuMemHostAlloc", "cuStreamCreate"])
def test_cuda_has_no_memory_left(name: str, cuda: Any, machine: Machine, plan: Path) -> None:
    machine.refuse.add(name)
    with refused(EngineError, r"CUDA answered CUDA_ERROR_OUT_OF_MEMORY; close other programs"):
        cuda.Runner(fake_trt(machine), plan, (1, 8))
    assert machine.calls.count("free pinned") == machine.calls.count("pinned")
    assert machine.depth.value == 0


def test_an_engine_that_nobody_closed(cuda: Any, machine: Machine, plan: Path) -> None:
    runner = cuda.Runner(fake_trt(machine), plan, (1, 8))
    gc.disable()  # it is in no cycle, so that its last reference ends it
    try:
        del runner
        assert machine.calls.count("free device") == machine.calls.count("free pinned") == 3
    finally:
        gc.enable()


@BINDINGS
def test_neither_package(cuda: Any, plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(ModuleNotFoundError, match=r"cuda\.bindings"):
        cuda.Runner(fake_trt(Machine()), plan, (1, 8))


def test_the_bindings_have_what_is_called() -> None:
    api = pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    from fgdeploy.engines import cuda_driver

    source = Path(cuda_driver.__file__).read_text()
    called = set(re.findall(r"\b_?api\.(cu[A-Z]\w+|CU\w+)", source))
    assert len(called) == 22 and all(hasattr(api, name) for name in called)
    modes = api.CUstreamCaptureMode
    assert int(modes.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL) == 1
    assert int(api.CUstream_flags.CU_STREAM_NON_BLOCKING) == 1
    assert int(api.CUstream(77)) == 77
    assert api.CUresult.CUDA_ERROR_OUT_OF_MEMORY.name == "CUDA_ERROR_OUT_OF_MEMORY"


@pytest.mark.parametrize(
    ("present", "runs"),
    [({"pycuda"}, True), ({"cuda", "cuda.bindings"}, True), ({"cuda"}, False), (set(), False)],
)
def test_what_running_takes(present: set[str], runs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str) -> object:
        if "." in name and name.rpartition(".")[0] not in present:
            raise ModuleNotFoundError(name)
        return object() if name in present else None

    monkeypatch.setattr(machines, "gpus", lambda: ["a GPU"])
    monkeypatch.setattr(backends, "installed", lambda name: "tensorrt" in name)
    monkeypatch.setattr("importlib.util.find_spec", find_spec)
    assert backends.available() == (["tensorrt", "tensorrt-rtx"] if runs else [])
