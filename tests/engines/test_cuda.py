"""The CUDA runner on a machine without a GPU: small stand-ins that keep the calls they get."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fgdeploy.core.errors import EngineError
from tests.checks import refused

BITS = 12


class Machine:
    """A GPU, pycuda, TensorRT and the CUDA runtime, as far as the runner looks.

    calls: what happened, in order. refuse: names of calls that answer False, None or an error.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.refuse: set[str] = set()
        self.memory: dict[int, npt.NDArray[Any]] = {}
        self.depth = threading.local()
        self.recording: list[Callable[[], None]] | None = None

    def note(self, name: str) -> bool:
        """Keep a call, which must happen with the context current; return whether it succeeds."""
        assert getattr(self.depth, "value", 0) == 1, f"{name} without a current context"
        self.calls.append(name)
        return name not in self.refuse

    def move(self, by: int) -> None:
        self.depth.value = getattr(self.depth, "value", 0) + by


class Allocation:
    def __init__(self, machine: Machine, kind: str) -> None:
        self.machine, self.kind = machine, kind

    def free(self) -> None:
        self.machine.note(f"free {self.kind}")


class Device(Allocation):
    def __init__(self, machine: Machine, size: int) -> None:
        super().__init__(machine, "device")
        machine.note("mem_alloc")
        self.address = 256 * (len(machine.memory) + 1)
        machine.memory[self.address] = np.zeros(size, np.uint8)

    def __int__(self) -> int:
        return self.address


class Pinned(np.ndarray):  # type: ignore[type-arg]
    """An array whose `base` can be freed, as pycuda's."""

    held: Any = None

    @property
    def base(self) -> Any:
        return self.held


class Stream:
    def __init__(self, machine: Machine, flags: int) -> None:
        assert flags == 1  # non-blocking
        self.machine, self.handle = machine, 77
        machine.note("stream")

    def synchronize(self) -> None:
        self.machine.note("synchronize")


class Context:
    """An execution context: hash = the first pixel's red, code = the batch's size."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.count = 0
        self.addresses: dict[str, int] = {}
        machine.note("context")

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == "frames" and shape[1:] == (32, 32, 3)
        self.count = shape[0]
        return self.machine.note("set_input_shape")

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address % 256 == 0
        self.addresses[name] = address
        return self.machine.note("set_tensor_address")

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 77
        if not self.machine.note("execute"):
            return False
        count, held = self.count, self.machine.memory
        addresses = dict(self.addresses)

        def work() -> None:
            frames = held[addresses["frames"]][: count * 3072].reshape(count, 32, 32, 3)
            hashes = np.repeat(frames[:, 0, 0, :1].astype(np.float32), BITS, 1)
            for name, values in (("hash", hashes), ("code", np.full((count, 2), count, np.uint8))):
                data = np.ascontiguousarray(values).view(np.uint8).reshape(-1)
                held[addresses[name]][: data.size] = data

        if self.machine.recording is None:
            work()
        else:
            self.machine.recording.append(work)
        return True


def fake_driver(machine: Machine) -> ModuleType:
    module: Any = ModuleType("pycuda.driver")

    class Primary:
        def push(self) -> None:
            machine.move(1)

        @staticmethod
        def pop() -> None:
            machine.move(-1)

    def pagelocked_empty(shape: tuple[int, ...], kind: Any) -> Pinned:
        array = np.zeros(shape, kind).view(Pinned)
        array.held = Allocation(machine, "pinned")
        return array

    def to_device(target: Device, source: npt.NDArray[Any], stream: Stream) -> None:
        machine.note("to device")
        data = np.array(source).view(np.uint8).reshape(-1)
        machine.memory[int(target)][: data.size] = data

    def to_host(target: npt.NDArray[Any], source: Device, stream: Stream) -> None:
        machine.note("to host")
        data = machine.memory[int(source)][: target.nbytes]
        target[...] = data.view(target.dtype).reshape(target.shape)

    module.init = lambda: None
    module.Error = RuntimeError
    module.Context = Primary
    module.Device = lambda index: SimpleNamespace(retain_primary_context=Primary)
    module.Stream = lambda flags: Stream(machine, flags)
    module.mem_alloc = lambda size: Device(machine, size)
    module.pagelocked_empty = pagelocked_empty
    module.memcpy_htod_async, module.memcpy_dtoh_async = to_device, to_host
    return module  # type: ignore[no-any-return]


def fake_trt(machine: Machine) -> Any:
    class Logger:
        INTERNAL_ERROR, ERROR = 0, 1

        def __init__(self) -> None:
            pass

    tensors = {"frames": (-1, 32, 32, 3), "code": (-1, 2), "hash": (-1, BITS)}
    engine = SimpleNamespace(
        num_io_tensors=len(tensors),
        get_tensor_name=lambda index: list(tensors)[index],
        get_tensor_shape=tensors.__getitem__,
        get_tensor_dtype=lambda name: np.float32 if name == "hash" else np.uint8,
        create_execution_context=lambda: None if "context" in machine.refuse else Context(machine),
    )

    def deserialise(data: bytes) -> Any:
        return engine if machine.note("deserialise") else None

    return SimpleNamespace(
        __name__="tensorrt",
        ILogger=Logger,
        Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=deserialise, engine=engine),
        nptype=np.dtype,
    )


def fake_bindings(machine: Machine) -> Any:
    """Return a CUDA runtime that records what is executed between begin and end."""

    def begin(stream: int, mode: str) -> tuple[int]:
        assert (stream, mode) == (77, "of this thread")
        machine.recording = []
        return (int(not machine.note("begin")),)

    def end(stream: int) -> tuple[int, Any]:
        work, machine.recording = machine.recording, None
        return int(not machine.note("end")), work

    def launch(graph: Any, stream: int) -> tuple[Any]:
        for work in graph:
            work()
        return (Code(not machine.note("launch")),)

    class Code(int):
        name = "cudaErrorUnknown"

    return SimpleNamespace(
        cudaStreamCaptureMode=SimpleNamespace(cudaStreamCaptureModeThreadLocal="of this thread"),
        cudaStreamBeginCapture=begin,
        cudaStreamEndCapture=end,
        cudaGraphInstantiate=lambda graph, flags: (int(not machine.note("instantiate")), graph),
        cudaGraphDestroy=lambda graph: machine.note("destroy graph"),
        cudaGraphLaunch=launch,
        cudaGraphExecDestroy=lambda graph: machine.note("destroy launch"),
    )


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def cuda(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module under test, imported with a pycuda that is not there."""
    driver = fake_driver(machine)
    package: Any = ModuleType("pycuda")
    package.driver = driver
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    monkeypatch.delitem(sys.modules, "fgdeploy.engines.cuda", raising=False)
    module = importlib.import_module("fgdeploy.engines.cuda")
    monkeypatch.setattr(module, "_bindings", lambda: None)
    yield module
    sys.modules.pop("fgdeploy.engines.cuda", None)


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "engine.plan"
    path.write_bytes(b"plan")
    return path


