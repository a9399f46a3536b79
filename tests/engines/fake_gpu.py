"""Small stand-ins for a GPU, for TensorRT, and for both packages that drive one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

BITS = 12


class Machine:
    """A GPU, pycuda, cuda-bindings and TensorRT, as far as the runner looks.

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
    """Return NVIDIA's bindings of the driver, which record what runs between begin and end."""
    pinned: dict[int, Any] = {}

    def answer(name: str, *values: Any) -> tuple[Any, ...]:
        return (Code(2 * (not machine.note(name))), *values)

    def host_alloc(size: int, flags: int) -> tuple[Any, ...]:
        memory = np.zeros(size, np.uint8)
        pinned[memory.ctypes.data] = memory
        done = answer("cuMemHostAlloc", memory.ctypes.data)
        if not done[0]:
            machine.calls.append("pinned")
        return done

    def alloc(size: int) -> tuple[Any, ...]:
        done = answer("cuMemAlloc")
        return done if done[0] else (*done, int(Device(machine, size)))

    def to_device(target: int, source: int, size: int, stream: int) -> tuple[Any, ...]:
        machine.memory[target][:size] = pinned[source][:size]
        return answer("to device")

    def to_host(target: int, source: int, size: int, stream: int) -> tuple[Any, ...]:
        pinned[target][:size] = machine.memory[source][:size]
        return answer("to host")

    def begin(stream: int, mode: str) -> tuple[Any, ...]:
        assert (stream, mode) == (77, "of this thread")
        machine.recording = []
        return answer("begin")

    def end(stream: int) -> tuple[Any, ...]:
        work, machine.recording = machine.recording, None
        return answer("end", work)

    def launch(graph: Any, stream: int) -> tuple[Any, ...]:
        for work in graph:
            work()
        return answer("launch")

    return SimpleNamespace(
        cuInit=lambda flags: (Code(0),),
        cuDeviceGet=lambda index: (Code(0), index),
        cuDevicePrimaryCtxRetain=lambda device: (Code(0), "primary"),
        cuCtxPushCurrent=lambda context: (Code(0), machine.move(1)),
        cuCtxPopCurrent=lambda: (Code(0), machine.move(-1)),
        CUstream=int,
        cuStreamCreate=lambda flags: answer("cuStreamCreate", Stream(machine, flags).handle),
        cuStreamSynchronize=lambda stream: answer("synchronize"),
        cuStreamDestroy=lambda stream: answer("end stream"),
        cuMemHostAlloc=host_alloc,
        cuMemAlloc=alloc,
        cuMemFree=lambda device: answer("free device"),
        cuMemFreeHost=lambda address: (pinned.pop(address), answer("free pinned"))[1],
        cuMemcpyHtoDAsync=to_device,
        cuMemcpyDtoHAsync=to_host,
        CUstreamCaptureMode=SimpleNamespace(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL="of this thread"),
        cuStreamBeginCapture=begin,
        cuStreamEndCapture=end,
        cuGraphInstantiate=lambda graph, flags: answer("instantiate", graph),
        cuGraphDestroy=lambda graph: answer("destroy graph"),
        cuGraphLaunch=launch,
        cuGraphExecDestroy=lambda graph: answer("destroy launch"),
    )


class Code(int):
    name = "CUDA_ERROR_OUT_OF_MEMORY"
