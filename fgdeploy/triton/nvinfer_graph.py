"""A bundle's graph as DeepStream's `nvinfer` feeds it: float pixels, channels first.

`nvinfer` writes float32 pixels into the input whatever type the engine declares there, and plans a
planar input first; a uint8 input would take four times its bytes. So the input becomes float32
(B, 3, S, S) of raw pixels, 0 to 255, and the rest of the graph stays as it is: the first thing it
does is to turn pixels into float. `code` is left out with what only it needs: the reader packs the
signs of `hash`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fgdeploy.core.errors import ExportError, MissingDependency
from fgdeploy.triton.model_tensors import FRAMES

PIXELS = "pixels"
# What may read the frames: it does the same with float pixels.
_READERS = ("Cast", "Shape")


def for_nvinfer(path: Path) -> bytes:
    """Return the ONNX file for `nvinfer`. Raises ExportError for a graph that it cannot be made of.

    Raises MissingDependency without the onnx package.
    """
    try:
        import onnx
    except ImportError:
        raise MissingDependency("onnx", "calibrate", "writing for DeepStream") from None
    model: Any = onnx.load(path)
    graph = model.graph
    odd = {node.op_type for node in graph.node if FRAMES in node.input} - set(_READERS)
    if odd or [one.name for one in graph.input] != [FRAMES]:
        raise ExportError(
            f"{path.name} reads its {FRAMES} by {', '.join(sorted(odd)) or 'other inputs'}, "
            f"expected {' and '.join(_READERS)} alone; export the bundle again"
        )
    batch, height, width, channels = graph.input[0].type.tensor_type.shape.dim
    size = (batch.dim_param, channels.dim_value, height.dim_value, width.dim_value)
    turned = onnx.helper.make_node(
        "Transpose", [PIXELS], [FRAMES], name="nvinfer/channels_last", perm=[0, 2, 3, 1]
    )
    graph.node.insert(0, turned)
    pixels = onnx.helper.make_tensor_value_info(PIXELS, onnx.TensorProto.FLOAT, size)
    graph.input[0].CopyFrom(pixels)
    kept = [one for one in graph.output if one.name != "code"]
    del graph.output[:]
    graph.output.extend(kept)
    _drop_unused(graph)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _drop_unused(graph: Any) -> None:
    """Drop nodes that no output needs: TensorRT reads them, and refuses uint8 that is no output."""
    needed = {one.name for one in graph.output}
    kept = []
    for node in reversed(graph.node):  # in the order they run, so backwards all at once
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    weights = [one for one in graph.initializer if one.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(weights)
