"""Q/DQ where they belong and nowhere else; signed and unsigned are the same numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto

from fgdeploy.calibration import int8_plan, linears, qdq
from fgdeploy.calibration.calibration_settings import CalibrationSettings
from fgdeploy.calibration.half import to_half
from fgdeploy.calibration.int8_plan import Int8Plan
from fgdeploy.calibration.paths import Paths
from tests.calibration.graphs import apart, block, constant, maker, noise, run

Frames = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def int8(made: Int8Plan) -> onnx.ModelProto:
    return qdq.write(made)


def _of(model: onnx.ModelProto, kind: str) -> list[Any]:
    return [node for node in model.graph.node if node.op_type == kind]


def _axis(node: Any) -> int:
    return next(mark.i for mark in node.attribute if mark.name == "axis")


@pytest.mark.parametrize("unsigned", [False, True])
def test_one_pair_for_each_activation(made: Int8Plan, unsigned: bool) -> None:
    model = qdq.write(made, unsigned_activations=unsigned)
    onnx.checker.check_model(model, full_check=True)
    quantised = _of(model, "QuantizeLinear")
    assert len(quantised) == len(made.activations) + 1  # and the pixels
    users = Paths(model.graph).users
    for node in quantised:
        (back,) = users[node.output[0]]
        assert back.op_type == "DequantizeLinear"
        assert back.input[1:] == node.input[1:]
        zero = constant(model, node.input[2])
        assert (zero.dtype, zero) == ((np.uint8, 128) if unsigned else (np.int8, 0))
        step = constant(model, node.input[1])
        assert step.shape == ()
        assert step > 0
        assert np.float16(step) == step


def test_weights_are_int8_per_output_channel(made: Int8Plan, int8: onnx.ModelProto) -> None:
    for layer in made.layers.values():
        node = next(node for node in int8.graph.node if node.name == layer.linear.node)
        back = maker(int8, node.input[1])
        assert back.op_type == "DequantizeLinear"
        integers, steps, zeros = (constant(int8, name) for name in back.input)
        axis = _axis(back)
        assert axis == (0 if layer.linear.is_patch_embedding else 1)
        assert (integers.dtype, zeros.dtype, steps.dtype) == (np.int8, np.int8, np.float32)
        assert integers.shape[axis] == len(steps) == len(zeros) == layer.linear.fan_out
        assert not zeros.any()
        assert integers.min() >= -127
        assert (integers == layer.integers).all()
        assert (steps == layer.steps).all()


def test_biases_are_those_of_each_layer(made: Int8Plan) -> None:
    """In INT8 the corrected bias, in float the folded one, both in FP32."""
    in_float = ["blocks.0.mlp.fc1", "blocks.2.attn.qkv"]
    model = qdq.write(made, in_float)
    nodes = {node.name: node for node in model.graph.node}
    for name, layer in made.layers.items():
        assert f"{name}/bias" in nodes[layer.linear.bias].input
        held = constant(model, f"{name}/bias")
        wanted = layer.bias if name in in_float else layer.int8_bias
        assert held.dtype == np.float32
        assert (held == wanted.astype(np.float32)).all()


def test_nothing_else_is_touched(
    made: Int8Plan, model: onnx.ModelProto, int8: onnx.ModelProto
) -> None:
    """Residual adds, norms, softmax, GELU, scores, head and hash read and do what they did."""
    layers = {layer.linear.node for layer in made.layers.values()}
    reads = {name for name in made.norms} | layers
    reads |= {layer.linear.bias for layer in made.layers.values() if layer.linear.bias}
    before = {node.name: node for node in model.graph.node}
    after = {node.name: node for node in int8.graph.node}
    assert len(after) == len(int8.graph.node)
    assert set(before) <= set(after)
    for name, node in before.items():
        assert after[name].op_type == node.op_type
        assert after[name].output == node.output
        assert after[name].attribute == node.attribute
        if name not in reads:
            assert after[name].input == node.input
            for tensor in node.input:
                if tensor in {item.name for item in model.graph.initializer}:
                    assert (constant(int8, tensor) == constant(model, tensor)).all()
    touched = {before[name].op_type for name in reads}
    assert touched == {"LayerNormalization", "MatMul", "Conv", "Add"}
    added = [after[name].op_type for name in set(after) - set(before)]
    assert set(added) == {"QuantizeLinear", "DequantizeLinear", "Mul", "Add"}
    assert int8.graph.output == model.graph.output
    assert int8.graph.input == model.graph.input
    assert int8.opset_import == model.opset_import


def test_only_layers_read_what_was_rounded(made: Int8Plan, int8: onnx.ModelProto) -> None:
    layers = {layer.linear.node for layer in made.layers.values()}
    users = Paths(int8.graph).users
    for node in _of(int8, "DequantizeLinear"):
        assert {user.name for user in users[node.output[0]]} <= layers


def test_no_constant_is_left_over(int8: onnx.ModelProto) -> None:
    read = {name for node in int8.graph.node for name in node.input}
    names = [item.name for item in int8.graph.initializer]
    assert set(names) <= read
    assert len(set(names)) == len(names)


def test_layers_that_find_leaves_out_stay(int8: onnx.ModelProto, model: onnx.ModelProto) -> None:
    taken = {one.node for one in linears.find(model)}
    for node in model.graph.node:
        if node.op_type in ("MatMul", "Gemm") and node.name not in taken:
            assert next(other for other in int8.graph.node if other.name == node.name) == node


def test_layers_in_float_have_no_pair(made: Int8Plan) -> None:
    names = ["blocks.0.attn.qkv", "embed.conv", "blocks.3.mlp.fc2"]
    model = qdq.write(made, names)
    onnx.checker.check_model(model, full_check=True)
    assert len(_of(model, "QuantizeLinear")) == len(made.activations) + 1 - len(names)
    held = {item.name for item in model.graph.initializer}
    assert not {f"{name}/integers" for name in names} & held
    fixed = dataclasses.replace(made, in_float=frozenset(names))
    same = qdq.write(fixed)
    assert same.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    assert not _of(qdq.write(made, list(made.layers)), "QuantizeLinear")


def test_two_layers_on_one_activation_share_its_pair() -> None:
    """And one of them may be in float: it then reads the balanced activation as it is."""
    drawn = block()
    twin = onnx.NodeProto()
    twin.CopyFrom(maker(drawn, "qkv.product"))
    twin.name, twin.output[0] = "twin/twin", "twin"
    nodes = list(drawn.graph.node)
    drawn.graph.node.insert(nodes.index(maker(drawn, "qkv")), twin)
    add = maker(drawn, "fc1")
    drawn.graph.node.insert(
        list(drawn.graph.node).index(add),
        onnx.helper.make_node("ReduceMean", ["twin"], ["mean"], "node_mean", keepdims=1),
    )
    add.input[1] = "mean"
    made = int8_plan.make(drawn, [noise(8)], CalibrationSettings())
    assert made.activations[0].readers == ("qkv", "twin")
    assert made.activations[0].fold.norm is not None
    frames = noise(4, seed=3)
    wanted = run(drawn, frames)["hash"]
    for in_float in ([], ["twin"], ["qkv"], ["qkv", "twin"]):
        model = qdq.write(made, in_float)
        pairs = [n for n in _of(model, "QuantizeLinear") if n.input[0] == "norm1"]
        assert len(pairs) == (0 if len(in_float) == 2 else 1)
        got = run(model, frames)["hash"]
        assert np.linalg.norm(got - wanted) < 0.1 * np.linalg.norm(wanted)
    assert apart(run(qdq.write(made, list(made.layers)), frames)["hash"], wanted) < 1e-5


def test_signed_and_unsigned_are_the_same_numbers(made: Int8Plan, unseen: Frames) -> None:
    """As written, before a runtime makes integer kernels of it."""
    one, two = (
        run(qdq.write(made, (), unsigned), unseen, ["hash", "code"], optimised=False)
        for unsigned in (False, True)
    )
    for name in ("hash", "code"):
        assert np.array_equal(one[name], two[name])


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_every_pixel_value_arrives_exactly(unsigned: bool, half: bool) -> None:
    frames = np.arange(2 * 16 * 16 * 3).reshape(2, 16, 16, 3).astype(np.uint8)
    assert len(np.unique(frames)) == 256
    made = int8_plan.make(block(), [noise(8)], CalibrationSettings())
    model = qdq.write(made, (), unsigned)
    model = to_half(model) if half else model
    name = "pixels/centred/dequantised"
    got = run(model, frames, [name], optimised=False)[name].astype(np.float64)
    planes = frames.transpose(0, 3, 1, 2).astype(np.float64)
    assert (got == (planes - 128) / 128).all()


def test_an_int8_patch_embedding_errs_only_by_its_weights() -> None:
    drawn = block()
    made = int8_plan.make(drawn, [noise(8)], CalibrationSettings(compensate=False))
    others = [name for name in made.layers if name != "embed"]
    frames = noise(4, seed=1)
    got = run(qdq.write(made, others), frames, ["patches"])["patches"].astype(np.float64)
    layer = made.layers["embed"]
    kernel = (layer.integers * layer.steps[:, None, None, None]).reshape(32, -1)
    cut = frames.reshape(4, 4, 4, 4, 4, 3).transpose(0, 1, 3, 5, 2, 4).reshape(4, 16, 48)
    wanted = (cut.astype(np.float64) - 128) / 128 @ kernel.T + layer.int8_bias
    assert apart(got.reshape(4, 32, 16).transpose(0, 2, 1), wanted) < 1e-6


def test_balance_and_compensation_bring_the_hash_nearer(
    made: Int8Plan, plain: Int8Plan, model: onnx.ModelProto, unseen: Frames
) -> None:
    """Of the median photo: where a stage's edge is near, one token more or less decides."""
    wanted = run(model, unseen)["hash"]
    errors = []
    for one in (made, plain):
        gap = np.linalg.norm(run(qdq.write(one), unseen)["hash"] - wanted, axis=1)
        errors.append(np.median(gap / np.linalg.norm(wanted, axis=1)))
    assert errors[0] < 0.05
    assert errors[0] < 0.8 * errors[1]


def test_activations_are_int8_and_sums_are_float(int8: onnx.ModelProto) -> None:
    inferred = onnx.shape_inference.infer_shapes(int8, check_type=True, strict_mode=True).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
    for node in int8.graph.node:
        wanted = {TensorProto.INT8} if node.op_type == "QuantizeLinear" else None
        if node.op_type in ("Add", "LayerNormalization", "Softmax", "Erf", "MatMul"):
            wanted = {TensorProto.FLOAT, TensorProto.INT64}
        if wanted:
            assert {kinds.get(name, TensorProto.FLOAT) for name in node.output} <= wanted
