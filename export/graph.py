"""The deployed graph as a PyTorch module, and its way into an ONNX file.

Contract: `frames` uint8 [B, S, S, 3] -> `code` uint8 [B, ceil(bits/8)], `hash` float32 [B, bits],
`embedding` float32 [B, D] and whatever a method or its head declares: `logits` float32 [B, C], a
`box`. Only B is dynamic.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fgdeploy.core.codes import code_bytes
from fgdeploy.core.errors import ExportError, FgdeployError
from fgdeploy.export import gelu_order
from fgdeploy.models.network import Network

# The outputs that every graph has, in order; then its extras.
ALWAYS = ("code", "hash", "embedding")


class CodePacker(nn.Module):
    """Pack hash > 0 into bytes by one product with powers of two; exact in any float type."""

    powers: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        powers = torch.zeros(bits, code_bytes(bits))
        for bit in range(bits):
            powers[bit, bit // 8] = 2.0 ** (7 - bit % 8)
        self.register_buffer("powers", powers)

    def forward(self, hashes: Tensor) -> Tensor:
        """Return codes uint8 [B, ceil(bits/8)] of hashes [B, bits]."""
        return ((hashes > 0).to(self.powers.dtype) @ self.powers).to(torch.uint8)


class DeployGraph(nn.Module):
    """Frames in, code, hash and all declared outputs out: a network as it is deployed.

    extras: names of further outputs, of the head (`logits`) or of the method.
    """

    def __init__(self, network: Network, extras: Sequence[str] = ()) -> None:
        super().__init__()
        self.network = network
        self.extras = tuple(extras)
        self.pack = CodePacker(network.head_bits)

    def output_names(self) -> list[str]:
        """Return the graph's outputs in order."""
        return [*ALWAYS, *self.extras]

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Return (code, hash, embedding, ...) of uint8 frames [B, S, S, 3]."""
        network = self.network
        # Cast first: TensorRT transposes no uint8.
        floats = frames.to(self.pack.powers.dtype)
        features = network(network.pixels(floats.permute(0, 3, 1, 2)))
        found = {**features.extras, **network.head(features)}
        outputs = (self.pack(found["hash"]), found["hash"], features.embedding)
        return (*outputs, *(found[name] for name in self.extras))


@dataclass(frozen=True)
class GraphFacts:
    """What an ONNX file turned out to be. outputs: type and shape by name; nodes: their names."""

    opset: int
    inputs: dict[str, list[Any]]
    outputs: dict[str, dict[str, Any]]
    ops: dict[str, int]
    nodes: tuple[str, ...]


# ONNX's numbers of types.
_TYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16"}

# Ops whose output shape depends on values, or that engines cannot fix ahead of time.
_DYNAMIC_OPS = {
    "NonZero",
    "Loop",
    "If",
    "Scan",
    "Unique",
    "Resize",
    "Compress",
    "NonMaxSuppression",
}


def write_onnx(
    graph: DeployGraph,
    image_size: int,
    target: Path,
    opset: int,
    notes: Mapping[str, str] | None = None,
) -> GraphFacts:
    """Export through torch's dynamo exporter into one self-contained ONNX file.

    notes: kept in the file by name, for those who change the graph later.

    Raises ExportError if the exporter fails, the opset comes out otherwise, an op is not static,
    or the file would pass protobuf's 2 GB.
    """
    frames = torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)
    try:
        with _quiet():
            program = torch.onnx.export(
                graph.eval(),
                (frames,),
                dynamo=True,
                opset_version=opset,
                input_names=["frames"],
                output_names=graph.output_names(),
                dynamic_shapes={"frames": {0: torch.export.Dim("batch", min=1, max=4096)}},
                optimize=True,
                verbose=False,
            )
    except Exception as error:  # the exporter raises many kinds
        if (ours := _told_in(error)) is not None:
            raise ours from None
        raise ExportError(
            f"torch's exporter failed: {' '.join(str(error).split())[:300]}; "
            "run again with --debug for its full report"
        ) from error
    assert program is not None
    return _save(program, target, opset, notes or {})


def _told_in(error: BaseException) -> FgdeployError | None:
    """Return the error of ours that the exporter wrapped in its own, None where there is none."""
    wrapped: BaseException | None = error
    while wrapped is not None and not isinstance(wrapped, FgdeployError):
        wrapped = wrapped.__cause__ or wrapped.__context__
    return wrapped


def _save(
    program: torch.onnx.ONNXProgram, target: Path, opset: int, notes: Mapping[str, str]
) -> GraphFacts:
    import onnx
    from onnxscript import optimizer

    # The default size limits leave slices and transposes of weights in the graph as work.
    optimizer.optimize(program.model, input_size_limit=1 << 28, output_size_limit=1 << 28)
    proto = program.model_proto
    _store_once(proto)
    gelu_order.halve_first(proto.graph)
    if proto.ByteSize() >= 2**31 - 1:
        raise ExportError("the graph passes 2 GB, which one ONNX file cannot hold")
    ops: dict[str, int] = {}
    for node in proto.graph.node:
        ops[node.op_type] = ops.get(node.op_type, 0) + 1
        _name_by_module(node)
    if found := sorted(_DYNAMIC_OPS & set(ops)):
        raise ExportError(f"the graph has ops without fixed shapes: {', '.join(found)}")
    actual = max(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if actual != opset:
        raise ExportError(f"asked for opset {opset}, the exporter gave {actual}; change --opset")
    for key, value in notes.items():
        proto.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(proto)
    target.write_bytes(proto.SerializeToString())
    return GraphFacts(
        actual,
        {value.name: _shape(value) for value in proto.graph.input},
        {value.name: _described(value) for value in proto.graph.output},
        ops,
        tuple(node.name for node in proto.graph.node),
    )


def _store_once(proto: Any) -> None:
    """Let nodes that read equal matrices read one: a network that looks twice has each once."""
    first: dict[tuple[Any, ...], str] = {}
    same: dict[str, str] = {}
    for item in proto.graph.initializer:
        if sum(side > 1 for side in item.dims) > 1 and item.raw_data:
            key = (item.data_type, tuple(item.dims), hashlib.sha256(item.raw_data).digest())
            if (held := first.setdefault(key, item.name)) != item.name:
                same[item.name] = held
    for node in proto.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = same.get(name, name)
    kept = [item for item in proto.graph.initializer if item.name not in same]
    if same:
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(kept)


def _name_by_module(node: Any) -> None:
    """Name a node after the module that it comes from, and forget where its source code lay.

    Calibration speaks of layers by these names (`blocks.3.mlp.fc1/node_MatMul_246`).
    """
    scopes = next(
        (entry.value for entry in node.metadata_props if entry.key.endswith("name_scopes")), "[]"
    )
    modules = [part for part in ast.literal_eval(scopes)[:-1] if part]
    if modules:
        node.name = f"{_shortened(modules[-1])}/{node.name}"
    del node.metadata_props[:]


def module_names(network: Network) -> list[str]:
    """Return the names of a network's modules as its nodes have them: `steps.4.select/`."""
    return [f"{_shortened(name)}/" for name, _ in network.named_modules() if name]


def _shortened(module: str) -> str:
    for start in ("network.", "encoder.", "vit.", "walk."):
        module = module.removeprefix(start)
    return module


def _described(value: Any) -> dict[str, Any]:
    kind = value.type.tensor_type.elem_type
    return {"type": _TYPES.get(kind, str(kind)), "shape": _shape(value)}


def _shape(value: Any) -> list[Any]:
    dims = value.type.tensor_type.shape.dim
    return [dim.dim_param or dim.dim_value for dim in dims]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress prints and deprecation warnings out of the user's terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
