from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fgdeploy.bundle import Bundle, open_bundle
from fgdeploy.core.errors import EngineError
from fgdeploy.engines import BuildSettings, build, open_engine, ov_blobs, ov_core, ov_graph
from fgdeploy.engines import openvino as openvino_backend
from fgdeploy.engines.openvino import OpenVinoEngine, piece
from fgdeploy.engines.ov_core import openvino
from tests.checks import refused

WIDTH, COUNT = 4, 3


def frames(count: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)


# --- batches in pieces


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (1, (1, 8), 1),
        (5, (1, 8), 1),
        (6, (1, 8), 8),  # filled up
        (8, (1, 8), 8),
        (9, (1, 8), 1),
        (17, (1, 8), 8),
        (64, (1, 8), 8),
        (3, (1,), 1),
        (1, (4, 8), 4),
        (5, (4, 8), 8),
        (4, (1, 2, 4, 8), 4),
    ],
)
def test_the_size_that_takes_least_time(count: int, sizes: tuple[int, ...], expected: int) -> None:
    assert piece(count, sizes) == expected


def test_what_would_run_in_pieces_runs_a_piece_at_once(own_bundle: Path) -> None:
    bundle = open_bundle(own_bundle)
    build(bundle, "openvino", "fp32", BuildSettings(batches=(1, 8)))
    with open_engine(bundle, "openvino", "fp32") as engine:
        assert [engine.at_once(count) for count in (1, 5, 6, 8, 9, 20)] == [1, 1, 6, 8, 1, 8]


@pytest.mark.parametrize("compiled", [False, True])
def test_any_batch_gives_what_its_frames_give(own_bundle: Path, compiled: bool) -> None:
    bundle = open_bundle(own_bundle)
    if compiled:
        build(bundle, "openvino", "fp32", BuildSettings(batches=(3, 4)))
    with open_engine(bundle, "openvino", "fp32") as engine:
        whole = engine.run(frames(17))
        assert whole.hash.shape == (17, 12) and whole.code.shape == (17, 2)
        for count in (1, 3, 6):
            some = engine.run(frames(17)[:count])
            np.testing.assert_array_equal(some.code, whole.code[:count])
            np.testing.assert_allclose(some.hash, whole.hash[:count], atol=1e-4)


def test_sizes_are_loaded_when_needed(own_bundle: Path) -> None:
    bundle = open_bundle(own_bundle)
    build(bundle, "openvino", "fp32", BuildSettings(batches=(1, 4, 8)))
    with open_engine(bundle, "openvino", "fp32") as engine:
        assert isinstance(engine, OpenVinoEngine)
        loaded = [sorted(engine._requests)]
        for count in (8, 8, 1, 8, 4, 1, 8, 4, 1):
            engine.run(frames(count))
            loaded.append(sorted(engine._requests))
    # A process that stays with one size holds one; one that comes back to sizes holds these.
    assert loaded == [[1], [8], [8], [1, 8], [1, 8], [4], [1, 4], *[[1, 4, 8]] * 3]
    assert not engine._requests


# --- q, k and v cut before the product


