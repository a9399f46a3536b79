"""Which nodes keep float32: by their names, and by the wiring of graphs that have none."""

from __future__ import annotations

import json

import onnx
import pytest

from fgdeploy.calibration import half, linears, pins
from fgdeploy.calibration.half import _MOVES, in_full
from fgdeploy.calibration.pins import Pins, WiredPins
from fgdeploy.core.errors import ExportError
from tests.calibration.graphs import block
from tests.checks import refused


def _unnamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph as schema 1 had it: without what the exporter says of its nodes."""
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    del twin.metadata_props[:]
    return twin


def _noted(model: onnx.ModelProto, **notes: str) -> onnx.ModelProto:
    twin = _unnamed(model)
    for name, value in notes.items():
        twin.metadata_props.add(key=f"fgdeploy.{name}", value=value)
    return twin


def test_names_and_wiring_agree_on_an_export(model: onnx.ModelProto) -> None:
    assert type(pins.of(model)) is Pins
    assert type(pins.of(_unnamed(model))) is WiredPins
    named, wired = in_full(model), in_full(_unnamed(model))
    kinds = {node.name: node.op_type for node in model.graph.node}
    apart = {name: kinds[name] for name in named ^ wired}
    # Ops that move values take the type of what comes in, so theirs is not asked for.
    assert set(apart.values()) <= _MOVES, apart
    pinned = {name for name in kinds if pins.of(model).keeps(name)}
    assert {kinds[name] for name in pinned} >= {"Softmax", "ReduceL2", "TopK", "ReduceSum"}
    assert sum(kinds[name] == "TopK" for name in pinned) == 6
    assert pinned <= named


def test_names_and_wiring_make_the_same_half_graph(model: onnx.ModelProto) -> None:
    one, two = half.to_half(model), half.to_half(_unnamed(model))
    del one.metadata_props[:]

    def types(graph: onnx.ModelProto) -> dict[str, int]:
        inferred = onnx.shape_inference.infer_shapes(graph, strict_mode=True).graph
        return {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}

    kinds = types(one), types(two)
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    compared = {name for name, op in makers.items() if op not in _MOVES and name in kinds[0]}
    assert len(compared) > 100
    assert {name: kinds[0][name] for name in compared} == {
        name: kinds[1][name] for name in compared
    }


def test_names_and_wiring_find_the_same_layers(model: onnx.ModelProto) -> None:
    assert linears.find(model) == linears.find(_unnamed(model))


def _under(module: str, *start: str) -> onnx.ModelProto:
    """Return a hand-drawn block whose nodes with such names lie in a module."""
    twin = block()
    for node in twin.graph.node:
        if node.name.startswith(start):
            node.name = f"{module}.{node.name}"
    return twin


def test_a_pinned_layer_is_left_in_float() -> None:
    plain = [one.name for one in linears.find(block())]
    assert plain == ["embed", "qkv", "proj", "fc1", "fc2"]
    drawn = _under("blocks.3", "qkv", "proj", "fc")
    pinned = _noted(drawn, pins=json.dumps(["blocks.3.fc1/*", "embed/*"]))
    assert [one.name for one in linears.find(pinned)] == [
        "blocks.3.qkv",
        "blocks.3.proj",
        "blocks.3.fc2",
    ]


def test_int8_is_for_blocks_alone() -> None:
    """What reads the rows behind them, as GLSim's aggregator of two, is few and decides."""
    drawn = _under("aggregator.blocks.0", "qkv", "proj", "fc")
    for half_too in ("[]", '["aggregator*"]'):
        named = _noted(drawn, pins="[]", half=half_too)
        assert [one.name for one in linears.find(named)] == ["embed"]
    assert len(linears.find(_unnamed(drawn))) == 5  # of somebody else's graph nothing is known


def test_patterns_by_name() -> None:
    some = Pins(["steps.*.select/*", "router/*"], ["aggregate/*", "steps.*"])
    for node, keeps, halves in (
        ("blocks.3.mlp.fc1/node_MatMul_1", False, True),
        ("steps.2/node_Gather_3", False, True),
        ("steps.2.select/node_TopK_4", True, False),
        ("steps.12.select/node_Softmax", True, False),
        ("steps.2.selects/node", False, True),
        ("router/node_MatMul", True, False),
        ("aggregate/node_MatMul", False, True),
        ("norm/node_LayerNorm", False, False),
        ("embed.conv/node_Conv", False, False),
        ("head.linear/node_Gemm", False, False),
        ("Blocks.3/node", False, False),  # names are as they are written
        ("node_without_module", False, False),
    ):
        assert some.keeps(node) is keeps, node
        assert some.halves(node) is halves, node
        assert some.rounds(node) is (halves and not node.startswith("aggregate")), node


def test_what_a_method_adds_may_be_half_where_it_says_so() -> None:
    """Of a hand-drawn block, whose modules are called otherwise."""
    assert "fc1/fc1.product" in in_full(_noted(block(), pins="[]"))
    assert "fc1/fc1.product" not in in_full(_noted(block(), pins="[]", half='["fc1/*"]'))
    both = _noted(block(), pins='["fc1/*"]', half='["fc1/*"]')
    assert "fc1/fc1.product" in in_full(both)  # what decides stays


@pytest.mark.parametrize(
    "text", ["", "{", "null", "3", '"steps"', "[3]", '{"a": 1}', '["a", null]', "[" * 100_000]
)
@pytest.mark.parametrize("name", ["pins", "half"])
def test_damaged_notes(name: str, text: str) -> None:
    notes = {"pins": "[]", name: text}
    with refused(ExportError, r"the graph's pins are damaged \(.*\); export it again"):
        pins.of(_noted(block(), **notes))
