"""Look into an ONNX file without the onnx package: is it whole, and does it keep to itself?

Reads the protobuf wire format and follows only the messages that may hold tensors (onnx.proto,
ONNX IR 4 and later); everything else is stepped over.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fgdeploy.core.errors import BundleError

# message -> {field number: message inside it}
_INSIDE = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14  # of TensorProto
_OPSET_IMPORT, _NOTES, _GRAPH = 8, 14, 7  # of ModelProto: opset_import, metadata_props, graph
_NODE, _INITIALIZER, _INPUT, _OUTPUT = 1, 5, 11, 12  # of GraphProto
_DEEPEST = 100  # messages in messages, protobuf's own limit


def check(path: Path) -> dict[str, str]:
    """Return the notes that an ONNX file holds by name (its `metadata_props`).

    Raises BundleError if it is empty, cut short, or keeps tensors in other files.
    """
    if path.stat().st_size == 0:
        raise BundleError(f"{path.name} is empty (0 bytes); export the bundle again")
    with (
        open(path, "rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        try:
            graphs = _walk(data, 0, len(data), "model", 0)
            notes = _notes(data)
        except (IndexError, ValueError):
            graphs, notes = 0, {}
    if graphs == 0:
        raise BundleError(f"{path.name} is not a whole ONNX graph; export the bundle again")
    if graphs < 0:
        raise BundleError(
            f"{path.name} keeps weights in another file (external data), which a bundle must not; "
            "export it again as one file"
        )
    return notes


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (field, wire type, place, length) of a message; of a number its value as the length."""
    while at < end:
        key, at = _varint(data, at)
        # protobuf's C++ parsers drop the upper bits of a key, so another field could hide there
        if not 8 <= key < 1 << 32:
            raise ValueError("a key of more than 32 bits, or of field 0")
        field, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield field, wire, at, value
            continue
        if wire == 2:
            length, at = _varint(data, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"unknown wire type {wire}")
        if at + length > end:
            raise ValueError("cut short")
        yield field, wire, at, length
        at += length
    if at != end:
        raise ValueError("cut short")


def _walk(data: mmap.mmap, at: int, end: int, message: str, depth: int) -> int:
    """Return the number of graphs seen, or -1 as soon as a tensor points out of the file."""
    if depth > _DEEPEST:
        raise ValueError("nested too deep")
    inside, graphs, opsets = _INSIDE[message], int(message == "graph"), 0
    for field, wire, place, length in _fields(data, at, end):
        opsets += message == "model" and field == _OPSET_IMPORT
        if message == "tensor":
            elsewhere = wire == 0 and field == _DATA_LOCATION and length & 0xFFFFFFFF == 1
            if elsewhere or (wire != 0 and field == _EXTERNAL_DATA):
                return -1
        if wire == 2 and field in inside:
            found = _walk(data, place, place + length, inside[field], depth + 1)
            if found < 0:
                return -1
            graphs += found
    if message == "model" and not opsets:
        raise ValueError("cut short")
    return graphs


def _notes(data: mmap.mmap) -> dict[str, str]:
    """Return `metadata_props`, the last of each name, as protobuf's maps are read."""
    found: dict[str, str] = {}
    for field, wire, at, length in _fields(data, 0, len(data)):
        if field == _NOTES and wire == 2:
            parts = {
                part: data[start : start + size].decode("utf-8")
                for part, kind, start, size in _fields(data, at, at + length)
                if kind == 2
            }
            found[parts.get(1, "")] = parts.get(2, "")
    return found


