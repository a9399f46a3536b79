"""Weights that two nodes read, given to each of them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import helper, numpy_helper

from fgdeploy.calibration.sharing import unshared
from tests.calibration.graphs import WIDTH, block, constant, maker, noise, run


def _twice() -> onnx.ModelProto:
    """Return a block whose MLP's first layer is read once more, as by a second look."""
    model = block()
    del model.graph.node[list(model.graph.node).index(maker(model, "proj.product"))]
    weight = numpy_helper.from_array(constant(model, "qkv.weight")[:, :WIDTH].copy(), "both")
    model.graph.initializer.append(weight)
    norm = helper.make_node("MatMul", ["joined", "both"], ["proj.product"], "proj/proj.product")
    fc1 = maker(model, "gelu")
    at = list(model.graph.node).index(maker(model, "proj"))
    model.graph.node.insert(at, norm)
    extra = helper.make_node("MatMul", ["norm2", "both"], ["looked"], "again/looked")
    model.graph.node.insert(list(model.graph.node).index(fc1), extra)
    added = helper.make_node("Add", ["middle", "looked"], ["middle.looked"], "again/add")
    model.graph.node.insert(list(model.graph.node).index(maker(model, "end")), added)
    end = maker(model, "end")
    end.input[0] = "middle.looked"
    onnx.checker.check_model(model)
    return model


def _readers(model: onnx.ModelProto, name: str) -> list[str]:
    return [node.name for node in model.graph.node if name in node.input]


def test_each_reader_gets_its_own() -> None:
    model = _twice()
    before = model.SerializeToString(deterministic=True)
    twin = unshared(model)
    assert model.SerializeToString(deterministic=True) == before
    assert _readers(model, "both") == ["proj/proj.product", "again/looked"]
    assert _readers(twin, "both") == ["proj/proj.product"]
    assert _readers(twin, "both/2") == ["again/looked"]
    np.testing.assert_array_equal(constant(twin, "both/2"), constant(model, "both"))
    assert len(twin.graph.initializer) == len(model.graph.initializer) + 1
    onnx.checker.check_model(twin, full_check=True)
    frames = noise(4)
    np.testing.assert_array_equal(run(twin, frames)["hash"], run(model, frames)["hash"])


def test_a_graph_that_shares_nothing_is_given_back() -> None:
    drawn = block()
    assert unshared(drawn) is drawn


def test_vectors_stay_shared(model: onnx.ModelProto) -> None:
    """The exporter shares what is equal, such as the biases of 0 of an untrained network."""
    readers = Counter(name for node in model.graph.node for name in set(node.input))
    held = {item.name: item for item in model.graph.initializer}
    shared = [held[name] for name, count in readers.items() if count > 1 and name in held]
    assert any(len(item.dims) == 1 and item.dims[0] > 1 for item in shared)
    assert unshared(model) is model


def test_numbers_and_integers_stay_shared() -> None:
    model = block()
    one = helper.make_node("Mul", ["act.erf", "one"], ["act.more"], "more")
    model.graph.node.insert(list(model.graph.node).index(maker(model, "act.one")), one)
    maker(model, "act.one").input[0] = "act.more"
    ones = [item for item in model.graph.initializer if item.name == "one"]
    assert len(_readers(model, "one")) == 2 and not ones[0].dims
    assert unshared(model) is model
    model.graph.initializer.append(
        numpy_helper.from_array(np.ones((1, 1), np.float32), "one by one")
    )
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == "one":
                node.input[place] = "one by one"
    assert unshared(model) is model  # one number, whatever its shape


def test_a_node_that_reads_a_weight_twice_is_one_reader() -> None:
    model = block()
    square = numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32), "square")
    model.graph.initializer.append(square)
    node = helper.make_node("MatMul", ["square", "square"], ["squared"], "squared")
    model.graph.node.insert(0, node)
    assert unshared(model) is model
    other = helper.make_node("Add", ["square", "squared"], ["sum"], "sum")
    model.graph.node.insert(1, other)
    twin = unshared(model)
    assert [list(node.input) for node in twin.graph.node[:2]] == [
        ["square", "square"],
        ["square/2", "squared"],
    ]
