"""ONNX files alone: which inputs random numbers stand for, and what is refused in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from fgdeploy.core.errors import BundleError, EngineError, UsageError
from fgdeploy.proof.bare_graph import opened, random_feeds, read_inputs
from tests.checks import refused


def _write(path: Path, *inputs: tuple[str, int, list[int | str] | None]) -> Path:
    values = [helper.make_tensor_value_info(*one) for one in inputs]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _, _ in inputs]
    outputs = [helper.make_tensor_value_info(f"{n}_out", t, s) for n, t, s in inputs]
    graph = helper.make_graph(nodes, "g", values, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def test_several_inputs_by_type_and_shape(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "g.onnx",
        ("image", TensorProto.FLOAT, ["n", 3, 4, 4]),
        ("bytes", TensorProto.UINT8, ["n", 500]),
        ("ids", TensorProto.INT64, ["n", 7]),
    )
    feeds = random_feeds(path, read_inputs(path), 2)
    assert {name: (str(a.dtype), a.shape) for name, a in feeds.items()} == {
        "image": ("float32", (2, 3, 4, 4)),
        "bytes": ("uint8", (2, 500)),
        "ids": ("int64", (2, 7)),
    }
    assert feeds["image"].min() >= 0 and feeds["image"].max() < 1 and np.ptp(feeds["image"]) > 0.5
    assert feeds["bytes"].max() > 200
    assert set(feeds["ids"].ravel()) == {0, 1}
    for engine in ("onnxruntime:fp32", "openvino:fp32"):
        opened(str(path), engine, 1)(3)()


@pytest.mark.parametrize(
    ("shape", "type_", "words"),
    [
        (["n", "height"], TensorProto.FLOAT, "open size height at place 2; only the first"),
        (["n", 3], TensorProto.STRING, "is of ONNX type 8"),
    ],
)
def test_inputs_that_are_refused(
    tmp_path: Path, shape: list[int | str], type_: int, words: str
) -> None:
    path = _write(tmp_path / "g.onnx", ("x", type_, shape))
    with refused(UsageError, words):
        read_inputs(path)


def test_fixed_batches_and_other_files(tmp_path: Path) -> None:
    path = _write(tmp_path / "g.onnx", ("x", TensorProto.FLOAT, [4, 3]))
    with refused(EngineError, r"x has the fixed batch 4, got 1; run with --batch 4"):
        random_feeds(path, read_inputs(path), 1)
    path.write_bytes(path.read_bytes()[:-9])
    with refused(BundleError, "no bundle and no whole ONNX graph"):
        read_inputs(path)
    with refused(BundleError, "is not readable"):
        read_inputs(tmp_path / "none.onnx")
