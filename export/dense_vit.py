"""The plain ViT as an ONNX graph, written by hand: what a reduced one is timed against.

Writing it takes a second, where torch's exporter takes ten. Its weights are drawn, as speed does
not depend on them; its products are those of an exported graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from fgdeploy.models.backbone.vit import Geometry

_OPSET, _IR = 18, 9


def graph(shape: Geometry, heads: int, image_size: int) -> onnx.ModelProto:
    """Return a graph: `frames` uint8 [B, S, S, 3] to `embedding` float32 [B, D]."""
    writer = ViTWriter(shape, heads)
    x = writer.embedded("frames")
    for _ in range(shape.depth):
        x = writer.block(x)
    cls = writer.op("Gather", x, writer.held(np.int64(0)), axis=1)
    writer.norm(cls, "embedding")
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        writer.nodes,
        "dense",
        [value("frames", TensorProto.UINT8, ["batch", image_size, image_size, 3])],
        [value("embedding", TensorProto.FLOAT, ["batch", shape.width])],
        writer.weights,
    )
    opset = helper.make_opsetid("", _OPSET)
    return helper.make_model(made, opset_imports=[opset], ir_version=_IR)


class ViTWriter:
    """Adds nodes and weights; every method takes and returns names of tensors.

    rows: token rows of its blocks, None for all that the backbone has.
    """

    def __init__(self, shape: Geometry, heads: int, rows: int | None = None) -> None:
        self.shape, self.heads = shape, heads
        self.rows = shape.patches + shape.prefix_tokens if rows is None else rows
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._drawn = np.random.default_rng(0)

    def op(self, kind: str, *inputs: str, to: str | None = None, **marks: Any) -> str:
        name = to or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name, **marks))
        return name

    def held(self, values: npt.ArrayLike) -> str:
        name = f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def drawn(self, *sizes: int) -> str:
        return self.held(self._drawn.standard_normal(sizes, np.float32) * np.float32(0.02))

    def embedded(self, frames: str) -> str:
        """Cut patches, put the rows that are none before them, add positions: [B, T, D]."""
        shape, width, side = self.shape, self.shape.width, self.shape.patch_size
        x = self._floats(frames)
        stride = [shape.stride or side] * 2
        kernel, bias = self.drawn(width, 3, side, side), self.drawn(width)
        x = self.op("Conv", x, kernel, bias, kernel_shape=[side] * 2, strides=stride)
        x = self.op("Reshape", x, self.held(np.array([0, width, shape.patches])))
        x = self.op("Transpose", x, perm=[0, 2, 1])
        x = self.op("Pad", x, self.held(np.array([0, shape.prefix_tokens, 0, 0, 0, 0])))
        return self.op("Add", x, self.drawn(shape.patches + shape.prefix_tokens, width))

    def _floats(self, frames: str) -> str:
        name = "pixels"
        self.nodes.append(helper.make_node("Cast", [frames], [name], name, to=TensorProto.FLOAT))
        return self.op("Transpose", name, perm=[0, 3, 1, 2])

    def block(self, x: str) -> str:
        """Add a block: attention and MLP, each behind a norm and beside its input."""
        return self.fed(x, self.attended(self.norm(x)))

    def fed(self, x: str, attended: str) -> str:
        """Add what a block does behind attention: projection and MLP, both beside their input."""
        width = self.shape.width
        hidden = round(self.shape.mlp_ratio * width)
        x = self.op("Add", x, self.linear(attended, width, width))
        y = self._gelu(self.linear(self.norm(x), width, hidden))
        return self.op("Add", x, self.linear(y, hidden, width))

    def _gelu(self, y: str) -> str:
        half, one, root = (self.held(np.float32(value)) for value in (0.5, 1, 2**0.5))
        error = self.op("Erf", self.op("Div", y, root))
        return self.op("Mul", y, self.op("Mul", half, self.op("Add", error, one)))

    def attended(self, y: str) -> str:
        """Add q, k, v and attention of normed rows, without the projection."""
        width, rows = self.shape.width, self.rows
        size = width // self.heads
        split = self.held(np.array([0, rows, self.heads, size]))
        names = [f"{part}_{len(self.nodes)}" for part in "qkv"]
        joined = self.linear(y, width, 3 * width)
        thirds = helper.make_node("Split", [joined], names, names[0], axis=-1, num_outputs=3)
        self.nodes.append(thirds)
        q, k, v = (self.op("Reshape", part, split) for part in names)
        q = self.op("Mul", q, self.held(np.float32(size**-0.5)))
        q, v = (self.op("Transpose", part, perm=[0, 2, 1, 3]) for part in (q, v))
        k = self.op("Transpose", k, perm=[0, 2, 3, 1])
        weights = self.op("Softmax", self.op("MatMul", q, k), axis=-1)
        out = self.op("Transpose", self.op("MatMul", weights, v), perm=[0, 2, 1, 3])
        return self.op("Reshape", out, self.held(np.array([0, rows, width])))

    def linear(self, x: str, inner: int, outer: int) -> str:
        """Add a product with drawn weights, and a bias."""
        return self.op("Add", self.op("MatMul", x, self.drawn(inner, outer)), self.drawn(outer))

    def norm(self, x: str, to: str | None = None) -> str:
        """Add a LayerNorm."""
        width = self.shape.width
        scale = self.held(np.ones(width, np.float32))
        return self.op("LayerNormalization", x, scale, self.drawn(width), to=to, epsilon=1e-6)
