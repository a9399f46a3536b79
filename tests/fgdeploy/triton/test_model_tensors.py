from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx
import pytest

from fgdeploy.bundle import Bundle, Output
from fgdeploy.core.errors import BundleError
from fgdeploy.triton import model_tensors
from tests.checks import refused


def test_tensors_are_read_from_the_graph(eet: Bundle) -> None:
    frames, outputs = model_tensors.of_graph(eet.graph(), eet.manifest)
    assert (frames.type, frames.dims, frames.bytes) == ("TYPE_UINT8", (64, 64, 3), 12288)
    assert [(one.name, one.type, one.dims) for one in outputs[:2]] == [
        ("code", "TYPE_UINT8", (4,)),
        ("hash", "TYPE_FP32", (32,)),
    ]


@pytest.mark.parametrize("what", ["fixed", "float", "side"])
def test_graphs_that_triton_cannot_batch(what: str, eet: Bundle, tmp_path: Path) -> None:
    model = onnx.load(eet.graph())
    tensor = model.graph.input[0].type.tensor_type
    if what == "fixed":
        tensor.shape.dim[0].dim_value = 1
    elif what == "side":
        tensor.shape.dim[1].dim_param = "height"
    else:
        tensor.elem_type = onnx.TensorProto.FLOAT
    onnx.save(model, tmp_path / "other.onnx")
    words = {
        "fixed": "frames takes 1 frames and no other number",
        "side": "frames has open sides beside the batch",
        "float": "does not take uint8 frames of 64 pixels alone",
    }
    with refused(BundleError, words[what]):
        model_tensors.of_graph(tmp_path / "other.onnx", eet.manifest)


def test_a_manifest_that_declares_otherwise(eet: Bundle) -> None:
    outputs = {**eet.manifest.outputs, "logits": Output("float32", (9,))}
    other = dataclasses.replace(eet.manifest, outputs=outputs)
    with refused(BundleError, "and the manifest declares code, embedding, hash, logits"):
        model_tensors.of_graph(eet.graph(), other)
