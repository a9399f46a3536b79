"""Where balances fold, where they must not, and that folding changes nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper, numpy_helper

from fgdeploy.calibration import folding, int8_plan, linears, qdq
from fgdeploy.calibration.balance import Balance
from fgdeploy.calibration.calibration_settings import CalibrationSettings
from fgdeploy.calibration.folding import Fold, Weights
from fgdeploy.calibration.int8_plan import Int8Plan
from fgdeploy.calibration.paths import Paths
from tests.calibration.graphs import WIDTH, apart, block, constant, insert, maker, noise, run, tap

Frames = npt.NDArray[np.uint8]


def _place(model: onnx.ModelProto, name: str, before: onnx.ModelProto | None = None) -> Fold:
    """Return where the balance of a layer folds; before: the graph that has the layers."""
    layers = linears.find(before or model)
    readers = [one for one in layers if one.name == name]
    return folding.place(readers[0].x, readers, layers, Paths(model.graph))


def _where(model: onnx.ModelProto, name: str) -> str:
    fold = _place(model, name)
    if fold.norm is not None:
        return f"norm {fold.norm.name}"
    return f"values of {fold.values.name}" if fold.values is not None else "two ops"


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(
    ("layer", "where"),
    [
        ("qkv", "norm norm1/norm1"),
        ("fc1", "norm norm2/norm2"),
        ("proj", "values of qkv"),
        ("fc2", "two ops"),
    ],
)
def test_each_pattern(biased: bool, layer: str, where: str) -> None:
    assert _where(block(biased=biased), layer) == where


def test_of_an_export(model: onnx.ModelProto) -> None:
    """Pruning blocks (2, 4, 5) score tokens by what attention made, so nothing folds there."""
    for number in range(5):
        assert _where(model, f"blocks.{number}.attn.qkv").startswith(f"norm blocks.{number}.norm1")
        assert _where(model, f"blocks.{number}.mlp.fc1").startswith(f"norm blocks.{number}.norm2")
        assert _where(model, f"blocks.{number}.mlp.fc2") == "two ops"
        pruning = number + 1 in (2, 4, 5)
        expected = "two ops" if pruning else f"values of blocks.{number}.attn.qkv"
        assert _where(model, f"blocks.{number}.attn.proj") == expected
    # The last block's norm is read by the query of CLS too, which stays in float.
    assert _where(model, linears.find(model)[-1].name) == "two ops"


@pytest.mark.parametrize(
    ("layer", "tensor"),
    [
        ("qkv", "norm1"),
        ("fc1", "norm2"),
        # Whoever scores tokens by their values or by attention's outcome needs them as they were.
        *(("proj", name) for name in ("qkv", "v", "v.heads", "v.turned", "mixed")),
        *(("proj", name) for name in ("mixed.turned", "joined")),
    ],
)
@pytest.mark.parametrize("as_output", [True, False])
def test_not_where_somebody_else_reads(layer: str, tensor: str, as_output: bool) -> None:
    model = block()
    if as_output:
        known = onnx.shape_inference.infer_shapes(model).graph.value_info
        model.graph.output.append(next(value for value in known if value.name == tensor))
    else:
        tap(model, tensor)
    assert _place(model, layer, block()) == Fold()


def test_readers_of_keys_and_scores_do_not_matter() -> None:
    for tensor in ("k", "k.columns", "scores", "soft"):
        assert _where(tap(block(), tensor), "proj") == "values of qkv"


def _sigmoid(model: onnx.ModelProto) -> str:
    node = maker(model, "soft")
    node.op_type = "Sigmoid"
    del node.attribute[:]
    return "proj"


def _other_axis(model: onnx.ModelProto) -> str:
    maker(model, "soft").attribute[0].i = 2
    return "proj"


def _values_first(model: onnx.ModelProto) -> str:
    maker(model, "v").output[:] = ["v", "k", "q"]
    return "proj"


def _scaled_between(model: onnx.ModelProto) -> str:
    insert(model, "joined", helper.make_node("Relu", ["mixed.turned"], ["relu"], "node_relu"))
    maker(model, "joined").input[0] = "relu"
    return "proj"


def _scaled_values(model: onnx.ModelProto) -> str:
    insert(model, "v.turned", helper.make_node("Relu", ["v.heads"], ["relu"], "node_relu"))
    maker(model, "v.turned").input[0] = "relu"
    return "proj"


def _after_qkv(model: onnx.ModelProto) -> str:
    insert(model, "q", helper.make_node("Relu", ["qkv"], ["relu"], "node_relu"))
    maker(model, "q").input[0] = "relu"
    return "proj"


def _without_beta(model: onnx.ModelProto) -> str:
    del maker(model, "norm1").input[2]
    return "qkv"


def _computed_gamma(model: onnx.ModelProto) -> str:
    insert(model, "norm1", helper.make_node("Abs", ["norm1.weight"], ["abs"], "node_abs"))
    maker(model, "norm1").input[1] = "abs"
    return "qkv"


@pytest.mark.parametrize(
    "change",
    [
        _sigmoid,
        _other_axis,
        _values_first,
        _scaled_between,
        _scaled_values,
        _after_qkv,
        _without_beta,
        _computed_gamma,
    ],
)
def test_dead_ends(change: Callable[[onnx.ModelProto], str]) -> None:
    model = block()
    layer = change(model)
    assert _place(model, layer) == Fold()


def test_a_scale_on_an_input_of_the_graph() -> None:
    model = block()
    maker(model, "qkv.product").input[0] = "frames"
    layers = linears.find(block())
    one = next(layer for layer in layers if layer.name == "qkv")
    paths = Paths(model.graph)
    assert folding.place("frames", [one], layers, paths) == Fold()


# Folding changes no number: all layers in float, the balances in place.


def _float_graph(made: Int8Plan) -> onnx.ModelProto:
    return qdq.write(made, list(made.layers))


def _plan(model: onnx.ModelProto) -> Int8Plan:
    made = int8_plan.make(model, [noise(4), noise(4, seed=1)], CalibrationSettings())
    moved = [item.balance for item in made.activations]
    assert all(one.scale.max() > 1.2 * one.scale.min() and one.shift.any() for one in moved)
    return made


@pytest.mark.parametrize("biased", [True, False])
def test_exact_on_a_block(biased: bool) -> None:
    drawn = block(biased=biased)
    made = _plan(drawn)
    wheres = [
        (item.fold.norm is not None, item.fold.values is not None) for item in made.activations
    ]
    assert wheres == [(True, False), (False, True), (True, False), (False, False)]
    frames = noise(6, seed=2)
    assert apart(run(_float_graph(made), frames)["hash"], run(drawn, frames)["hash"]) < 1e-5


@pytest.mark.parametrize(
    "tensor",
    ["norm1", "norm2", "v", "v.turned", "qkv", "qkv.product", "joined", "gelu", "fc1.product"],
)
def test_exact_for_whoever_else_reads(tensor: str) -> None:
    """A rule that scores tokens by values, keys or norms sees them as they were."""
    drawn = tap(block(seed=3), tensor)
    made = _plan(drawn)
    frames = noise(6, seed=2)
    got, wanted = (run(graph, frames, ["hash", "tap"]) for graph in (_float_graph(made), drawn))
    for name in ("hash", "tap"):
        assert apart(got[name], wanted[name]) < 1e-5


def test_exact_where_positions_are_added_after_a_layer() -> None:
    drawn = block()
    rows = np.random.default_rng(0).standard_normal((16, WIDTH)).astype(np.float32)
    bias = next(item for item in drawn.graph.initializer if item.name == "proj.bias")
    bias.CopyFrom(numpy_helper.from_array(rows, "proj.bias"))
    made = _plan(drawn)
    frames = noise(6, seed=2)
    assert apart(run(_float_graph(made), frames)["hash"], run(drawn, frames)["hash"]) < 1e-5


def test_exact_on_an_export(made: Int8Plan, model: onnx.ModelProto, unseen: Frames) -> None:
    got, wanted = run(_float_graph(made), unseen), run(model, unseen)
    assert apart(got["hash"], wanted["hash"]) < 1e-5


def test_weights_by_hand() -> None:
    """The values' third of qkv is divided, proj is multiplied, biases make up for the shift."""
    drawn = block()
    layers = {one.name: one for one in linears.find(drawn)}
    paths = Paths(drawn.graph)
    arrays = {
        item.name: numpy_helper.to_array(item).astype(np.float64)
        for item in drawn.graph.initializer
    }
    rng = np.random.default_rng(0)
    shift, scale = rng.standard_normal(WIDTH), rng.uniform(0.5, 2, WIDTH)
    weights = Weights(list(layers.values()), arrays, paths)
    weights.fold(Balance(shift, scale, 1.0, 0.5, 0.0), [layers["proj"]], Fold(values=layers["qkv"]))
    last = slice(2 * WIDTH, None)
    qkv, proj = constant(drawn, "qkv.weight"), constant(drawn, "proj.weight")
    assert np.allclose(weights.weight["qkv"][:, last], qkv[:, last] / scale)
    assert (weights.weight["qkv"][:, : 2 * WIDTH] == qkv[:, : 2 * WIDTH]).all()
    bias = constant(drawn, "qkv.bias")
    assert np.allclose(weights.bias["qkv"][last], (bias[last] - shift) / scale)
    assert np.allclose(weights.weight["proj"], proj * scale[:, None])
    assert np.allclose(weights.bias["proj"], constant(drawn, "proj.bias") + shift @ proj)
    assert weights.norms == {}
    weights.fold(Balance(shift, scale, 1.0, 0.5, 0.0), [layers["fc1"]], _place(drawn, "fc1"))
    gamma, beta = weights.norms["norm2/norm2"]
    assert np.allclose(gamma, constant(drawn, "norm2.weight") / scale)
    assert np.allclose(beta, (constant(drawn, "norm2.bias") - shift) / scale)
    # What was given is as it was.
    assert (arrays["norm2.bias"] == constant(drawn, "norm2.bias")).all()
    assert (arrays["qkv.weight"] == qkv).all()
