from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from fgdeploy.bundle import Bundle, checks
from fgdeploy.core.errors import ExportError
from fgdeploy.engines import BuildSettings
from fgdeploy.triton import nvinfer_graph
from tests.checks import refused


@pytest.mark.parametrize("key", ["fp32", "fp16", "int8-u8"])
def test_float_pixels_give_the_same_bits(key: str, eet: Bundle) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    held = checks.read(eet)
    assert held is not None
    frames = held.frames[:5]
    before = onnxruntime.InferenceSession(eet.graph(key))
    after = onnxruntime.InferenceSession(nvinfer_graph.for_nvinfer(eet.graph(key)))
    assert [one.name for one in after.get_outputs()] == ["hash", "embedding"]
    (pixels,) = after.get_inputs()
    assert (pixels.name, pixels.type) == ("pixels", "tensor(float)")
    assert pixels.shape[1:] == [3, 64, 64] and isinstance(pixels.shape[0], str)
    names = ["hash", "embedding"]
    expected = before.run(names, {"frames": frames})
    planes = np.ascontiguousarray(frames.transpose(0, 3, 1, 2).astype(np.float32))
    found = after.run(names, {"pixels": planes})
    for one, other in zip(expected, found, strict=True):
        assert (one == other).all()


@pytest.mark.parametrize("key", ["fp32", "int8-fp16"])
def test_tensorrt_compiles_it(key: str, eet: Bundle, tmp_path: Path) -> None:
    """TensorRT-RTX's parser and builder need no GPU; strongly typed, as its README says."""
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert parser.parse(nvinfer_graph.for_nvinfer(eet.graph(key)))
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    profile.set_shape("pixels", *((batch, 3, 64, 64) for batch in BuildSettings().profile))
    assert config.add_optimization_profile(profile) == 0
    config.num_compute_capabilities = 1
    assert config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    assert builder.build_serialized_network(network, config) is not None


def test_a_graph_that_reads_its_frames_otherwise(eet: Bundle, tmp_path: Path) -> None:
    model = onnx.load(eet.graph())
    model.graph.node.append(onnx.helper.make_node("Identity", ["frames"], ["raw"]))
    onnx.save(model, tmp_path / "other.onnx")
    with refused(ExportError, "reads its frames by Identity, expected Cast and Shape alone"):
        nvinfer_graph.for_nvinfer(tmp_path / "other.onnx")