def write_split(
    target: Path,
    integers: bool = False,
    axis: int = -1,
    read_whole: bool = False,
    sizes: tuple[int, int, int] | None = None,
) -> None:
    """Write the exporter's qkv: x @ W + b, cut in three; W as floats or as int8 with scales."""
    chooser = np.random.default_rng(0)
    arrays: dict[str, npt.NDArray[Any]] = {
        "bias": chooser.standard_normal(WIDTH * COUNT).astype(np.float32)
    }
    nodes = []
    if integers:
        arrays["integers"] = chooser.integers(-127, 128, (WIDTH, WIDTH * COUNT), np.int8)
        arrays["steps"] = chooser.uniform(0.01, 0.1, WIDTH * COUNT).astype(np.float32)
        arrays["zeros"] = np.zeros(WIDTH * COUNT, np.int8)
        inputs = ["integers", "steps", "zeros"]
        nodes.append(helper.make_node("DequantizeLinear", inputs, ["weight"], axis=1))
    else:
        arrays["weight"] = chooser.standard_normal((WIDTH, WIDTH * COUNT)).astype(np.float32)
    if sizes:
        arrays["sizes"] = np.array(sizes)
    names = ["q", "k", "v"]
    nodes += [
        helper.make_node("Cast", ["frames"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["whole"]),
        helper.make_node("Split", ["whole", *(["sizes"] if sizes else [])], names, axis=axis)
        if sizes
        else helper.make_node("Split", ["whole"], names, axis=axis, num_outputs=3),
    ]
    value = helper.make_tensor_value_info
    outputs = [*names, *(["whole"] if read_whole else [])]
    graph = helper.make_graph(
        nodes,
        "split",
        [value("frames", TensorProto.UINT8, ["batch", 6, WIDTH])],
        [value(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    target.write_bytes(model.SerializeToString())


def run(model: Any, x: npt.NDArray[np.uint8]) -> list[npt.NDArray[Any]]:
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov_core.make().compile_model(model, "CPU", exact)
    return [np.array(value) for value in compiled([x]).values()]


def kinds(model: Any) -> list[str]:
    return [node.get_type_name() for node in model.get_ordered_ops()]


@pytest.mark.parametrize("integers", [False, True])
def test_cutting_before_the_product_is_exact(tmp_path: Path, integers: bool) -> None:
    write_split(tmp_path / "split.onnx", integers)
    x = np.random.default_rng(1).integers(0, 256, (2, 6, WIDTH), np.uint8)
    expected = run(openvino.Core().read_model(str(tmp_path / "split.onnx")), x)
    model = ov_graph.read(openvino.Core(), tmp_path / "split.onnx")
    assert "Split" not in kinds(model) and kinds(model).count("MatMul") == 3
    ov_graph.set_batch(model, 2)
    assert model.input("frames").get_shape() == [2, 6, WIDTH]
    found = run(model, x)
    assert [part.shape for part in found] == [(2, 6, WIDTH)] * 3
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("other", [{"axis": 1}, {"read_whole": True}, {"sizes": (2, 4, 6)}])
def test_what_is_no_qkv_stays(tmp_path: Path, other: dict[str, Any]) -> None:
    write_split(tmp_path / "split.onnx", **other)
    before = kinds(openvino.Core().read_model(str(tmp_path / "split.onnx")))
    assert kinds(ov_graph.read(openvino.Core(), tmp_path / "split.onnx")) == before


@pytest.mark.parametrize("order", [[0, 2, 3, 1], [0, 3, 2, 1]])
def test_k_is_transposed_in_the_product(tmp_path: Path, order: list[int]) -> None:
    nodes = [
        helper.make_node("Cast", ["frames"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["x"], ["q"], perm=[0, 2, 1, 3]),
        helper.make_node("Transpose", ["x"], ["k"], perm=order),
        helper.make_node("MatMul", ["q", "k"], ["scores"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "attention",
        [value("frames", TensorProto.UINT8, ["batch", 4, 4, 4])],
        [value("scores", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (tmp_path / "attention.onnx").write_bytes(model.SerializeToString())
    x = np.random.default_rng(1).integers(0, 256, (3, 4, 4, 4), np.uint8)
    plain, changed = (
        openvino.Core().read_model(str(tmp_path / "attention.onnx")) for _ in range(2)
    )
    assert ov_graph.transpose_in_products(changed) == (order == [0, 2, 3, 1])
    np.testing.assert_allclose(run(changed, x)[0], run(plain, x)[0], rtol=1e-6)


def test_a_fixed_batch_is_refused(toy_bundle: Path, tmp_path: Path) -> None:
    model = onnx.load(toy_bundle / "model.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, tmp_path / "fixed.onnx")
    with refused(EngineError, r"^fixed\.onnx takes 2 frames and no other.*export the bundle again"):
        ov_graph.read(openvino.Core(), tmp_path / "fixed.onnx")


# --- the file of compiled models


def test_blobs_come_back(tmp_path: Path) -> None:
    ov_blobs.write(tmp_path / "engine", [(8, b"eight\n"), (1, b"one")])
    blobs = ov_blobs.Blobs(tmp_path / "engine")
    assert blobs.sizes == (1, 8)
    assert (bytes(blobs.read(1)), bytes(blobs.read(8))) == (b"one", b"eight\n")


def header(*entries: object, version: object = 1) -> bytes:
    import json

    return json.dumps({"openvino_blobs": version, "blobs": list(entries)}).encode() + b"\n"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        b"[]\n",
        b"[" * 100_000,
        header(),
        header(version=2),
        header({"batch": 1, "bytes": 3}),
        header({"batch": 1, "bytes": 3, "sha256": "0"}),  # and no blob behind it
        header({"batch": 0, "bytes": 3, "sha256": "0"}) + b"one",
        header({"batch": True, "bytes": 3, "sha256": "0"}) + b"one",
        header({"batch": 1, "bytes": -3, "sha256": "0"}),
        header("batch") + b"one",
    ],
)
def test_what_is_no_file_of_blobs(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "engine").write_bytes(content)
    with refused(EngineError, r"openvino cannot load .*engine: expected the compiled models"):
        ov_blobs.Blobs(tmp_path / "engine")


def test_a_blob_that_changed_later(tmp_path: Path) -> None:
    ov_blobs.write(tmp_path / "engine", [(1, b"one"), (8, b"eight")])
    blobs = ov_blobs.Blobs(tmp_path / "engine")
    (tmp_path / "engine").write_bytes((tmp_path / "engine").read_bytes()[:-1] + b"!")
    assert bytes(blobs.read(1)) == b"one"
    with refused(EngineError, r"expected the compiled models .*; build the engine again"):
        blobs.read(8)


def test_a_bundle_of_another_batch(toy_bundle: Path) -> None:
    bundle: Bundle = open_bundle(toy_bundle)
    with open_engine(bundle, "openvino") as engine:
        assert engine.max_batch is None and len(engine.run(frames(40)).hash) == 40


def test_an_engine_that_fell_to_another_type_is_refused(
    own_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(openvino_backend._ARITHMETIC, "bf16", ("f32", "FP32", None))
    with refused(EngineError, "compiled no bf16 engine: expected products in bfloat16"):
        build(open_bundle(own_bundle), "openvino", "bf16")
    assert not (own_bundle / "engines").exists()


def test_weights_stay_where_the_blob_lies(own_bundle: Path) -> None:
    """The plugin reads them there, so the engine must hold the blob as long as it runs."""
    bundle = open_bundle(own_bundle)
    build(bundle, "openvino", "fp32", BuildSettings(batches=(1, 8)))
    with open_engine(bundle, "openvino", "fp32") as engine:
        assert isinstance(engine, OpenVinoEngine)
        before = engine.run(frames(1))
        held = {size: blob for size, (blob, _) in engine._requests.items()}
        assert list(held) == [1] and held[1].dtype == np.uint8
        gc.collect()
        np.testing.assert_array_equal(engine.run(frames(1)).hash, before.hash)
