"""Graphs of a few equal blocks, or halves of blocks, on a fixed number of rows: to be timed.

Two depths of one stack differ by blocks alone, so what a call costs beside them cancels.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from fgdeploy.export.dense_vit import ViTWriter
from fgdeploy.models.backbone.vit import Geometry

SIDE, BITS = 8, 8  # of the drawn frames and codes
_STEP = 0.05  # of drawn activations: how they are rounded changes no time


def graph(
    shape: Geometry,
    heads: int,
    rows: int,
    depth: int,
    feed_only: bool = False,
    int8: bool = False,
    unsigned: bool = False,
) -> onnx.ModelProto:
    """Return `frames` uint8 [B, 8, 8, 3] to `hash` float32 [B, 8] and `code` uint8 [B, 1].

    feed_only: of each block projection and MLP alone. int8: linear layers between Q and DQ, with
    drawn steps; unsigned: activations as uint8, as ONNX Runtime likes them on x86.
    """
    writer = _Int8Writer(shape, heads, rows, unsigned) if int8 else ViTWriter(shape, heads, rows)
    x = _rows_of("frames", writer, rows)
    for _ in range(depth):
        x = writer.fed(x, x) if feed_only else writer.block(x)
    cls = writer.op("Gather", x, writer.held(np.int64(0)), axis=1)
    normed = writer.norm(cls)
    cut = [writer.held(np.array([number])) for number in (0, BITS, 1)]  # first, end, axis
    writer.op("Slice", normed, *cut, to="hash")
    above = writer.op("Greater", "hash", writer.held(np.float32(0)))
    most = writer.op("ReduceMax", _cast(above, writer, TensorProto.FLOAT), cut[2], keepdims=1)
    writer.nodes.append(helper.make_node("Cast", [most], ["code"], "code", to=TensorProto.UINT8))
    return _model(writer)


def _rows_of(frames: str, writer: ViTWriter, rows: int) -> str:
    """Return tokens [B, rows, D] that depend on the frames, for next to nothing."""
    floats = _cast(frames, writer, TensorProto.FLOAT)
    axes = writer.held(np.array([1, 2, 3]))
    mean = writer.op("ReduceMean", floats, axes, keepdims=1)
    mean = writer.op("Reshape", mean, writer.held(np.array([0, 1, 1])))
    return writer.op("Add", mean, writer.drawn(rows, writer.shape.width))


def _cast(name: str, writer: ViTWriter, kind: int) -> str:
    done = f"{name}/cast"
    writer.nodes.append(helper.make_node("Cast", [name], [done], done, to=kind))
    return done


def _model(writer: ViTWriter) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        writer.nodes,
        "stack",
        [value("frames", TensorProto.UINT8, ["batch", SIDE, SIDE, 3])],
        [
            value("code", TensorProto.UINT8, ["batch", 1]),
            value("hash", TensorProto.FLOAT, ["batch", BITS]),
        ],
        writer.weights,
    )
    opset = helper.make_opsetid("", 18)
    return helper.make_model(made, opset_imports=[opset], ir_version=9)


class _Int8Writer(ViTWriter):
    """Writes linear layers as calibration does: input rounded once, weight by output channel."""

    def __init__(self, shape: Geometry, heads: int, rows: int, unsigned: bool) -> None:
        super().__init__(shape, heads, rows)
        self._zero = np.uint8(128) if unsigned else np.int8(0)

    def linear(self, x: str, inner: int, outer: int) -> str:
        """Add a product of rounded numbers, and a bias."""
        step, zero = self.held(np.float32(_STEP)), self.held(self._zero)
        rounded = self.op("QuantizeLinear", x, step, zero)
        x = self.op("DequantizeLinear", rounded, step, zero)
        drawn = self._drawn.integers(-127, 128, (inner, outer), np.int8)
        steps = self.held(np.full(outer, _STEP / 100, np.float32))
        zeros = self.held(np.zeros(outer, np.int8))
        weight = self.op("DequantizeLinear", self.held(drawn), steps, zeros, axis=1)
        return self.op("Add", self.op("MatMul", x, weight), self.drawn(outer))
