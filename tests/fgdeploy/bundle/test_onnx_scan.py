from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fgdeploy.bundle import onnx_scan
from fgdeploy.core.errors import BundleError
from tests.checks import refused

EXTERNAL = (
    r"^model\.onnx keeps weights in another file \(external data\), .*; export it again as one"
)
NOT_WHOLE = r"^model\.onnx is not a whole ONNX graph; export the bundle again$"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


def inside(name: str = "w") -> TensorProto:
    return numpy_helper.from_array(np.arange(4, dtype=np.float32), name)


def outside(name: str = "w") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    return tensor


def model(*initializers: TensorProto, nodes: list[onnx.NodeProto] | None = None) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy")
    add = helper.make_node("Add", ["x", "w"], ["y"])
    graph = helper.make_graph(nodes or [add], "g", [x], [y], list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def subgraph(tensor: TensorProto) -> onnx.GraphProto:
    out = helper.make_tensor_value_info("w", TensorProto.FLOAT, [4])
    return helper.make_graph([], "branch", [], [out], [tensor])


def with_attribute(attribute: onnx.AttributeProto) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["w"])
    node.attribute.append(attribute)
    return model(nodes=[node])


def attribute(**values: Any) -> onnx.AttributeProto:
    return onnx.AttributeProto(name="value", **values)


def sparse(tensor: TensorProto, indices: TensorProto) -> onnx.SparseTensorProto:
    return onnx.SparseTensorProto(values=tensor, indices=indices, dims=[4])


def in_function(tensor: TensorProto) -> onnx.ModelProto:
    found = model(inside())
    node = helper.make_node("Constant", [], ["w"])
    node.attribute.append(attribute(t=tensor))
    opset = helper.make_opsetid("", 18)
    found.functions.append(helper.make_function("here", "F", [], ["w"], [node], [opset]))
    return found


def in_function_default(tensor: TensorProto) -> onnx.ModelProto:
    found = in_function(inside())
    found.functions[0].attribute_proto.append(attribute(t=tensor))
    return found


def in_training(tensor: TensorProto) -> onnx.ModelProto:
    found = model(inside())
    found.training_info.add().initialization.CopyFrom(subgraph(tensor))
    return found


def in_two_subgraphs(tensor: TensorProto) -> onnx.ModelProto:
    node = helper.make_node("If", ["c"], ["w"], then_branch=subgraph(tensor))
    deep = helper.make_graph([node], "deep", [], [])
    return with_attribute(attribute(g=deep))


def in_sparse_initializer(tensor: TensorProto) -> onnx.ModelProto:
    found = model(inside())
    found.graph.sparse_initializer.append(sparse(tensor, inside()))
    return found


PLACES: dict[str, Callable[[TensorProto], onnx.ModelProto]] = {
    "initializer": model,
    "last of many initializers": lambda t: model(inside("a"), inside("b"), t),
    "node attribute": lambda t: with_attribute(attribute(t=t)),
    "node attribute list": lambda t: with_attribute(attribute(tensors=[inside(), t])),
    "subgraph": lambda t: with_attribute(attribute(g=subgraph(t))),
    "subgraph list": lambda t: with_attribute(attribute(graphs=[subgraph(inside()), subgraph(t)])),
    "subgraph of a subgraph": in_two_subgraphs,
    "sparse initializer": in_sparse_initializer,
    "sparse attribute, values": lambda t: with_attribute(
        attribute(sparse_tensor=sparse(t, inside()))
    ),
    "sparse attribute list, indices": lambda t: with_attribute(
        attribute(sparse_tensors=[sparse(inside(), t)])
    ),
    "function body": in_function,
    "function attribute default": in_function_default,
    "training graph": in_training,
}


@pytest.mark.parametrize("place", PLACES)
def test_tensors_inside_the_file_pass(target: Path, place: str) -> None:
    target.write_bytes(PLACES[place](inside()).SerializeToString())
    onnx_scan.check(target)


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_found(target: Path, place: str) -> None:
    target.write_bytes(PLACES[place](outside()).SerializeToString())
    with refused(BundleError, EXTERNAL):
        onnx_scan.check(target)


def test_external_data_as_onnx_saves_it(target: Path) -> None:
    weights = numpy_helper.from_array(np.zeros(4096, np.float32), "w")
    onnx.save_model(
        model(weights), target, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    assert (target.parent / "w.bin").is_file()
    with refused(BundleError, EXTERNAL):
        onnx_scan.check(target)


@pytest.mark.parametrize("half", ["location", "entries"])
def test_either_half_of_external_data_is_enough(target: Path, half: str) -> None:
    tensor = outside()
    tensor.ClearField("external_data" if half == "location" else "data_location")
    target.write_bytes(model(tensor).SerializeToString())
    with refused(BundleError, EXTERNAL):
        onnx_scan.check(target)


def test_tensor_that_says_it_is_inside_passes(target: Path) -> None:
    tensor = inside()
    tensor.data_location = TensorProto.DEFAULT
    target.write_bytes(model(tensor).SerializeToString())
    onnx_scan.check(target)


# --- not whole


def test_toy_graph_passes(toy_bundle: Path) -> None:
    onnx_scan.check(toy_bundle / "model.onnx")


def test_empty_file(target: Path) -> None:
    target.touch()
    with refused(BundleError, r"^model\.onnx is empty \(0 bytes\); export the bundle again$"):
        onnx_scan.check(target)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.99])
