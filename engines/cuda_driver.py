"""Memory, a stream and CUDA graphs on the first GPU: by pycuda if it imports, else cuda-bindings.

Both wrap the driver. cuda-bindings installs from a wheel; pycuda is compiled against a CUDA
toolkit, which a machine with a driver alone has not. CUDA graphs take cuda-bindings either way.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fgdeploy.core.errors import EngineError

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: work on the default stream is none of ours


@dataclass(frozen=True)
class Buffer:
    """A tensor's pinned memory on the host, and the address of its memory on the GPU.

    held: what the driver frees.
    """

    host: npt.NDArray[Any]
    device: int
    held: Any


class Driver(ABC):
    """The first GPU in its primary context, current only within `current`.

    torch and ONNX Runtime use that context as well; one of our own beside it would break both.
    Streams have a `handle`, a number. Raises EngineError, or pycuda's error, where CUDA refuses.
    """

    @abstractmethod
    def push(self) -> None:
        """Make the context current in this thread."""

    @abstractmethod
    def pop(self) -> None:
        """End what `push` began."""

    @abstractmethod
    def stream(self) -> Any:
        """Return a new stream."""

    @abstractmethod
    def synchronize(self, stream: Any) -> None:
        """Wait for all work of a stream."""

    @abstractmethod
    def buffer(self, shape: tuple[int, ...], kind: Any) -> Buffer:
        """Allocate memory of a shape and NumPy type, on both sides."""

    @abstractmethod
    def upload(self, buffer: Buffer, count: int, stream: Any) -> None:
        """Copy the first `count` rows to the GPU, in the stream's order."""

    @abstractmethod
    def download(self, buffer: Buffer, count: int, stream: Any) -> None:
        """Copy the first `count` rows from the GPU, in the stream's order."""

    @abstractmethod
    def free(self, buffer: Buffer) -> None:
        """Free a buffer, which nothing may be using."""

    @abstractmethod
    def settle(self, stream: Any) -> None:
        """Wait for all work of a stream, whatever became of it."""

    @abstractmethod
    def end(self, stream: Any) -> None:
        """Free a stream that is settled."""

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        """Have the context current in this thread."""
        self.push()
        try:
            yield
        finally:
            self.pop()


class _Pycuda(Driver):
    def __init__(self, api: Any) -> None:
        self._api = api
        api.init()
        # Kept until the process ends: pycuda leaves a primary context current when it releases one,
        # and releases none from another thread than the one that asked for it.
        self._context = api.Device(0).retain_primary_context()
        atexit.register(driver.cache_clear)

    def push(self) -> None:
        self._context.push()

    def pop(self) -> None:
        self._api.Context.pop()

    def stream(self) -> Any:
        return self._api.Stream(_NON_BLOCKING)

    def synchronize(self, stream: Any) -> None:
        stream.synchronize()

    def buffer(self, shape: tuple[int, ...], kind: Any) -> Buffer:
        host = self._api.pagelocked_empty(shape, kind)
        device = self._api.mem_alloc(host.nbytes)
        return Buffer(host, int(device), device)

    def upload(self, buffer: Buffer, count: int, stream: Any) -> None:
        self._api.memcpy_htod_async(buffer.held, buffer.host[:count], stream)

    def download(self, buffer: Buffer, count: int, stream: Any) -> None:
        self._api.memcpy_dtoh_async(buffer.host[:count], buffer.held, stream)

    def free(self, buffer: Buffer) -> None:
        buffer.held.free()
        buffer.host.base.free()  # type: ignore[union-attr]

    def settle(self, stream: Any) -> None:
        with contextlib.suppress(self._api.Error):  # of a run that failed, and was reported
            stream.synchronize()

    def end(self, stream: Any) -> None:
        """Do nothing: pycuda frees it with the last reference."""


@dataclass(frozen=True)
class _Stream:
    handle: int


