"""ONNX Runtime on the CPU: the portable default."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import onnxruntime

from fgdeploy.bundle import Manifest, onnx_scan
from fgdeploy.core import machine
from fgdeploy.engines import ort_layers
from fgdeploy.engines.base import Compiled, EngineSource, GraphEngine, Graphs, Outputs
from fgdeploy.engines.build_settings import BuildSettings

_PROVIDER = "CPUExecutionProvider"
# Its x86 kernels multiply uint8 by int8; on ARM signed by signed is as fast.
_INT8 = ("int8-u8", "int8") if platform.machine() in ("x86_64", "AMD64") else ("int8",)


class OnnxRuntimeEngine(GraphEngine):
    """A graph in ONNX Runtime's CPU provider; compiled, it is the graph after all fusions."""

    backend = "onnxruntime"
    graphs: ClassVar[Graphs] = {
        "fp32": ("fp32",),
        "fp16": ("fp16",),
        "int8": _INT8,
    }
    file_name = "engine.onnx"
    concurrent = True

    def __init__(self, manifest: Manifest, source: EngineSource) -> None:
        super().__init__(manifest, source)
        options = session_options(source.threads)
        # A pattern is planned beside the memory that the first run took: twice the peak.
        options.enable_mem_pattern = False
        if source.compiled:
            onnx_scan.check(source.path)
            # Fused already: a second round could only make it another graph.
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = _start(source.path, options)
        self._names = [output.name for output in self._session.get_outputs()]

    @classmethod
    def compile(
        cls, graph: Path, precision: str, manifest: Manifest, target: Path, settings: BuildSettings
    ) -> Compiled:
        """Write the graph after our fusions (where onnx is installed) and ONNX Runtime's."""
        options = session_options(settings.threads)
        options.optimized_model_filepath = str(target)
        fused = _fused(graph) if precision in ("fp32", "int8") else None
        _start(graph if fused is None else fused, options)
        flags = {"provider": _PROVIDER, "rewritten": fused is not None}
        if fused is not None and precision == "int8":
            from fgdeploy.engines import ort_int8_bias

            ort_int8_bias.move_all(target)
        return Compiled(flags, ort_layers.read(target))

    @classmethod
    def version(cls) -> str:
        """Return ONNX Runtime's version."""
        return str(onnxruntime.__version__)

    def _run(self, frames: npt.NDArray[np.uint8]) -> Outputs:
        values = self._session.run(self._names, {"frames": frames})
        return Outputs.from_arrays(dict(zip(self._names, values, strict=True)))

    def _free(self) -> None:
        self._session = None


def _start(graph: Path | bytes, options: Any) -> Any:
    return onnxruntime.InferenceSession(graph, options, providers=[_PROVIDER])


def _fused(graph: Path) -> bytes | None:
    """Return a graph with attention as one op; None where onnx is not installed.

    ONNX Runtime fuses GELU by itself; norms after sums gained nothing here (measured, AVX-512).
    """
    try:
        import onnx

        from fgdeploy.engines.ort_fusing import fuse
    except ModuleNotFoundError:
        return None
    model = onnx.load(graph)
    fuse(model, ("attention",))
    return bytes(model.SerializeToString())


def session_options(threads: int | None = None) -> Any:
    """Return the options of every session; threads: None for all cores.

    With them INT8 is exact on any CPU.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or machine.cores()
    # Idle workers sleep: photos are decoded on the same cores while the graph runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Without VNNI, products of uint8 and int8 overflow 16 bits; this takes the exact kernels.
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options