def test_file_cut_short(target: Path, toy_bundle: Path, share: float) -> None:
    whole = (toy_bundle / "model.onnx").read_bytes()
    target.write_bytes(whole[: int(len(whole) * share)])
    with refused(BundleError, NOT_WHOLE):
        onnx_scan.check(target)


def test_any_cut_inside_the_graph_is_found(target: Path) -> None:
    whole = model(inside()).SerializeToString()
    opsets = whole.rindex(b"\x42")  # opset_import, field 8, follows the graph
    for length in range(1, len(whole)):
        if length != opsets:
            target.write_bytes(whole[:length])
            with refused(BundleError, NOT_WHOLE):
                onnx_scan.check(target)


def test_cut_just_behind_the_graph_is_found(target: Path) -> None:
    whole = model(inside()).SerializeToString()
    target.write_bytes(whole[: whole.rindex(b"\x42")])
    with refused(BundleError, NOT_WHOLE):
        onnx_scan.check(target)


@pytest.mark.parametrize(
    "content",
    [
        b"hello, this is no graph\n",
        b"PK\x03\x04" + bytes(60),
        b"\0",
        bytes(1000),
        b"\xff" * 100,
        b"\x08",
        b"\x08\x07",  # an IR version and nothing else
        b"\x3a\x80",  # the length of the graph is cut
        b"\x3a\x05\x0a",  # the graph is cut
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # a graph of 2^64 - 1 bytes
        b"\x3b\x3c",  # groups, which ONNX has not
        b"\x0f",  # wire type 7, which protobuf has not
        b"\x08" + b"\x80" * 11 + b"\x01",  # a number of 12 bytes
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
    ],
)
def test_what_is_no_graph_is_refused(target: Path, content: bytes) -> None:
    target.write_bytes(content)
    with refused(BundleError, NOT_WHOLE):
        onnx_scan.check(target)


def test_changed_bytes_raise_nothing_but_bundle_errors(target: Path, toy_bundle: Path) -> None:
    whole = np.frombuffer((toy_bundle / "model.onnx").read_bytes(), np.uint8)
    chooser = np.random.default_rng(5)
    refused = 0
    for _ in range(400):
        changed = whole.copy()
        changed[chooser.integers(0, len(whole), 20)] = chooser.integers(0, 256, 20)
        changed[chooser.integers(0, 100, 1)] = chooser.integers(0, 256)
        target.write_bytes(changed.tobytes())
        try:
            onnx_scan.check(target)
        except BundleError as error:
            refused += 1
            assert str(error).startswith("model.onnx ") and "\n" not in str(error)
    assert refused > 50


# --- made to deceive: what protobuf reads and a naive reader does not


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, content: bytes, beyond: int = 0) -> bytes:
    """Return a length-delimited field; `beyond` sets bits of its key above the 32nd."""
    return varint(number << 3 | 2 | beyond << 32) + varint(len(content)) + content


def hidden(tensor_key: int, graph_key: int) -> bytes:
    """Return a model whose external tensor stands behind keys with bits above the 32nd."""
    empty = model()
    graph = empty.graph.SerializeToString() + field(5, outside().SerializeToString(), tensor_key)
    empty.ClearField("graph")
    return bytes(empty.SerializeToString()) + field(7, graph, graph_key)


@pytest.mark.parametrize("key", [1, 4])
def test_external_data_behind_a_key_of_too_many_bits(target: Path, key: int) -> None:
    """ONNX Runtime and OpenVINO drop the upper bits of a key and read the file named there."""
    target.write_bytes(hidden(key, 0))
    with refused(BundleError, f"({EXTERNAL})|({NOT_WHOLE})"):
        onnx_scan.check(target)


def test_graph_behind_a_key_of_too_many_bits(target: Path) -> None:
    target.write_bytes(hidden(0, 1))
    with refused(BundleError, f"({EXTERNAL})|({NOT_WHOLE})"):
        onnx_scan.check(target)


def test_external_data_behind_a_key_with_padding(target: Path) -> None:
    """A key may be written with more bytes than it needs."""
    empty = model()
    tensor = outside().SerializeToString()
    padded = bytes([5 << 3 | 2 | 0x80, 0x80, 0x80, 0x00]) + varint(len(tensor)) + tensor
    graph = empty.graph.SerializeToString() + padded
    empty.ClearField("graph")
    target.write_bytes(empty.SerializeToString() + field(7, graph))
    with refused(BundleError, EXTERNAL):
        onnx_scan.check(target)


def test_external_data_in_a_second_graph_field(target: Path) -> None:
    """Protobuf merges a message that comes twice."""
    second = field(7, field(5, outside().SerializeToString()))
    target.write_bytes(model(inside()).SerializeToString() + second)
    with refused(BundleError, EXTERNAL):
        onnx_scan.check(target)


def test_data_location_of_too_many_bits(target: Path) -> None:
    location = varint(14 << 3) + varint(1 << 32 | 1)
    tensor = inside().SerializeToString() + location
    target.write_bytes(model().SerializeToString() + field(7, field(5, tensor)))
    with refused(BundleError, f"({EXTERNAL})|({NOT_WHOLE})"):
        onnx_scan.check(target)


def test_graphs_nested_without_end(target: Path) -> None:
    graph = b""
    for _ in range(400):
        graph = field(1, field(5, field(6, graph)))
    target.write_bytes(field(7, graph))
    with refused(BundleError, NOT_WHOLE):
        onnx_scan.check(target)