class _Bindings(Driver):
    def __init__(self, api: Any) -> None:
        self._api = api
        _asked(api.cuInit(0))
        # Never released: whoever else uses it in this process may outlive us.
        self._context = _asked(api.cuDevicePrimaryCtxRetain(_asked(api.cuDeviceGet(0))))

    def push(self) -> None:
        _asked(self._api.cuCtxPushCurrent(self._context))

    def pop(self) -> None:
        _asked(self._api.cuCtxPopCurrent())

    def stream(self) -> Any:
        return _Stream(int(_asked(self._api.cuStreamCreate(_NON_BLOCKING))))

    def synchronize(self, stream: Any) -> None:
        _asked(self._api.cuStreamSynchronize(self._of(stream)))

    def buffer(self, shape: tuple[int, ...], kind: Any) -> Buffer:
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        pinned = int(_asked(self._api.cuMemHostAlloc(size, 0)))
        try:
            device = _asked(self._api.cuMemAlloc(size))
        except EngineError:
            self._api.cuMemFreeHost(pinned)
            raise
        memory = (ctypes.c_uint8 * size).from_address(pinned)
        host = np.frombuffer(memory, dtype=kind).reshape(shape)
        return Buffer(host, int(device), (pinned, device))

    def upload(self, buffer: Buffer, count: int, stream: Any) -> None:
        pinned, device = buffer.held
        size = buffer.host[:count].nbytes
        _asked(self._api.cuMemcpyHtoDAsync(device, pinned, size, self._of(stream)))

    def download(self, buffer: Buffer, count: int, stream: Any) -> None:
        pinned, device = buffer.held
        size = buffer.host[:count].nbytes
        _asked(self._api.cuMemcpyDtoHAsync(pinned, device, size, self._of(stream)))

    def free(self, buffer: Buffer) -> None:
        pinned, device = buffer.held
        self._api.cuMemFree(device)
        self._api.cuMemFreeHost(pinned)

    def settle(self, stream: Any) -> None:
        self._api.cuStreamSynchronize(self._of(stream))

    def end(self, stream: Any) -> None:
        self._api.cuStreamDestroy(self._of(stream))

    def _of(self, stream: _Stream) -> Any:
        return self._api.CUstream(stream.handle)


@functools.cache
def driver() -> Driver:
    """Return the driver of this process. Raises ModuleNotFoundError where neither package is."""
    try:
        import pycuda.driver as api
    except ImportError:  # not installed, or compiled for another CUDA
        from cuda.bindings import driver as bindings

        return _Bindings(bindings)
    return _Pycuda(api)


@dataclass(frozen=True)
class Launch:
    """A recorded launch."""

    api: Any
    graph: Any

    def replay(self, stream: Any) -> None:
        """Start it. Raises EngineError where CUDA refuses."""
        (error,) = self.api.cuGraphLaunch(self.graph, self.api.CUstream(stream.handle))
        if int(error):
            raise EngineError(f"a CUDA graph did not start ({error.name}); open the engine again")

    def free(self) -> None:
        """Forget it."""
        self.api.cuGraphExecDestroy(self.graph)


def recorder() -> Any:
    """Return what records CUDA graphs, cuda-bindings; None where it is not installed."""
    try:
        from cuda.bindings import driver as api
    except ImportError:
        return None
    return api


def record(api: Any, stream: Any, work: Callable[[], bool]) -> Launch | None:
    """Record the work that a function puts into a stream; None where it or CUDA refuses.

    api: what `recorder` returns. What is allocated and chosen at first use must be done before.
    """
    handle = api.CUstream(stream.handle)
    # Of this thread only: another may be allocating, which would spoil a global capture.
    mode = api.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    if int(api.cuStreamBeginCapture(handle, mode)[0]):
        return None
    recorded = work()
    error, graph = api.cuStreamEndCapture(handle)
    if int(error):
        return None
    error, made = api.cuGraphInstantiate(graph, 0) if recorded else (1, None)
    api.cuGraphDestroy(graph)
    return None if int(error) else Launch(api, made)


def _asked(answer: tuple[Any, ...]) -> Any:
    error, *values = answer
    if int(error):
        raise EngineError(
            f"CUDA answered {error.name}; close other programs on the GPU, or rebuild with a "
            "smaller --batch; see: fgdeploy doctor"
        )
    return values[0] if values else None
