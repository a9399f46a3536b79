"""Run a TensorRT engine through pycuda: memory, a stream, CUDA graphs.

Everything happens in the device's primary context, which torch and ONNX Runtime use as well; a
context of our own beside it would break both.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pycuda.driver as drv

from fgdeploy.core.errors import EngineError
from fgdeploy.engines.trt_build import make_logger, said
from fgdeploy.engines.trt_objects import freed_in_time

INPUT = "frames"
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: work on the default stream is none of ours


@functools.cache
def _primary_context() -> Any:
    # Kept until the process ends: pycuda leaves a primary context current when it releases one,
    # and releases none from another thread than the one that asked for it.
    drv.init()
    atexit.register(_primary_context.cache_clear)
    return drv.Device(0).retain_primary_context()


class Runner:
    """A deserialised engine on the first GPU; any thread may run it, one at a time.

    graphs: whether launches are replayed from CUDA graphs. Raises EngineError if the engine does
    not load.
    """

    def __init__(self, trt: Any, path: Path, batches: Sequence[int], graphs: bool = True) -> None:
        self._context = _primary_context()
        self._trt, self.batches, self._most = trt, tuple(batches), max(batches)
        self._lane = _Lane(self)
        self._logger = make_logger(trt)
        self._runtime: Any = None
        self.engine: Any = None
        try:
            with freed_in_time(), self._current():
                self._load(path, graphs)
                self._lane.prepare()  # so that the first run is as fast as the others
            self.graphs = self.native or self._lane.captured
        except BaseException:
            self.close()
            raise

    def run(self, frames: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        """Return the outputs by name: views into buffers that the next run overwrites."""
        with freed_in_time(), self._current():
            return self._lane.run(frames)

    def close(self) -> None:
        """Free everything, with the context current; nothing may be running."""
        if self._context is None:
            return
        with self._current():
            self._lane.free()
            self.engine = self._runtime = None
        self._context = None

    def tensors(self) -> list[tuple[str, tuple[int, ...], Any]]:
        """Return each tensor's name, shape for the largest batch, and NumPy type."""
        engine, trt = self.engine, self._trt
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        return [
            (
                name,
                (self._most, *tuple(engine.get_tensor_shape(name))[1:]),
                trt.nptype(engine.get_tensor_dtype(name)),
            )
            for name in names
        ]

    def execution_context(self) -> Any:
        """Return a new execution context. Raises EngineError, for lack of memory above all."""
        if self.native:
            config = self.engine.create_runtime_config()
            config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            context = self.engine.create_execution_context(config)
        else:
            context = self.engine.create_execution_context()
        if context is None:
            raise EngineError(
                f"{self._trt.__name__} cannot start the engine: {said(self._logger)}; close other "
                "programs on the GPU, or rebuild with a smaller --batch"
            )
        return context

    def refused(self, what: str) -> EngineError:
        """Return the error for a call that TensorRT answered with False."""
        return EngineError(f"{self._trt.__name__} failed to {what}: {said(self._logger)}")

    def _load(self, path: Path, graphs: bool) -> None:
        self._runtime = self._trt.Runtime(self._logger)
        self.engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self.engine is None:
            raise EngineError(f"{self._trt.__name__} cannot load {path}: {said(self._logger)}")
        # RTX records and replays by itself, also for shapes that were not foreseen.
        self.native = graphs and hasattr(self._trt, "CudaGraphStrategy")
        self.bindings: Any = _bindings() if graphs and not self.native else None

    @contextlib.contextmanager
    def _current(self) -> Iterator[None]:
        self._context.push()
        try:
            yield
        finally:
            drv.Context.pop()


@dataclass(frozen=True)
class _Buffer:
    """A tensor's pinned memory on the host and its memory on the GPU, for the largest batch."""

    host: npt.NDArray[Any]
    device: Any

    def free(self) -> None:
        self.device.free()
        self.host.base.free()  # type: ignore[union-attr]


