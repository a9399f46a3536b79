"""FP16 graphs for CUDA: where they cast, what stays in FP32, and what they compute."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from fgdeploy.bundle import Bundle
from fgdeploy.bundle.graph_pins import PINS, Pins
from fgdeploy.core.errors import EngineError
from fgdeploy.engines import ort_half
from fgdeploy.engines.onnxruntime import session_options
from fgdeploy.export import verify
from tests.checks import refused
from tests.rounded import in_float32

_ANSWERS = ("Greater", "Equal", "LessOrEqual")  # of yes and no


def made(pruned: Bundle, half: bool = True) -> ort_half.CudaGraph:
    return ort_half.make(onnx.load(pruned.graph("fp32")), half)


def types(model: onnx.ModelProto) -> dict[str, int]:
    """Return each tensor's type as it follows from Casts and weights; fused ops keep theirs."""
    found = {item.name: item.data_type for item in model.graph.initializer}
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    for node in model.graph.node:
        given = {found[name] for name in node.input if found.get(name) in floats}
        assert len(given) < 2, node.name  # no kernel takes both
        target = next((one.i for one in node.attribute if one.name == "to"), None)
        made = target if target is not None else next(iter(given), 0)
        for place, name in enumerate(node.output):
            indices = node.op_type == "TopK" and place == 1
            found[name] = 0 if indices or node.op_type in _ANSWERS else made
    return found


def test_products_are_in_half_precision_and_sums_until_nothing_is_picked(pruned: Bundle) -> None:
    graph = made(pruned)
    onnx.checker.check_model(graph.model)
    assert graph.fused == {"attention": 6, "layer_norm": 12, "gelu": 6}
    kinds = types(graph.model)
    nodes = list(graph.model.graph.node)
    last = max(place for place, node in enumerate(nodes) if node.op_type in ort_half._PICKS)
    summed = {"deciding": 0, "after": 0}
    for place, node in enumerate(nodes):
        inside = node.name.startswith(("blocks.", "steps."))
        if node.op_type in ("MultiHeadAttention", "BiasGelu"):
            assert kinds[node.output[0]] == TensorProto.FLOAT16, node.name
        elif node.op_type == "SkipLayerNormalization" and inside:
            summed["deciding" if place < last else "after"] += 1
            expected = TensorProto.FLOAT if place < last else TensorProto.FLOAT16
            assert kinds[node.output[0]] == expected, node.name
    assert min(summed.values()) > 0


def test_what_decides_stays_in_float32(pruned: Bundle) -> None:
    model = made(pruned).model
    kinds = types(model)
    pins = Pins.read({entry.key: entry.value for entry in model.metadata_props})
    assert pins is not None
    computing = [
        node
        for node in model.graph.node
        if pins.keeps(node.name) and node.op_type not in ort_half._MOVES
    ]
    assert {"TopK", "Softmax", "MatMul"} <= {node.op_type for node in computing}
    for node in computing:
        touched = {kinds[name] for name in (*node.input, *node.output) if name in kinds}
        assert TensorProto.FLOAT16 not in touched, node.name
    for output in model.graph.output:
        assert kinds[output.name] != TensorProto.FLOAT16


def test_rounded_as_a_gpu_rounds_it_keeps_bits_and_ranking(pruned: Bundle) -> None:
    frames = verify.frames_for(64, [])
    twin, roundings = in_float32(made(pruned).model)
    assert roundings > 60
    results = []
    for data in (pruned.graph("fp32").read_bytes(), twin.SerializeToString()):
        session = onnxruntime.InferenceSession(
            data, session_options(1), providers=["CPUExecutionProvider"]
        )
        results.append(session.run(["hash"], {"frames": frames})[0])
    expected, found = results
    assert 0 < np.abs(found - expected).max() < 5e-3 * np.abs(expected).max()
    assert ((found > 0) == (expected > 0)).mean() > 0.98


def test_in_float32_nothing_is_cast(pruned: Bundle) -> None:
    graph = made(pruned, half=False)
    assert (graph.casts, graph.fused["attention"]) == (0, 6)
    held = {item.data_type for item in graph.model.graph.initializer}
    assert TensorProto.FLOAT16 not in held


def test_a_graph_that_does_not_say_what_decides_is_refused(pruned: Bundle) -> None:
    model = onnx.load(pruned.graph("fp32"))
    kept = [entry for entry in model.metadata_props if entry.key != PINS]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    with refused(EngineError, r"does not say what must stay in FP32, .* build with --fp32$"):
        ort_half.make(model, half=True)
    assert ort_half.make(model, half=False).fused["attention"] == 6


@pytest.mark.parametrize("half", [False, True])
def test_weights_that_nothing_reads_are_left_out(pruned: Bundle, half: bool) -> None:
    graph = made(pruned, half).model.graph
    read = {name for node in graph.node for name in node.input}
    assert {item.name for item in graph.initializer} <= read
