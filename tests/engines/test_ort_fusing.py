"""Ops of ONNX Runtime in place of exported patterns: how many, the same numbers, and where not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fgdeploy.bundle import Bundle, open_bundle
from fgdeploy.engines import build, open_engine
from fgdeploy.engines import onnxruntime as cpu
from fgdeploy.engines.ort_fusing import fuse
from fgdeploy.export import verify

B, N, H, D = 2, 5, 2, 8
WIDTH = H * D


def run(model: onnx.ModelProto, feeds: dict[str, Any]) -> list[npt.NDArray[Any]]:
    options = cpu.session_options(1)
    data = model.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


def near(model: onnx.ModelProto, feeds: dict[str, Any]) -> dict[str, int]:
    """Fuse a graph, hold its outputs to those before, and return the counts."""
    before, untouched = run(model, feeds), onnx.ModelProto.FromString(model.SerializeToString())
    counts = fuse(model)
    for one, other in zip(before, run(model, feeds), strict=True):
        if one.dtype == np.uint8:
            np.testing.assert_array_equal(one, other)
        else:
            np.testing.assert_allclose(other, one, atol=3e-6 * np.abs(one).max(), rtol=0)
    if not any(counts.values()):
        assert [node.name for node in model.graph.node] == [
            node.name for node in untouched.graph.node
        ]
        assert model.opset_import == untouched.opset_import
    return counts


# --- whole networks


def test_every_block_of_a_pruned_network_is_fused(pruned: Bundle) -> None:
    model = onnx.load(pruned.graph("fp32"))
    frames = verify.frames_for(64, [])
    # The first norm follows no sum. CLS scores keep their own softmax.
    assert near(model, {"frames": frames}) == {"attention": 6, "layer_norm": 12, "gelu": 6}
    onnx.checker.check_model(model)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert (kinds["Softmax"], kinds["Erf"], kinds["LayerNormalization"]) == (3, 0, 1)
    assert kinds["BiasGelu"] == 6  # with its bias
    assert not set(kinds) & {"Sqrt", "Pow"}
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)


def test_the_cpu_engine_is_built_of_fused_ops(
    pruned: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = verify.frames_for(64, [])
    built = build(pruned, "onnxruntime", "fp32").record
    assert built.flags["rewritten"] is True and built.layers is not None
    assert built.layers["fused"]["attention"] == 6
    with open_engine(pruned, "onnxruntime") as engine:
        assert "compiled here" in engine.describe()
        found = engine.run(frames)
    monkeypatch.setattr(cpu, "_fused", lambda graph: None)  # as without onnx
    plain = build(pruned, "onnxruntime", "fp32").record
    assert plain.flags["rewritten"] is False and plain.layers is not None
    assert "attention" not in plain.layers["fused"]
    with open_engine(pruned, "onnxruntime") as engine:
        expected = engine.run(frames)
    np.testing.assert_array_equal(found.code, expected.code)
    np.testing.assert_allclose(found.hash, expected.hash, atol=1e-5)


def test_without_onnx_the_graph_is_taken_as_it_is(
    own_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    assert cpu._fused(open_bundle(own_bundle).graph("fp32")) is None


# --- one pattern at a time


class Made:
    """A graph of one input x [B, N, WIDTH] under construction."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.chooser = np.random.default_rng(1)

    def weight(self, *shape: int) -> str:
        return self.constant(self.chooser.normal(size=shape).astype(np.float32))

    def constant(self, values: Any) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, kind: str, *reads: str, count: int = 1, **attributes: Any) -> Any:
        outputs = [f"t{len(self.nodes)}.{index}" for index in range(count)]
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(reads), outputs, name, **attributes))
        return outputs if count > 1 else outputs[0]

    def model(self, *outputs: str) -> onnx.ModelProto:
        shape = ["batch", N, WIDTH]
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def feeds() -> dict[str, Any]:
    return {"x": np.random.default_rng(0).normal(size=(B, N, WIDTH)).astype(np.float32)}


def numbers(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)


def attention(
    made: Made,
    key_order: tuple[int, ...] = (0, 2, 3, 1),
    scale: Any = 0.3,
    between: Callable[[str], str] = lambda scores: scores,
    joined: tuple[int, ...] = (-1, N, WIDTH),
) -> tuple[str, str]:
    """Add attention over x; return its output and its probabilities."""
    product = made.add("MatMul", "x", made.weight(WIDTH, 3 * WIDTH))
    parts = made.add("Split", product, count=3, axis=2, num_outputs=3)
    heads = made.constant(numbers(-1, N, H, D))
    split = [made.add("Reshape", part, heads) for part in parts]
    query = made.add("Transpose", split[0], perm=[0, 2, 1, 3])
    key = made.add("Transpose", split[1], perm=list(key_order))
    value = made.add("Transpose", split[2], perm=[0, 2, 1, 3])
    if scale is not None:
        query = made.add("Mul", query, made.constant(np.asarray(scale, np.float32)))
    scores = between(made.add("MatMul", query, key))
    likely = made.add("Softmax", scores, axis=-1)
    mixed = made.add("Transpose", made.add("MatMul", likely, value), perm=[0, 2, 1, 3])
    return made.add("Reshape", mixed, made.constant(numbers(*joined))), likely


