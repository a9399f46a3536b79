"""Calibrating a bundle with class logits: both graphs keep them, and classes are named by them."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fgdeploy.bundle import Bundle, Output, open_bundle, seal
from fgdeploy.calibration.calibrator import calibrate
from fgdeploy.hasher import load
from fgdeploy.photos import Photo
from fgdeploy.proof.comparing import compare_engines, open_by_name
from tests.calibration.conftest import LOOSE, PLAIN

NAMES = tuple(f"kind {number}" for number in range(7))


def _naming(bundle: Bundle) -> Bundle:
    """Give a bundle logits, random ones of its embedding."""
    model = onnx.load(bundle.graph())
    weight = np.random.default_rng(0).standard_normal((bundle.manifest.width, len(NAMES)))
    model.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), "tell"))
    model.graph.node.append(helper.make_node("MatMul", ["embedding", "tell"], ["logits"]))
    value = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(NAMES)])
    model.graph.output.append(value)
    bundle.graph().write_bytes(model.SerializeToString())
    outputs = {**bundle.manifest.outputs, "logits": Output("float32", (len(NAMES),))}
    return seal(bundle.path, dataclasses.replace(bundle.manifest, outputs=outputs, classes=NAMES))


def test_calibrated_graphs_keep_logits(own: Bundle, moths: list[Photo]) -> None:
    bundle = calibrate(_naming(own), moths, PLAIN, LOOSE).bundle
    photos = [photo.path for photo in moths[:8]]
    with load(bundle.path, "onnxruntime", "fp32") as hasher:
        right = hasher.classify(photos, k=len(NAMES))
    for backend in ("onnxruntime", "openvino"):
        with load(bundle.path, backend, "int8") as hasher:
            found = hasher.classify(photos, k=len(NAMES))
        for one, other in zip(right, found, strict=True):
            assert {guess.name for guess in other} == set(NAMES)
            shares = {guess.name: guess.probability for guess in one}
            assert max(abs(guess.probability - shares[guess.name]) for guess in other) < 0.2
    with (
        open_by_name(bundle, "onnxruntime:fp32") as left,
        open_by_name(bundle, "onnxruntime:int8") as rest,
    ):
        parity = compare_engines(bundle, left, rest, moths).parity
    assert parity.top1_agreement is not None and parity.top1_agreement > 0.7
    assert open_bundle(bundle.path).manifest.outputs["logits"].shape == (len(NAMES),)
