"""OpenVINO on the CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import openvino

from fgdeploy import machine
from fgdeploy.bundle import Manifest
from fgdeploy.engines.base import GraphEngine, Graphs, Outputs, Source
from fgdeploy.engines.settings import BuildSettings
from fgdeploy.errors import EngineError

# precision -> (what it computes in where the graph does not say, the capability that this needs,
# what it computes in without it; None where that would be another precision)
_ARITHMETIC: dict[str, tuple[str, str, str | None]] = {
    "fp32": ("f32", "FP32", "f32"),
    "bf16": ("bf16", "BF16", None),
    "fp16": ("f16", "FP16", "f32"),
    "int8": ("f32", "FP32", "f32"),
}


class OpenVinoEngine(GraphEngine):
    """A graph in OpenVINO's CPU plugin, tuned for the latency of one call."""

    backend = "openvino"
    graphs: ClassVar[Graphs] = {
        "fp32": ("fp32",),
        "bf16": ("fp32",),
        "fp16": ("fp16",),
        "int8": ("int8",),
    }
    file_name = "engine.blob"

    def __init__(self, manifest: Manifest, source: Source) -> None:
        super().__init__(manifest, source)
        core = openvino.Core()
        settings = _settings(core, source.precision, source.threads)
        if source.compiled:
            # The blob does not carry its arithmetic: the same settings make the same numbers.
            self._compiled = core.import_model(source.path.read_bytes(), "CPU", settings)
        else:
            self._compiled = core.compile_model(str(source.path), "CPU", settings)
        self._request = self._compiled.create_infer_request()

    @classmethod
    def compile(
        cls, graph: Path, precision: str, manifest: Manifest, target: Path, settings: BuildSettings
    ) -> Mapping[str, Any]:
        """Write OpenVINO's compiled model, which loads without an ONNX reader."""
        core = openvino.Core()
        chosen = _settings(core, precision, settings.threads)
        compiled = core.compile_model(str(graph), "CPU", chosen)
        target.write_bytes(compiled.export_model().getbuffer())
        return {"arithmetic": chosen["INFERENCE_PRECISION_HINT"]}

    @classmethod
    def version(cls) -> str:
        """Return OpenVINO's version."""
        return str(openvino.__version__).partition("-")[0]

    def _run(self, frames: npt.NDArray[np.uint8]) -> Outputs:
        results = self._request.infer({"frames": frames})
        return Outputs.from_arrays({port.get_any_name(): value for port, value in results.items()})

    def close(self) -> None:
        """Free the compiled model."""
        super().close()
        self._request = self._compiled = None


def _settings(core: Any, precision: str, threads: int | None) -> dict[str, Any]:
    hint, needs, otherwise = _ARITHMETIC[precision]
    if needs not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        if otherwise is None:
            raise EngineError(
                f"this CPU cannot compute in {precision} ({machine.cpu().name}); use fp32 or int8"
            )
        hint = otherwise
    # Left alone the plugin computes in bf16 where the CPU can; fp32 must mean fp32.
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads or machine.cores(),
        "INFERENCE_PRECISION_HINT": hint,
    }
    if machine.cores() < (os.cpu_count() or 1):
        settings["ENABLE_CPU_PINNING"] = False  # it would pin to cores that others work on
    return settings