@dataclass(frozen=True)
class Node:
    """A node of a graph: its op without the domain, and the names of what it reads and writes."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def contents(path: Path) -> tuple[list[Node], dict[str, int]]:
    """Return the nodes of an ONNX file's main graph in order, and the ONNX types of its weights.

    Raises BundleError for a file that is no whole graph.
    """
    check(path)
    nodes: list[Node] = []
    weights: dict[str, int] = {}
    with (
        open(path, "rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        for field, wire, start, size in _fields(data, 0, len(data)):
            if (field, wire) != (_GRAPH, 2):
                continue
            for part, kind, at, length in _fields(data, start, start + size):
                if (part, kind) == (_NODE, 2):
                    nodes.append(_node(data, at, at + length))
                elif (part, kind) == (_INITIALIZER, 2):
                    name, type_ = _named_type(data, at, at + length)
                    weights[name] = type_
    return nodes, weights


@dataclass(frozen=True)
class GraphEnd:
    """An input or an output of a graph: its ONNX type, 0 for no tensor, its shape, None without.

    A size is a number, or the name of one that is open, which may be empty.
    """

    name: str
    type: int
    shape: tuple[int | str, ...] | None


def graph_inputs(path: Path) -> list[GraphEnd]:
    """Return what an ONNX file takes, weights left out; they may lie in other files.

    Raises BundleError for a file that is no ONNX graph, and OSError.
    """
    return _ends(path, _INPUT)


def graph_outputs(path: Path) -> list[GraphEnd]:
    """Return what an ONNX file gives. Raises as `graph_inputs` does."""
    return _ends(path, _OUTPUT)


def _ends(path: Path, which: int) -> list[GraphEnd]:
    found: list[GraphEnd] = []
    weights: set[str] = set()
    graphs = 0
    try:
        with (
            open(path, "rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            for field, wire, start, size in _fields(data, 0, len(data)):
                if (field, wire) != (_GRAPH, 2):
                    continue
                graphs += 1
                for part, kind, at, length in _fields(data, start, start + size):
                    if (part, kind) == (which, 2):
                        found.append(_end(data, at, at + length))
                    elif (part, kind) == (_INITIALIZER, 2):
                        weights.add(_named_type(data, at, at + length)[0])
    except (IndexError, ValueError):
        graphs = 0
    if not graphs:
        raise BundleError(f"{path} is no bundle and no whole ONNX graph; give one of them")
    return [one for one in found if which == _OUTPUT or one.name not in weights]


def _end(data: mmap.mmap, at: int, end: int) -> GraphEnd:
    """Read a ValueInfoProto: name 1, type 2 of TypeProto, its tensor_type 1."""
    name, type_, shape = "", 0, None
    for field, wire, start, size in _fields(data, at, end):
        if (field, wire) == (1, 2):
            name = data[start : start + size].decode("utf-8")
        elif (field, wire) == (2, 2):
            for kind, kind_wire, place, length in _fields(data, start, start + size):
                if (kind, kind_wire) == (1, 2):
                    type_, shape = _tensor_type(data, place, place + length)
    return GraphEnd(name, type_, shape)


def _tensor_type(data: mmap.mmap, at: int, end: int) -> tuple[int, tuple[int | str, ...] | None]:
    """Read a TypeProto.Tensor: elem_type 1, shape 2 of dims 1: dim_value 1 or dim_param 2."""
    type_, shape = 0, None
    for field, wire, start, size in _fields(data, at, end):
        if (field, wire) == (1, 0):
            type_ = size
        elif (field, wire) == (2, 2):
            sides: list[int | str] = []
            for _, _, place, length in _fields(data, start, start + size):
                side: int | str = ""
                for part, kind, text, value in _fields(data, place, place + length):
                    if (part, kind) == (1, 0) and 0 < value < 1 << 31:
                        side = value
                    elif (part, kind) == (2, 2):
                        side = data[text : text + value].decode("utf-8")
                sides.append(side)
            shape = tuple(sides)
    return type_, shape


def _node(data: mmap.mmap, at: int, end: int) -> Node:
    texts: dict[int, list[str]] = {1: [], 2: [], 4: []}  # input, output, op_type
    for field, wire, start, size in _fields(data, at, end):
        if wire == 2 and field in texts:
            texts[field].append(data[start : start + size].decode("utf-8"))
    return Node("".join(texts[4][-1:]), tuple(texts[1]), tuple(texts[2]))


def _named_type(data: mmap.mmap, at: int, end: int) -> tuple[str, int]:
    name, type_ = "", 0
    for field, wire, start, value in _fields(data, at, end):
        if wire == 0 and field == 2:  # data_type
            type_ = value
        elif wire == 2 and field == 8:  # name
            name = data[start : start + value].decode("utf-8")
    return name, type_
