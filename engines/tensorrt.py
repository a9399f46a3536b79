"""TensorRT: Jetson and datacenter GPUs, compiled on the device itself."""

from __future__ import annotations

import tensorrt

from fgdeploy.engines.trt_engine import TrtEngine


class TensorRtEngine(TrtEngine):
    """An engine of TensorRT 10.3 or later."""

    backend = "tensorrt"
    trt = tensorrt