def frames(count: int, first: int = 0) -> npt.NDArray[np.uint8]:
    values = np.zeros((count, 32, 32, 3), np.uint8)
    values[:, 0, 0, 0] = np.arange(first, first + count)
    return values


def check(outputs: dict[str, npt.NDArray[Any]], count: int, first: int = 0) -> None:
    assert set(outputs) == {"code", "hash"}
    np.testing.assert_array_equal(outputs["code"], np.full((count, 2), count))
    np.testing.assert_array_equal(outputs["hash"][:, 0], np.arange(first, first + count))


@pytest.mark.parametrize("graphs", [True, False])
def test_all_batches(
    cuda: Any, machine: Machine, plan: Path, graphs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if graphs:
        monkeypatch.setattr(cuda, "_bindings", lambda: fake_bindings(machine))
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


def test_graphs_can_be_left_out(
    cuda: Any, machine: Machine, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "_bindings", lambda: fake_bindings(machine))
    runner = cuda.Runner(fake_trt(machine), plan, (1, 8), graphs=False)
    assert not runner.graphs and "begin" not in machine.calls
    runner.close()


@pytest.mark.parametrize("step", ["begin", "end", "instantiate"])
def test_where_cuda_refuses_to_record(
    step: str, cuda: Any, machine: Machine, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "_bindings", lambda: fake_bindings(machine))
    machine.refuse.add(step)
    runner = cuda.Runner(fake_trt(machine), plan, (1, 8))
    assert not runner.graphs
    machine.recording = None
    check(runner.run(frames(8)), 8)
    runner.close()


def test_warm_before_recording(
    cuda: Any, machine: Machine, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "_bindings", lambda: fake_bindings(machine))
    cuda.Runner(fake_trt(machine), plan, (4,)).close()
    order = [name for name in machine.calls if not name.startswith(("mem", "free", "set_tensor"))]
    assert order == [
        *("deserialise", "stream", "context", "set_input_shape", "execute", "synchronize"),
        *("begin", "execute", "end", "instantiate", "destroy graph"),
        *("synchronize", "destroy launch"),
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


def test_a_graph_that_does_not_start(
    cuda: Any, machine: Machine, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "_bindings", lambda: fake_bindings(machine))
    runner = cuda.Runner(fake_trt(machine), plan, (1, 8))
    machine.refuse.add("launch")
    with refused(EngineError, r"a CUDA graph did not start \(cudaErrorUnknown\)"):
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
