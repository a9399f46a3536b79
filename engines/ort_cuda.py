"""ONNX Runtime's CUDA provider: fused ops in FP16, memory bound, launches captured."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnxruntime

from fgdeploy.bundle import Manifest, onnx_scan
from fgdeploy.core.errors import EngineError, MissingDependency
from fgdeploy.engines import ort_layers, ort_session
from fgdeploy.engines.base import Compiled, EngineSource, GraphEngine, Graphs, Outputs
from fgdeploy.engines.build_settings import BuildSettings
from fgdeploy.engines.onnxruntime import session_options


class OnnxRuntimeCudaEngine(GraphEngine):
    """A graph of fused ops on the first GPU.

    Each batch size that it was built for has a CUDA graph; others are launched op by op.
    cuda_graphs: whether launches are captured; set it to False on the class to do without.
    """

    backend = "onnxruntime-cuda"
    # FP16 is made from the fp32 graph: the calibrated one has a Cast at every sum and norm.
    graphs: ClassVar[Graphs] = {"fp32": ("fp32",), "fp16": ("fp32",), "int8": ("int8",)}
    file_name = "engine.onnx"
    gpu = True
    cuda_graphs: bool = True

    def __init__(self, manifest: Manifest, source: EngineSource) -> None:
        super().__init__(manifest, source)
        self._frame = (manifest.image_size, manifest.image_size, 3)
        self._session: Any = None
        self._bound: dict[int, ort_session.Bound] = {}
        # ONNX Runtime keeps captured launches by thread, so one thread runs them all.
        self._thread = ThreadPoolExecutor(1, "onnxruntime-cuda")
        try:
            self._thread.submit(self._open).result()
        except BaseException:
            self._free()
            raise

    @classmethod
    def check_arithmetic(cls, precision: str) -> None:
        """Raise EngineError for INT8, which this provider multiplies in floating point."""
        if precision == "int8":
            raise EngineError(
                "ONNX Runtime's CUDA provider turns INT8 layers back into floating point and is "
                "slower with them (4.0, 4.5 and 10.6 ms against 3.4, 3.6 and 8.2 ms in FP16 at "
                "batch 1, 8 and 64, H200); take --fp16, or tensorrt for INT8"
            )

    @classmethod
    def compile(
        cls, graph: Path, precision: str, manifest: Manifest, target: Path, settings: BuildSettings
    ) -> Compiled:
        """Write the graph after our fusions and ONNX Runtime's own for this GPU."""
        model, made = _rewritten(graph, precision)
        options = session_options(settings.threads)
        options.optimized_model_filepath = str(target)
        ort_session.start(model, options)
        flags = {"provider": ort_session.PROVIDER, **ort_session.SETTINGS, **made}
        return Compiled(flags, ort_layers.read(target))

    @classmethod
    def version(cls) -> str:
        """Return ONNX Runtime's version."""
        return str(onnxruntime.__version__)

    def describe(self) -> str:
        """Return in one line what runs, where it comes from and how it is launched."""
        how = "CUDA graphs" if self.cuda_graphs else "no CUDA graphs"
        return f"{super().describe()[:-1]}, {how})"

    def _open(self) -> None:
        source = self.source
        graph: Path | bytes = source.path
        if source.compiled:
            onnx_scan.check(source.path)
        else:
            graph, _ = _rewritten(source.path, source.precision)
        self._session = self._start(graph)
        if self.cuda_graphs:
            for batch in source.batches or BuildSettings().batches:
                self._bound[batch] = ort_session.Bound(self._session, batch, self._frame)

    def _start(self, graph: Path | bytes) -> Any:
        options = session_options(self.source.threads)
        if self.source.compiled:
            # Fused already: a second round could only make it another graph.
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        if self.cuda_graphs:
            try:
                return ort_session.start(graph, options, captures=True)
            except EngineError:
                raise
            except Exception as error:
                if "graph capture" not in str(error):
                    raise
                self.cuda_graphs = False  # an op of this graph has no kernel on the GPU
        return ort_session.start(graph, options)

    def _run(self, frames: npt.NDArray[np.uint8]) -> Outputs:
        return self._thread.submit(self._launch, frames).result()

    def _launch(self, frames: npt.NDArray[np.uint8]) -> Outputs:
        bound = self._bound.get(len(frames))
        if bound is not None:
            return Outputs.from_arrays(bound.run(frames))
        return Outputs.from_arrays(ort_session.run_uncaptured(self._session, frames))

    def _free(self) -> None:
        self._thread.submit(self._release).result()
        self._thread.shutdown()

    def _release(self) -> None:
        for bound in self._bound.values():
            bound.free()
        self._bound.clear()
        self._session = None


def _rewritten(graph: Path, precision: str) -> tuple[bytes, dict[str, Any]]:
    """Return a bundle's fp32 graph for CUDA, and what was made of it."""
    try:
        import onnx

        from fgdeploy.engines import ort_half
    except ModuleNotFoundError as error:
        need = "making the onnxruntime-cuda engine"
        raise MissingDependency(error.name or "onnx", "gpu", need) from None
    made = ort_half.make(onnx.load(graph), half=precision == "fp16")
    return bytes(made.model.SerializeToString()), {"rewritten": made.fused, "casts": made.casts}
