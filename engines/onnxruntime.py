"""ONNX Runtime, the portable default."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from fgdeploy.bundle import Manifest
from fgdeploy.engines.base import Engine, Outputs


class OnnxRuntimeEngine(Engine):
    """A graph in ONNX Runtime's CPU provider."""

    backend = "onnxruntime"

    def __init__(
        self, graph: Path, manifest: Manifest, precision: str = "fp32", threads: int | None = None
    ) -> None:
        super().__init__(manifest)
        self.precision = precision
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        # Idle workers sleep: photos are decoded on the same cores while the graph runs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )
        self._names = [output.name for output in self._session.get_outputs()]

    def _run(self, frames: npt.NDArray[np.uint8]) -> Outputs:
        values = self._session.run(self._names, {"frames": frames})
        return Outputs.from_arrays(dict(zip(self._names, values, strict=True)))

    def close(self) -> None:
        """Free the session."""
        super().close()
        self._session = None
