"""Write a plan as a graph in FP8: E4M3 where INT8 has integers, with INT8's balance and ranges.

E4M3 has four bits of exponent and three of mantissa, no infinity, and 448 as its largest value
(Micikevicius et al., "FP8 formats for deep learning", 2022). One scale per activation, one per
output channel of a weight. The patch embedding stays in float, as E4M3 does not hold pixels. Biases
are not corrected: the corrections of a plan are INT8's.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from fgdeploy.calibration.half import raise_opset, to_half
from fgdeploy.calibration.int8_plan import Int8Plan, Layer
from fgdeploy.calibration.paths import Node
from fgdeploy.calibration.qdq import Writer
from fgdeploy.calibration.ranges import LEVELS

LARGEST = 448.0
# A range found for INT8 may cut values off, at half the largest at worst; E4M3 need not.
_HEADROOM = 2.0
_MAGNITUDES = 127  # codes from 0 to 448; 127 is no number


def write(plan: Int8Plan, in_float: Collection[str] = ()) -> onnx.ModelProto:
    """Return the Q/DQ graph in E4M3, all else in FP16; the layers of `in_float` stay in FP16."""
    pixels = {name for name, layer in plan.layers.items() if layer.linear.is_patch_embedding}
    model = _Writer(plan, plan.in_float | set(in_float) | pixels).run()
    return to_half(model)


def encode(values: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Return the codes of the nearest E4M3 values, ties to even, beyond 448 as 448."""
    given = np.asarray(values, np.float64)
    known = decode(np.arange(_MAGNITUDES, dtype=np.uint8))
    middle = (known[1:] + known[:-1]) / 2
    low, high = (np.searchsorted(middle, np.abs(given), side) for side in ("left", "right"))
    nearest = np.where(low % 2 == 0, low, high)  # they differ at a tie alone
    codes: npt.NDArray[np.uint8] = (nearest + 128 * np.signbit(given)).astype(np.uint8)
    return codes


def decode(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return what codes stand for; 127 and 255 are none."""
    exponent, mantissa = (codes >> 3) & 15, codes & 7
    normal = (1 + mantissa / 8) * 2.0 ** (exponent.astype(np.float64) - 7)
    magnitude = np.where(exponent == 0, mantissa / 8 * 2.0**-6, normal)
    return np.where(codes & 128, -magnitude, magnitude)


def scale_of(limit: float) -> float:
    """Return the scale that makes 448 of a limit, one that FP16 holds exactly."""
    limits = np.finfo(np.float16)
    return float(np.float16(np.clip(limit / LARGEST, limits.tiny, limits.max)))


class _Writer(Writer):
    def __init__(self, plan: Int8Plan, in_float: frozenset[str]) -> None:
        super().__init__(plan, in_float, unsigned=False)
        raise_opset(self.model)

    def _codes(self, name: str, codes: npt.NDArray[np.uint8]) -> str:
        tensor = helper.make_tensor(
            name, TensorProto.FLOAT8E4M3FN, codes.shape, codes.tobytes(), raw=True
        )
        self.graph.initializer.append(tensor)
        return name

    def _round(self, x: str, step: float) -> list[Node]:
        scale = self._constant(f"{x}/step", scale_of(_HEADROOM * LEVELS * step))
        zero = self._codes(f"{x}/zero", np.zeros((), np.uint8))
        quantised, back = f"{x}/quantised", f"{x}/dequantised"
        return [
            self._op("QuantizeLinear", [x, scale, zero], quantised),
            self._op("DequantizeLinear", [quantised, scale, zero], back),
        ]

    def _weight(self, layer: Layer, node: Node, axis: int) -> str:
        name = layer.linear.name
        scales = np.array([scale_of(limit) for limit in np.abs(layer.weight).max(axis=0)])
        inputs = [
            self._codes(f"{name}/codes", encode(layer.weight / scales)),
            self._constant(f"{name}/scales", scales),
            self._codes(f"{name}/zeros", np.zeros(len(scales), np.uint8)),
        ]
        made = self._op("DequantizeLinear", inputs, f"{name}/weight", axis=axis)
        self.before.setdefault(node.name, []).append(made)
        return f"{name}/weight"

    def _bias(self, layer: Layer, values: npt.NDArray[np.float64]) -> None:
        super()._bias(layer, layer.bias)
