"""TensorRT-RTX: desktop and laptop RTX GPUs; compiles for them without having one, too."""

from __future__ import annotations

from pathlib import Path

import tensorrt_rtx

from fgdeploy.bundle import Manifest
from fgdeploy.core.errors import UsageError
from fgdeploy.engines.base import Compiled
from fgdeploy.engines.build_settings import BuildSettings
from fgdeploy.engines.trt_engine import TrtEngine


class TensorRtRtxEngine(TrtEngine):
    """An engine of TensorRT-RTX, whose kernels are finished on the GPU at loading."""

    backend = "tensorrt-rtx"
    trt = tensorrt_rtx

    @classmethod
    def compile(
        cls, graph: Path, precision: str, manifest: Manifest, target: Path, settings: BuildSettings
    ) -> Compiled:
        """Write TensorRT-RTX's engine. Raises UsageError for what only TensorRT has."""
        if settings.timing_cache is not None:
            raise UsageError("TensorRT-RTX times nothing while compiling; leave --timing-cache out")
        if settings.hardware_compatible:
            raise UsageError(
                "TensorRT-RTX takes a list of GPUs instead of --hardware-compatible; name them "
                "with --compute-capability"
            )
        return super().compile(graph, precision, manifest, target, settings)
