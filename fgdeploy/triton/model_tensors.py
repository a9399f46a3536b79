"""Inputs and outputs of a bundle's graph as Triton declares them, read from the graph itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fgdeploy.bundle import Manifest
from fgdeploy.bundle.onnx_scan import GraphEnd, graph_inputs, graph_outputs
from fgdeploy.core.errors import BundleError

FRAMES = "frames"
# ONNX's number of an element type -> the manifest's word, Triton's, and bytes
_TYPES = {1: ("float32", "TYPE_FP32", 4), 2: ("uint8", "TYPE_UINT8", 1)}


@dataclass(frozen=True)
class ServedTensor:
    """A tensor: Triton's type, its dimensions behind the batch, and bytes of one frame's part."""

    name: str
    type: str
    dims: tuple[int, ...]
    bytes: int


def of_graph(path: Path, manifest: Manifest) -> tuple[ServedTensor, list[ServedTensor]]:
    """Return the input and the outputs of an ONNX file, held to the manifest.

    Raises BundleError where they are not what the manifest declares, or the batch is fixed.
    """
    inputs = [_tensor(end, path) for end in graph_inputs(path)]
    outputs = [_tensor(end, path) for end in graph_outputs(path)]
    size = manifest.image_size
    frames = ServedTensor(FRAMES, "TYPE_UINT8", (size, size, 3), size * size * 3)
    if inputs != [frames]:
        raise BundleError(f"{path.name} does not take uint8 {FRAMES} of {size} pixels alone")
    words = {word: triton for word, triton, _ in _TYPES.values()}
    declared = {
        name: (words.get(output.type), output.shape) for name, output in manifest.outputs.items()
    }
    found = {one.name: (one.type, one.dims) for one in outputs}
    if found != declared or not {"code", "hash"} <= set(found):
        raise BundleError(
            f"{path.name} gives {', '.join(sorted(found))}, and the manifest declares "
            f"{', '.join(sorted(declared))}, or of other types; export the bundle again"
        )
    return frames, outputs


def _tensor(end: GraphEnd, path: Path) -> ServedTensor:
    if end.type not in _TYPES or not end.shape:
        raise BundleError(f"{path.name}: {end.name} has a type or a shape that is not a bundle's")
    batch, *sides = end.shape
    if isinstance(batch, int):
        raise BundleError(
            f"{path.name}: {end.name} takes {batch} frames and no other number, and Triton's "
            "batches differ; export the bundle again"
        )
    dims = tuple(side for side in sides if isinstance(side, int))
    if len(dims) != len(sides):
        raise BundleError(f"{path.name}: {end.name} has open sides beside the batch")
    _, triton, width = _TYPES[end.type]
    count = width
    for side in dims:
        count *= side
    return ServedTensor(end.name, triton, dims, count)
