"""OpenVINO on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino

from fgdeploy.bundle import Manifest
from fgdeploy.engines.base import Engine, Outputs


class OpenVinoEngine(Engine):
    """A graph in OpenVINO's CPU plugin, tuned for the latency of one call."""

    backend = "openvino"

    def __init__(
        self, graph: Path, manifest: Manifest, precision: str = "fp32", threads: int | None = None
    ) -> None:
        super().__init__(manifest)
        self.precision = precision
        # Left alone the plugin computes in bf16 where the CPU can; fp32 must mean fp32.
        settings: dict[str, str | int] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        self._compiled = openvino.Core().compile_model(str(graph), "CPU", settings)
        self._request = self._compiled.create_infer_request()

    def _run(self, frames: npt.NDArray[np.uint8]) -> Outputs:
        results = self._request.infer({"frames": frames})
        return Outputs.from_arrays({port.get_any_name(): value for port, value in results.items()})

    def close(self) -> None:
        """Free the compiled model."""
        super().close()
        self._request = self._compiled = None
