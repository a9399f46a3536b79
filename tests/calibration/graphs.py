"""Small transformers drawn by hand, changes to them, and running them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from fgdeploy.engines.onnxruntime import session_options

SIDE, PATCH, WIDTH, HEADS, TOKENS, BITS = 16, 4, 32, 2, 16, 16

Arrays = Mapping[str, npt.NDArray[Any]]


class Draft:
    """A graph on its way. A node is called `module/output`, as the exporter calls them."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.held: list[Any] = []

    def constant(self, name: str, values: npt.ArrayLike) -> str:
        array = np.asarray(values)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        self.held.append(numpy_helper.from_array(array, name))
        return name

    def op(self, kind: str, inputs: Sequence[str], output: str, at: str = "", **marks: Any) -> str:
        outputs = output.split()
        name = f"{at}/{outputs[0]}" if at else f"node_{outputs[0]}"
        self.nodes.append(helper.make_node(kind, list(inputs), outputs, name, **marks))
        return outputs[0]

    def norm(self, x: str, name: str, width: int = WIDTH) -> str:
        gamma = self.constant(f"{name}.weight", np.exp(self.rng.normal(0, 1, width)))
        beta = self.constant(f"{name}.bias", self.rng.normal(0, 1, width))
        return self.op("LayerNormalization", [x, gamma, beta], name, name, axis=-1)

    def linear(self, x: str, name: str, fan_in: int, fan_out: int, biased: bool = True) -> str:
        spread = self.rng.normal(0, fan_in**-0.5, (fan_in, fan_out))
        weight = self.constant(f"{name}.weight", spread)
        if not biased:
            return self.op("MatMul", [x, weight], name, name)
        bias = self.constant(f"{name}.bias", self.rng.normal(0, 1, fan_out))
        self.op("MatMul", [x, weight], f"{name}.product", name)
        return self.op("Add", [f"{name}.product", bias], name, name)

    def shape(self, x: str, sizes: Sequence[int], output: str) -> str:
        return self.op("Reshape", [x, self.constant(f"{output}.sizes", np.array(sizes))], output)

    def turn(self, x: str, output: str, perm: Sequence[int]) -> str:
        return self.op("Transpose", [x], output, perm=list(perm))

    def model(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> onnx.ModelProto:
        """Return the graph, given the shapes of what goes in and out; all but two are float."""
        kinds = {"frames": TensorProto.UINT8, "code": TensorProto.UINT8}
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "draft",
            [value(name, kinds.get(name, 1), shape) for name, shape in inputs.items()],
            [value(name, kinds.get(name, 1), shape) for name, shape in outputs.items()],
            self.held,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def block(seed: int = 0, biased: bool = True) -> onnx.ModelProto:
    """Return one transformer block from frames [batch, 16, 16, 3] to hash and code of 16 bits."""
    draft = Draft(seed)
    embed(draft)
    qkv = draft.linear(draft.norm("tokens", "norm1"), "qkv", WIDTH, 3 * WIDTH, biased)
    draft.op("Split", [qkv], "q k v", axis=2, num_outputs=3)
    for name in "qkv":
        draft.shape(name, [0, 0, HEADS, WIDTH // HEADS], f"{name}.heads")
        draft.turn(f"{name}.heads", f"{name}.turned", [0, 2, 1, 3])
    draft.turn("k.turned", "k.columns", [0, 1, 3, 2])
    draft.op("MatMul", ["q.turned", "k.columns"], "scores")
    draft.op("Softmax", ["scores"], "soft", axis=-1)
    draft.op("MatMul", ["soft", "v.turned"], "mixed")
    draft.turn("mixed", "mixed.turned", [0, 2, 1, 3])
    draft.shape("mixed.turned", [0, 0, WIDTH], "joined")
    draft.op("Add", ["tokens", draft.linear("joined", "proj", WIDTH, WIDTH, biased)], "middle")
    draft.linear(draft.norm("middle", "norm2"), "fc1", WIDTH, 2 * WIDTH, biased)
    draft.op("Div", ["fc1", draft.constant("root", np.float32(2**0.5))], "act.div")
    draft.op("Erf", ["act.div"], "act.erf")
    draft.op("Add", ["act.erf", draft.constant("one", np.float32(1))], "act.one")
    draft.op("Mul", ["fc1", "act.one"], "gelu")
    draft.op("Add", ["middle", draft.linear("gelu", "fc2", 2 * WIDTH, WIDTH, biased)], "end")
    return head(draft, draft.norm("end", "norm"))


def embed(draft: Draft) -> None:
    """Turn frames into tokens [batch, 16, 32]."""
    kernel = draft.rng.normal(0, 0.002, (WIDTH, 3, PATCH, PATCH))
    inputs = [
        "planes",
        draft.constant("embed.weight", kernel),
        draft.constant("embed.bias", draft.rng.normal(0, 1, WIDTH)),
    ]
    draft.op("Cast", ["frames"], "pixels", to=TensorProto.FLOAT)
    draft.turn("pixels", "planes", [0, 3, 1, 2])
    draft.op("Conv", inputs, "patches", "embed", kernel_shape=[4, 4], strides=[4, 4])
    draft.shape("patches", [0, WIDTH, TOKENS], "flat")
    draft.turn("flat", "tokens", [0, 2, 1])


def head(draft: Draft, x: str) -> onnx.ModelProto:
    """End a graph: the first token's hash, and its code."""
    places = np.zeros((BITS, 2), np.float32)
    places[np.arange(BITS), np.arange(BITS) // 8] = 2.0 ** (7 - np.arange(BITS) % 8)
    draft.op("Gather", [x, draft.constant("first", np.int64(0))], "embedding", axis=1)
    project = draft.constant("head.weight", draft.rng.normal(0, 0.2, (WIDTH, BITS)))
    draft.op("MatMul", ["embedding", project], "hash", "head")
    draft.op("Greater", ["hash", draft.constant("zero", np.float32(0))], "set")
    draft.op("Cast", ["set"], "bits", to=TensorProto.FLOAT)
    draft.op("MatMul", ["bits", draft.constant("places", places)], "bytes", "pack")
    draft.op("Cast", ["bytes"], "code", to=TensorProto.UINT8)
    outputs = {"code": ["batch", 2], "hash": ["batch", BITS]}
    model = draft.model({"frames": ["batch", SIDE, SIDE, 3]}, outputs)
    onnx.checker.check_model(model, full_check=True)
    return model


def maker(model: onnx.ModelProto, tensor: str) -> Any:
    """Return the node that makes a tensor."""
    return next(node for node in model.graph.node if tensor in node.output)


def insert(model: onnx.ModelProto, before: str, node: Any) -> None:
    """Put a node right before the one that makes `before`."""
    at = list(model.graph.node).index(maker(model, before))
    model.graph.node.insert(at, node)


def tap(model: onnx.ModelProto, tensor: str) -> onnx.ModelProto:
    """Let somebody else read a tensor: it is the output `tap` as well."""
    model.graph.node.append(helper.make_node("Identity", [tensor], ["tap"], "node_tap"))
    known = onnx.shape_inference.infer_shapes(model).graph.value_info
    value = next(value for value in known if value.name == tensor)
    model.graph.output.append(value)
    model.graph.output[-1].name = "tap"
    return model


def constant(model: onnx.ModelProto, name: str) -> npt.NDArray[Any]:
    """Return the values of an initializer."""
    return numpy_helper.to_array(next(i for i in model.graph.initializer if i.name == name))


def replace(model: onnx.ModelProto, name: str, values: npt.NDArray[Any]) -> None:
    """Give an initializer other values."""
    held = next(item for item in model.graph.initializer if item.name == name)
    held.CopyFrom(numpy_helper.from_array(values, name))


def run(
    model: onnx.ModelProto,
    frames: npt.NDArray[np.uint8],
    names: Sequence[str] = ("hash",),
    optimised: bool = True,
) -> Arrays:
    """Return tensors of a graph, inner ones too, by name."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in onnx.shape_inference.infer_shapes(model).graph.value_info
    } | {value.name: value.type.tensor_type.elem_type for value in model.graph.output}
    for name in names:
        probe.graph.output.append(helper.make_tensor_value_info(name, kinds[name], None))
    options = session_options(threads=1)
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        probe.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return dict(zip(names, session.run(list(names), {"frames": frames}), strict=True))


def noise(count: int, side: int = SIDE, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Return frames of noise, each of its own brightness and contrast."""
    rng = np.random.default_rng(seed)
    level, contrast = rng.uniform(60, 190, (2, count, 1, 1, 1)) * [[[[[1]]]], [[[[0.4]]]]]
    values = level + contrast * rng.standard_normal((count, side, side, 3))
    return np.clip(values, 0, 255).astype(np.uint8)


def apart(got: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    """Return the largest difference, relative to the largest value."""
    return float(np.abs(got - wanted.astype(np.float64)).max() / np.abs(wanted).max())
