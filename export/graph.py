"""The deployed graph as a PyTorch module, and its way into an ONNX file.

Contract: `frames` uint8 [B, S, S, 3] -> `code` uint8 [B, ceil(bits/8)], `hash` float32 [B, bits],
`embedding` float32 [B, D] and, if asked for, `logits` float32 [B, C]. Only B is dynamic.
"""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fgdeploy.core.codes import code_bytes
from fgdeploy.core.errors import ExportError
from fgdeploy.models.heads import ClassHashHead, ProjectionHead
from fgdeploy.models.staged import Shortcuts, StagedViT
from fgdeploy.models.vit import FoldedEmbedding, Normalisation, ViT, embed_tokens

Head = ClassHashHead | ProjectionHead

# Exact simplifications by name, beside those that the encoder makes (`Shortcuts`).
FOLD_NORMALISATION, FOLD_HASH_HEAD = "fold-normalisation", "fold-hash-head"
SIMPLIFICATIONS: dict[str, str] = {
    "early-gather": "a pruning block runs proj and MLP on the kept tokens only",
    "cls-last": "the last block runs for the CLS token only",
    "cls-row": "token scores take one attention row beside the main attention",
    FOLD_NORMALISATION: "mean and std lie in the patch embedding, fixed tokens are constants",
    FOLD_HASH_HEAD: "class head and hash head are one product where logits are not asked for",
}


def shortcuts(without: frozenset[str]) -> Shortcuts:
    """Return the encoder's shortcuts, less those named."""
    return Shortcuts(
        early_gather="early-gather" not in without,
        cls_last="cls-last" not in without,
        cls_row="cls-row" not in without,
    )


class NormalisedEmbedding(nn.Module):
    """Frames to tokens as published: scale to 0..1, normalise, embed."""

    mean: Tensor
    std: Tensor

    def __init__(self, vit: ViT, norm: Normalisation) -> None:
        super().__init__()
        self.vit = vit
        self.register_buffer("mean", torch.tensor(norm.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(norm.std).view(1, 3, 1, 1))

    def forward(self, frames: Tensor) -> Tensor:
        """Return embedded tokens [B, T, D] of uint8 frames [B, S, S, 3]."""
        pixels = frames.to(self.mean.dtype).permute(0, 3, 1, 2) / 255.0
        return embed_tokens(self.vit, (pixels - self.mean) / self.std)


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
    """Frames in, code and hash out: embedding, encoder, head and packing in one module."""

    def __init__(
        self,
        vit: ViT,
        encoder: StagedViT,
        head: Head,
        norm: Normalisation,
        logits: bool = False,
        without: frozenset[str] = frozenset(),
    ) -> None:
        super().__init__()
        folded = FOLD_NORMALISATION not in without
        self.embed = FoldedEmbedding(vit, norm) if folded else NormalisedEmbedding(vit, norm)
        self.encoder = encoder
        self.logits = logits
        self.bits = _bits(head)
        fold_head = isinstance(head, ClassHashHead) and not logits
        if fold_head and FOLD_HASH_HEAD not in without:
            assert isinstance(head, ClassHashHead)
            self.head: nn.Module = head.folded()
        else:
            self.head = head
        self.pack = CodePacker(self.bits)

    def output_names(self) -> list[str]:
        """Return the graph's outputs in order."""
        return ["code", "hash", "embedding", *(["logits"] if self.logits else [])]

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Return (code, hash, embedding[, logits])."""
        embedding = self.encoder.encode(self.embed(frames))
        result = self.head(embedding)
        hashes, logits = result if isinstance(result, tuple) else (result, None)
        outputs = (self.pack(hashes), hashes, embedding)
        return (*outputs, logits) if self.logits and logits is not None else outputs


def _bits(head: Head) -> int:
    linear = head.head_hash if isinstance(head, ClassHashHead) else head.linear
    return int(linear.out_features)


@dataclass(frozen=True)
class GraphFacts:
    """What an ONNX file turned out to be."""

    opset: int
    inputs: dict[str, list[Any]]
    outputs: dict[str, list[Any]]
    ops: dict[str, int]


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


def write_onnx(graph: DeployGraph, image_size: int, target: Path, opset: int) -> GraphFacts:
    """Export through torch's dynamo exporter into one self-contained ONNX file.

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
        raise ExportError(
            f"torch's exporter failed: {' '.join(str(error).split())[:300]}; "
            "run again with --debug for its full report"
        ) from error
    assert program is not None
    return _save(program, target, opset)


def _save(program: torch.onnx.ONNXProgram, target: Path, opset: int) -> GraphFacts:
    import onnx
    from onnxscript import optimizer

    # The default size limits leave slices and transposes of weights in the graph as work.
    optimizer.optimize(program.model, input_size_limit=1 << 28, output_size_limit=1 << 28)
    proto = program.model_proto
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
    onnx.checker.check_model(proto)
    target.write_bytes(proto.SerializeToString())
    return GraphFacts(
        actual,
        {value.name: _shape(value) for value in proto.graph.input},
        {value.name: _shape(value) for value in proto.graph.output},
        ops,
    )


def _name_by_module(node: Any) -> None:
    """Name a node after the module that it comes from, and forget where its source code lay.

    Calibration speaks of layers by these names (`blocks.3.mlp.fc1/node_MatMul_246`).
    """
    scopes = next(
        (entry.value for entry in node.metadata_props if entry.key.endswith("name_scopes")), "[]"
    )
    modules = [part for part in ast.literal_eval(scopes)[:-1] if part]
    if modules:
        node.name = f"{modules[-1].removeprefix('encoder.').removeprefix('vit.')}/{node.name}"
    del node.metadata_props[:]


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
