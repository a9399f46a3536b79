"""FP16 where it is safe, FP32 where things are decided."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto

from fgdeploy.calibration import qdq
from fgdeploy.calibration.half import in_full, to_half
from fgdeploy.calibration.int8_plan import Int8Plan
from fgdeploy.calibration.paths import Paths
from tests.calibration.graphs import apart, block, maker, noise, run

Frames = npt.NDArray[np.uint8]
FULL, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


@pytest.fixture(scope="module", params=["fp32", "int8", "int8-u8"])
def pair(
    request: pytest.FixtureRequest, model: onnx.ModelProto, made: Int8Plan
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A graph, and what it is in half precision."""
    graphs = {
        "fp32": lambda: model,
        "int8": lambda: qdq.write(made),
        "int8-u8": lambda: qdq.write(made, (), True),
    }
    graph = graphs[request.param]()
    return graph, to_half(graph)


def _kinds(model: onnx.ModelProto) -> dict[str, int]:
    """Return the type of each tensor, as a strict checker infers them."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    values = [*inferred.value_info, *inferred.output, *inferred.input]
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    return kinds | {item.name: item.data_type for item in model.graph.initializer}


def test_each_op_has_the_precision_it_needs(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    graph, half = pair
    onnx.checker.check_model(half, full_check=True)
    kinds, paths = _kinds(half), Paths(half.graph)
    scores = paths.only_towards(lambda node: node.op_type == "TopK")
    last = next(node for node in half.graph.node if node.name.startswith("norm/"))
    behind = paths.reached_from(lambda node: node is last)
    seen: Counter[str] = Counter()
    for node in half.graph.node:
        kind = kinds[node.output[0]]
        if node.op_type == "LayerNormalization":
            assert kind == FULL
            assert all(kinds[name] == FULL for name in node.input)
            seen["norm"] += 1
        elif node.name in behind:
            assert kind != HALF
            seen["end"] += 1
        elif node.name in scores and node.op_type in ("Softmax", "ReduceL2", "ReduceSum", "TopK"):
            assert kind == FULL
            seen["score"] += 1
        elif node.op_type in ("Add", "Conv") and kind != TensorProto.INT64:
            assert kind == FULL
            seen[node.op_type] += 1
        elif node.op_type in ("MatMul", "Erf", "Softmax") and node.name not in scores:
            assert kind == HALF
            seen[node.op_type] += 1
        elif node.op_type == "DequantizeLinear":
            (reader,) = paths.users[node.output[0]]
            assert kinds[node.input[1]] == kind == (FULL if reader.op_type == "Conv" else HALF)
            seen["back"] += 1
    assert seen["norm"] == 13
    assert seen["score"] == 3 * 7  # softmax, norm, three sums and two TopKs of each stage
    # Products: four layers and two of attention in each block, and the last query.
    assert (seen["MatMul"], seen["Softmax"], seen["Erf"], seen["Conv"]) == (37, 6, 6, 1)
    assert seen["Add"] >= 25 + 12 + 6  # biases, residuals, GELU
    assert seen["end"] > 5
    assert seen["back"] == sum(node.op_type == "DequantizeLinear" for node in graph.graph.node)


def test_what_goes_in_and_out_keeps_its_type(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    graph, half = pair
    assert half.graph.input == graph.graph.input
    assert half.graph.output == graph.graph.output


def test_a_tensor_is_cast_once(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    graph, half = pair
    casts = [node for node in half.graph.node if node.op_type == "Cast"]
    new = [node for node in casts if node.name.endswith(("/fp16", "/fp32"))]
    assert len(casts) - len(new) == sum(n.op_type == "Cast" for n in graph.graph.node)
    assert len({(node.input[0], node.attribute[0].i) for node in casts}) == len(casts)
    kinds, made = _kinds(half), {node.output[0] for node in new}
    for node in new:
        assert kinds[node.input[0]] != kinds[node.output[0]]
        assert node.input[0] not in made  # no cast of a cast
    names = [item.name for item in half.graph.initializer]
    assert len(names) == len(set(names))
    assert set(names) <= {name for node in half.graph.node for name in node.input}


def test_only_q_and_dq_need_another_opset(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    graph, half = pair
    quantised = any(node.op_type == "QuantizeLinear" for node in graph.graph.node)
    assert [entry.version for entry in graph.opset_import] == [18]
    assert [entry.version for entry in half.opset_import] == [19 if quantised else 18]


def test_a_later_opset_stays(made: Int8Plan) -> None:
    int8 = qdq.write(made)
    int8.opset_import[0].version = 20
    assert to_half(int8).opset_import[0].version == 20


def test_the_graph_given_is_left_as_it_was(pair: tuple[onnx.ModelProto, onnx.ModelProto]) -> None:
    before = pair[0].SerializeToString(deterministic=True)
    to_half(pair[0])
    assert pair[0].SerializeToString(deterministic=True) == before


def test_the_hash_stays_near(pair: tuple[onnx.ModelProto, onnx.ModelProto], unseen: Frames) -> None:
    wanted, got = (run(one, unseen)["hash"] for one in pair)
    assert got.dtype == np.float32
    lengths = np.linalg.norm(got - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
    quantised = any(node.op_type == "QuantizeLinear" for node in pair[0].graph.node)
    # Half precision moves values over INT8's steps, and now and then a token over a stage's edge.
    assert np.median(lengths) < (0.05 if quantised else 0.003)
    assert ((got > 0) == (wanted > 0)).mean() > (0.97 if quantised else 0.995)


def test_of_a_block_by_hand() -> None:
    drawn = block()
    full = in_full(drawn)
    assert {"norm1/norm1", "norm2/norm2", "norm/norm", "node_middle", "node_end"} <= full
    assert {"head/hash", "node_embedding", "pack/bytes", "node_set", "node_pixels"} <= full
    assert {"embed/patches", "qkv/qkv", "fc2/fc2", "node_act.one"} <= full
    assert not {"qkv/qkv.product", "node_soft", "node_mixed", "node_act.erf", "node_gelu"} & full
    half = to_half(drawn)
    frames = noise(8)
    assert apart(run(half, frames)["hash"], run(drawn, frames)["hash"]) < 0.01
    assert maker(half, "norm2").input[0] == "middle"  # the residual stream never leaves FP32
    assert maker(half, "end").input[0] == "middle"
