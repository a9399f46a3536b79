"""Run a TensorRT engine on the first GPU: one stream, pinned buffers, CUDA graphs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgdeploy.core.errors import EngineError
from fgdeploy.engines.cuda_driver import Buffer, Driver, Launch, driver, record, recorder
from fgdeploy.engines.trt_build import make_logger, said
from fgdeploy.engines.trt_objects import freed_in_time

INPUT = "frames"


class Runner:
    """A deserialised engine on the first GPU; any thread may run it, one at a time.

    graphs: whether launches are replayed from CUDA graphs. Raises EngineError if the engine does
    not load, ModuleNotFoundError where neither pycuda nor cuda-bindings is installed.
    """

    def __init__(self, trt: Any, path: Path, batches: Sequence[int], graphs: bool = True) -> None:
        self._gpu = driver()
        self._loaded = _Loaded(trt, graphs)
        self._lane = _Lane(self._loaded, self._gpu, tuple(batches))
        self._open = True
        try:
            with freed_in_time(), self._gpu.current():
                self._loaded.load(path)
                self._lane.prepare()  # so that the first run is as fast as the others
            self.graphs = self._loaded.native or self._lane.captured
        except BaseException:
            self.close()
            raise

    def run(self, frames: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        """Return the outputs by name: views into buffers that the next run overwrites."""
        with freed_in_time(), self._gpu.current():
            return self._lane.run(frames)

    def close(self) -> None:
        """Free everything, with the context current; nothing may be running."""
        if not self._open:
            return
        self._open = False
        with self._gpu.current():
            self._lane.free()
            self._loaded.free()

    def __del__(self) -> None:
        if getattr(self, "_open", False) and not sys.is_finalizing():
            self.close()


class _Loaded:
    """The engine and what it was loaded by. native: it records CUDA graphs by itself."""

    def __init__(self, trt: Any, graphs: bool) -> None:
        self._trt, self._graphs = trt, graphs
        # RTX records and replays by itself, also for shapes that were not foreseen.
        self.native = graphs and hasattr(trt, "CudaGraphStrategy")
        self._logger = make_logger(trt)
        self._runtime: Any = None
        self._engine: Any = None

    def load(self, path: Path) -> None:
        self._runtime = self._trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise EngineError(f"{self._trt.__name__} cannot load {path}: {said(self._logger)}")

    def recorder(self) -> Any:
        """Return what records CUDA graphs for it, None where it does or nothing can."""
        return recorder() if self._graphs and not self.native else None

    def tensors(self, most: int) -> list[tuple[str, tuple[int, ...], Any]]:
        """Return each tensor's name, shape for a batch of `most`, and NumPy type."""
        engine, trt = self._engine, self._trt
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        return [
            (
                name,
                (most, *tuple(engine.get_tensor_shape(name))[1:]),
                trt.nptype(engine.get_tensor_dtype(name)),
            )
            for name in names
        ]

    def context(self) -> Any:
        """Return a new execution context. Raises EngineError, for lack of memory above all."""
        if self.native:
            config = self._engine.create_runtime_config()
            config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            context = self._engine.create_execution_context(config)
        else:
            context = self._engine.create_execution_context()
        if context is None:
            raise EngineError(
                f"{self._trt.__name__} cannot start the engine: {said(self._logger)}; close other "
                "programs on the GPU, or rebuild with a smaller --batch"
            )
        return context

    def refused(self, what: str) -> EngineError:
        """Return the error for a call that TensorRT answered with False."""
        return EngineError(f"{self._trt.__name__} failed to {what}: {said(self._logger)}")

    def free(self) -> None:
        self._engine = None
        self._runtime = None


class _Lane:
    """What a run needs: a stream, buffers, and execution contexts that take turns on them.

    A captured launch keeps its context's state, so each batch size with a CUDA graph has a context
    of its own; all other sizes share one.
    """

    def __init__(self, loaded: _Loaded, gpu: Driver, batches: tuple[int, ...]) -> None:
        self._loaded, self._gpu, self._batches = loaded, gpu, batches
        self._stream: Any = None
        self._buffers: dict[str, Buffer] = {}
        self._launches: dict[int, tuple[Launch, Any]] = {}  # with the context that it replays
        self._any: Any = None
        self.captured = False

    def prepare(self) -> None:
        """Allocate, run every expected batch size once, and capture it."""
        self._stream = self._gpu.stream()
        for name, shape, kind in self._loaded.tensors(max(self._batches)):
            self._buffers[name] = self._gpu.buffer(shape, kind)
        api = self._loaded.recorder()
        for batch in self._batches:
            if api is None or not self._capture(api, batch):
                self._warm(self._shared(batch))
        self.captured = len(self._launches) == len(self._batches)

    def run(self, frames: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        count, stream = len(frames), self._stream
        given = self._buffers[INPUT]
        given.host[:count] = frames
        self._gpu.upload(given, count, stream)
        if count in self._launches:
            self._launches[count][0].replay(stream)
        else:
            self._execute(self._shared(count))
        results = {name: buffer for name, buffer in self._buffers.items() if name != INPUT}
        for buffer in results.values():
            self._gpu.download(buffer, count, stream)
        self._gpu.synchronize(stream)
        return {name: buffer.host[:count] for name, buffer in results.items()}

    def free(self) -> None:
        if self._stream is not None:
            self._gpu.settle(self._stream)
        for launch, _ in self._launches.values():
            launch.free()
        self._launches.clear()
        self._any = None
        for buffer in self._buffers.values():
            self._gpu.free(buffer)
        self._buffers.clear()
        if self._stream is not None:
            self._gpu.end(self._stream)
        self._stream = None

    def _shared(self, batch: int) -> Any:
        if self._any is None:
            self._any = self._loaded.context()
        return self._shaped(self._any, batch)

    def _shaped(self, context: Any, batch: int) -> Any:
        shape = (batch, *self._buffers[INPUT].host.shape[1:])
        if not context.set_input_shape(INPUT, shape):
            raise self._loaded.refused(f"take frames {shape}")
        for name, buffer in self._buffers.items():
            if not context.set_tensor_address(name, buffer.device):
                raise self._loaded.refused(f"take memory for {name}")
        return context

    def _capture(self, api: Any, batch: int) -> bool:
        """Record a launch as a CUDA graph; return whether CUDA took it."""
        context = self._shaped(self._loaded.context(), batch)
        self._warm(context)
        handle = self._stream.handle
        launch = record(api, self._stream, lambda: bool(context.execute_async_v3(handle)))
        if launch is not None:
            self._launches[batch] = (launch, context)
        return launch is not None

    def _execute(self, context: Any) -> None:
        if not context.execute_async_v3(self._stream.handle):
            raise self._loaded.refused("run")

    def _warm(self, context: Any) -> None:
        # The first run allocates and chooses, which must not fall into a capture.
        self._execute(context)
        self._gpu.synchronize(self._stream)
