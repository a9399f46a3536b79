"""A bundle whose graph says what it looked at, and whose answers are known beforehand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgdeploy.bundle import Output, seal
from tests.conftest import toy_manifest, write_toy_graph

GRID = (2, 2)


def write_showing_bundle(folder: Path, **changes: Any) -> Path:
    """Write the toy bundle with two more outputs, without torch.

    `similarity` [B, 2, 2] is the brightness of the photo's quarters; `box` [B, 4] is 0, 0 and
    the last two numbers divided by 8. changes: of the manifest.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder.mkdir()
    write_toy_graph(folder / "model.onnx")
    model = onnx.load(folder / "model.onnx")
    node, value = helper.make_node, helper.make_tensor_value_info
    eighths = np.array([0, 0, 0.125, 0.125], np.float32)
    for array, name in ((np.array([1]), "channels"), (eighths, "eighths")):
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    model.graph.node.extend(
        [
            node("AveragePool", ["planes"], ["quarters"], kernel_shape=[16, 16], strides=[16, 16]),
            node("ReduceMean", ["quarters", "channels"], ["similarity"], keepdims=0),
            node("Flatten", ["similarity"], ["numbers"]),
            node("Mul", ["numbers", "eighths"], ["box"]),
        ]
    )
    model.graph.output.extend(
        [
            value("similarity", TensorProto.FLOAT, ["batch", 2, 2]),
            value("box", TensorProto.FLOAT, ["batch", 4]),
        ]
    )
    onnx.checker.check_model(model, full_check=True)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    plain = toy_manifest()
    shown = {"similarity": Output("float32", GRID), "box": Output("float32", (4,))}
    # as many rows enter the second block as the first: no token goes
    blocks = tuple(dataclasses.replace(one, tokens=5) for one in plain.blocks)
    changes = {"outputs": {**plain.outputs, **shown}, "blocks": blocks, **changes}
    seal(folder, dataclasses.replace(plain, **changes))
    return folder


def quarters(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return the brightness of a frame's quarters, [2, 2]."""
    return frame.astype(np.float64).reshape(2, 16, 2, 16, 3).mean(axis=(1, 3, 4))
