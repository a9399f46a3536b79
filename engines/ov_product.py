"""Whether OpenVINO multiplies 8-bit numbers exactly on this CPU: one product is tried.

Without VNNI its x86 kernels add two products of 8-bit numbers in 16 bits, which clips as soon as
weights use more than half of their range. No public setting changes that, and flags do not tell
for sure: an environment variable of oneDNN's, too, takes VNNI away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fgdeploy.engines.ov_core import openvino, opset13

# Errors over the largest output: exact sums are off by float32's rounding, clipped ones by 0.12.
EXACT = 1e-4
_ROWS, _K, _N = 8, 192, 64


def error(core: Any, settings: Mapping[str, Any]) -> float:
    """Return the error over the largest output of an INT8 product [8, 192] @ [192, 64].

    Weights are Gaussian and use all of +-127, inputs all of -128..127.
    """
    chooser = np.random.default_rng(0)
    spread = chooser.standard_normal((_K, _N))
    weights = np.rint(127 * spread / np.abs(spread).max(axis=0)).astype(np.int8)
    x = chooser.integers(-128, 128, (_ROWS, _K))
    got = core.compile_model(_product(weights), "CPU", settings)([(x / 128).astype(np.float32)])[0]
    wanted = x / 128 @ (weights / 127)
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


def _product(weights: Any) -> Any:
    """Return the model as it reads a graph's QuantizeLinear and DequantizeLinear."""
    x = opset13.parameter([_ROWS, _K], np.float32)
    low, high = np.float32(-1), np.float32(127 / 128)
    rounded = opset13.fake_quantize(x, low, high, low, high, 256)
    steps = np.full((1, _N), 1 / 127, np.float32)
    floats = opset13.multiply(opset13.convert(opset13.constant(weights), "f32"), steps)
    return openvino.Model([opset13.matmul(rounded, floats, False, False)], [x], "product")