@pytest.mark.parametrize("scale", [0.3, None, -2.0])
def test_attention_with_any_scale(scale: float | None) -> None:
    made = Made()
    model = made.model(attention(made, scale=scale)[0])
    assert near(model, feeds())["attention"] == 1
    assert [node.op_type for node in model.graph.node] == ["MatMul", "Split", "MultiHeadAttention"]


def test_attention_whose_probabilities_are_read_stays() -> None:
    made = Made()
    assert near(made.model(*attention(made)), feeds())["attention"] == 0
    made = Made()
    output, likely = attention(made)
    read = made.add("ReduceMean", likely, keepdims=0)
    assert near(made.model(output, read), feeds())["attention"] == 0


def test_attention_with_something_added_to_its_scores_stays() -> None:
    made = Made()
    output, _ = attention(made, between=lambda scores: made.add("Add", scores, made.weight(N)))
    assert near(made.model(output), feeds())["attention"] == 0


def test_attention_with_a_scale_for_each_column_stays() -> None:
    made = Made()
    output, _ = attention(made, scale=np.linspace(0.1, 1, D))
    assert near(made.model(output), feeds())["attention"] == 0


def test_heads_that_are_joined_otherwise_stay() -> None:
    made = Made()
    assert (
        near(made.model(attention(made, joined=(-1, 1, N * WIDTH))[0]), feeds())["attention"] == 0
    )


def gelu(
    made: Made, tensor: str, root: float = 2**0.5, half: float = 0.5, halve_first: bool = False
) -> str:
    erf = made.add("Erf", made.add("Div", tensor, made.constant(np.float32(root))))
    plus = made.add("Add", erf, made.constant(np.float32(1)))
    if halve_first:
        return str(made.add("Mul", made.add("Mul", tensor, made.constant(np.float32(half))), plus))
    return str(made.add("Mul", tensor, made.add("Mul", made.constant(np.float32(half)), plus)))


@pytest.mark.parametrize("halve_first", [False, True])
@pytest.mark.parametrize("others", [False, True])
def test_gelu_with_and_without_a_bias(others: bool, halve_first: bool) -> None:
    made = Made()
    biased = made.add("Add", "x", made.weight(WIDTH))
    output = gelu(made, biased, halve_first=halve_first)
    model = made.model(output, *([made.add("Neg", biased)] if others else []))
    assert near(model, feeds())["gelu"] == 1
    kinds = {node.op_type for node in model.graph.node}
    assert ("BiasGelu" in kinds, "Gelu" in kinds) == (not others, others)


@pytest.mark.parametrize("halve_first", [False, True])
@pytest.mark.parametrize(("root", "half"), [(1.5, 0.5), (2**0.5, 0.25)])
def test_what_only_looks_like_gelu_stays(root: float, half: float, halve_first: bool) -> None:
    made = Made()
    output = gelu(made, "x", root, half, halve_first)
    assert near(made.model(output), feeds())["gelu"] == 0


def norm(made: Made, tensor: str, **attributes: Any) -> str:
    scale, shift = made.weight(WIDTH), made.weight(WIDTH)
    return str(made.add("LayerNormalization", tensor, scale, shift, epsilon=1e-3, **attributes))


@pytest.mark.parametrize("bias_first", [False, True])
@pytest.mark.parametrize("sum_is_read", [False, True])
def test_sum_with_bias_and_norm(bias_first: bool, sum_is_read: bool) -> None:
    made = Made()
    product = made.add("MatMul", "x", made.weight(WIDTH, WIDTH))
    biased = made.add("Add", product, made.weight(WIDTH))
    total = made.add("Add", *((biased, "x") if bias_first else ("x", biased)))
    early = [made.add("Neg", total)] if sum_is_read else []  # before the norm
    model = made.model(norm(made, total), *early)
    assert near(model, feeds())["layer_norm"] == 1
    fused = next(node for node in model.graph.node if node.op_type == "SkipLayerNormalization")
    assert len(fused.input) == 5 and len(fused.output) == (4 if sum_is_read else 1)
    assert "Add" not in {node.op_type for node in model.graph.node}


def test_a_sum_that_is_an_output_is_still_given() -> None:
    made = Made()
    total = made.add("Add", "x", made.add("Neg", "x"))
    total = made.add("Add", total, "x")
    assert near(made.model(norm(made, total), total), feeds())["layer_norm"] == 1


@pytest.mark.parametrize("case", ["broadcast", "axis", "two norms"])
def test_sums_that_no_fused_norm_computes_stay(case: str) -> None:
    made = Made()
    total = made.add("Add", "x", made.weight(1, N, WIDTH) if case == "broadcast" else "x")
    if case == "axis":
        shape = (N, WIDTH)
        scale, shift = made.weight(*shape), made.weight(*shape)
        outputs = [made.add("LayerNormalization", total, scale, shift, axis=1)]
    else:
        outputs = [norm(made, total) for _ in range(2 if case == "two norms" else 1)]
    assert near(made.model(*outputs), feeds())["layer_norm"] == 0


def test_a_bias_that_others_read_is_added_once() -> None:
    made = Made()
    biased = made.add("Add", made.add("Neg", "x"), made.weight(WIDTH))
    total = made.add("Add", "x", biased)
    model = made.model(norm(made, total), made.add("Abs", biased))
    assert near(model, feeds())["layer_norm"] == 1
    assert "Add" in {node.op_type for node in model.graph.node}