class _Lane:
    """What a run needs: a stream, buffers, and execution contexts that take turns on them.

    A captured launch keeps its context's state, so each batch size with a CUDA graph has a context
    of its own; all other sizes share one.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._stream: Any = None
        self._buffers: dict[str, _Buffer] = {}
        self._launches: dict[int, _Launch] = {}
        self._any: Any = None
        self.captured = False

    def prepare(self) -> None:
        """Allocate, run every expected batch size once, and capture it."""
        self._stream = drv.Stream(_NON_BLOCKING)
        for name, shape, kind in self._runner.tensors():
            host = drv.pagelocked_empty(shape, kind)
            self._buffers[name] = _Buffer(host, drv.mem_alloc(host.nbytes))
        for batch in self._runner.batches:
            launch = self._captured(batch) if self._runner.bindings else None
            if launch is None:
                self._warm(self._shared(batch))
            else:
                self._launches[batch] = launch
        self.captured = len(self._launches) == len(self._runner.batches)

    def run(self, frames: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        count, stream = len(frames), self._stream
        given = self._buffers[INPUT]
        given.host[:count] = frames
        drv.memcpy_htod_async(given.device, given.host[:count], stream)
        if count in self._launches:
            self._launches[count].replay(stream.handle)
        else:
            self._execute(self._shared(count))
        results = {
            name: (buffer.host[:count], buffer.device)
            for name, buffer in self._buffers.items()
            if name != INPUT
        }
        for host, device in results.values():
            drv.memcpy_dtoh_async(host, device, stream)
        stream.synchronize()
        return {name: host for name, (host, _) in results.items()}

    def free(self) -> None:
        if self._stream is not None:
            with contextlib.suppress(drv.Error):  # of a run that failed, and was reported
                self._stream.synchronize()
        for launch in self._launches.values():
            launch.free()
        self._launches.clear()
        self._any = None
        for buffer in self._buffers.values():
            buffer.free()
        self._buffers.clear()
        self._stream = None

    def _shared(self, batch: int) -> Any:
        if self._any is None:
            self._any = self._runner.execution_context()
        return self._shaped(self._any, batch)

    def _shaped(self, context: Any, batch: int) -> Any:
        shape = (batch, *self._buffers[INPUT].host.shape[1:])
        if not context.set_input_shape(INPUT, shape):
            raise self._runner.refused(f"take frames {shape}")
        for name, buffer in self._buffers.items():
            if not context.set_tensor_address(name, int(buffer.device)):
                raise self._runner.refused(f"take memory for {name}")
        return context

    def _captured(self, batch: int) -> _Launch | None:
        """Record a launch as a CUDA graph; None where CUDA refuses."""
        runtime, stream = self._runner.bindings, self._stream.handle
        context = self._shaped(self._runner.execution_context(), batch)
        self._warm(context)
        # Of this thread only: another may be allocating, which would spoil a global capture.
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        if int(runtime.cudaStreamBeginCapture(stream, mode)[0]):
            return None
        recorded = context.execute_async_v3(stream)
        error, graph = runtime.cudaStreamEndCapture(stream)
        if int(error):
            return None
        error, made = runtime.cudaGraphInstantiate(graph, 0) if recorded else (1, None)
        runtime.cudaGraphDestroy(graph)
        return None if int(error) else _Launch(runtime, made, context)

    def _execute(self, context: Any) -> None:
        if not context.execute_async_v3(self._stream.handle):
            raise self._runner.refused("run")

    def _warm(self, context: Any) -> None:
        # The first run allocates and chooses, which must not fall into a capture.
        self._execute(context)
        self._stream.synchronize()


@dataclass(frozen=True)
class _Launch:
    """A captured launch, and the execution context whose state it replays."""

    runtime: Any
    graph: Any
    context: Any

    def replay(self, stream: int) -> None:
        (error,) = self.runtime.cudaGraphLaunch(self.graph, stream)
        if int(error):
            raise EngineError(f"a CUDA graph did not start ({error.name}); open the engine again")

    def free(self) -> None:
        self.runtime.cudaGraphExecDestroy(self.graph)


def _bindings() -> Any:
    """Return NVIDIA's bindings of the CUDA runtime, or None where they are not installed."""
    try:
        from cuda.bindings import runtime
    except ImportError:
        return None
    return runtime
