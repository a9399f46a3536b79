"""How many token rows each part of each block works on, recorded once from one run.

Multiply-accumulates per image follow from it, as the papers count them (no norms, softmax, biases,
heads): block = q D^2 + 2 kv D^2 + 2 q kv D + proj D^2 + 2 r mlp D^2, with the rows of each part.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from timm.models.vision_transformer import Block as TimmBlock
from torch import Tensor, nn

from fgdeploy.bundle import BlockRows
from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.backbone.vit import Geometry
from fgdeploy.models.network import Network
from fgdeploy.models.reduce.layers import Product, macs_of


@dataclass(frozen=True)
class Plan:
    """The rows of all runs of blocks in order, and the multiply-accumulates of one image.

    embeddings: how often patches are embedded, and patches: how many in all, None for all of the
    grid each time; others: the method's own linear layers and products outside the backbone.
    """

    geometry: Geometry
    runs: tuple[BlockRows, ...]
    embeddings: int = 1
    others: int = 0
    patches: int | None = None

    @property
    def macs(self) -> int:
        """Return the multiply-accumulates of one image."""
        shape = self.geometry
        patches = shape.patches * self.embeddings if self.patches is None else self.patches
        embedding = patches * 3 * shape.patch_size**2 * shape.width
        blocks = sum(
            block_macs(shape.width, run.query, run.keyval, run.proj, run.mlp, shape.mlp_ratio)
            for run in self.runs
        )
        return embedding + blocks + self.others


def block_macs(width: int, query: int, keyval: int, proj: int, mlp: int, ratio: float = 4.0) -> int:
    """Count one block: `query`, `keyval`, `proj` and `mlp` are token rows."""
    square = width * width
    attention = query * square + 2 * keyval * square + 2 * query * keyval * width
    return int(attention + proj * square + 2 * ratio * mlp * square)


def dense(geometry: Geometry) -> Plan:
    """Return the plan of the plain ViT as timm runs it."""
    rows = geometry.patches + geometry.prefix_tokens
    numbers = range(1, geometry.depth + 1)
    return Plan(geometry, tuple(BlockRows(number, *[rows] * 5) for number in numbers))


def record(network: Network, image_size: int) -> Plan:
    """Return what one run of a network does, from the calls of the backbone's modules."""
    encoder = network.encoder
    seen = _Seen()
    with torch.inference_mode(), _listening(encoder, seen):
        frames = torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8)
        device = next(encoder.parameters()).device
        network(network.pixels(frames.to(device)))
    shape = backbones.geometry(encoder.vit)
    return Plan(shape, tuple(seen.runs), seen.embeddings, seen.others, seen.patches)


# The parts of a block by the module that sees their rows.
_PARTS = {
    "tokens": "norm1",
    "query": "attn.q_norm",
    "keyval": "attn.k_norm",
    "proj": "attn.proj",
    "mlp": "mlp",
}


class _Seen:
    """Collects rows by block; a block's MLP ends its run."""

    def __init__(self) -> None:
        self.runs: list[BlockRows] = []
        self.embeddings = self.patches = 0
        self.others = 0
        self._rows: dict[str, int] = {}

    def part(self, number: int, name: str, rows: int) -> None:
        self._rows[name] = rows
        if name == "mlp":
            self.runs.append(BlockRows(number, *(self._rows[part] for part in _PARTS)))
            self._rows = {}

    def beside(self, block: Any, name: str, rows: int) -> None:
        """Count a block of the method's own, whose width may be another than the backbone's."""
        self._rows[name] = rows
        if name == "mlp":
            query, keyval, proj, mlp = (self._rows[part] for part in list(_PARTS)[1:])
            inner, width = block.mlp.fc1.weight.shape
            self.others += block_macs(width, query, keyval, proj, mlp, inner / width)
            self._rows = {}

    def convolution(self, layer: nn.Conv1d | nn.Conv2d, _: Any, y: Tensor) -> None:
        self.others += y.numel() * layer.weight[0].numel()

    def linear(self, layer: nn.Linear, rows: int) -> None:
        self.others += rows * layer.in_features * layer.out_features

    def product(self, left: Tensor, right: Tensor) -> None:
        self.others += macs_of(left, right)

    def embedding(self, conv: nn.Conv2d, pixels: Tensor) -> None:
        self.embeddings += 1
        sides = zip(pixels.shape[-2:], conv.kernel_size, conv.stride, strict=True)
        self.patches += math.prod((side - patch) // step + 1 for side, patch, step in sides)


@contextlib.contextmanager
def _listening(encoder: Any, seen: _Seen) -> Iterator[None]:
    handles = []

    def listen(module: nn.Module, tell: Callable[[Tensor], None]) -> None:
        handles.append(module.register_forward_pre_hook(lambda _, given: tell(given[0])))

    def listen_in(block: Any, tell: Callable[[str, int], None]) -> None:
        for name, path in _PARTS.items():
            # Keys are made of all rows, so they tell of them where a norm lies behind attention.
            behind = name == "tokens" and getattr(block, "post_norm", False)
            part = block.get_submodule(_PARTS["keyval"] if behind else path)
            listen(part, lambda x, name=name: tell(name, int(x.shape[-2])))  # type: ignore[misc]

    state = encoder.state()
    own = {id(state[name]) for name in encoder.own()}  # a method's layers may lie in the backbone
    counted = {one for one in encoder.vit.modules() if id(getattr(one, "weight", None)) not in own}
    for number, block in enumerate(encoder.vit.blocks, start=1):
        listen_in(block, functools.partial(seen.part, number))
    for block in [one for one in encoder.modules() if isinstance(one, TimmBlock)]:
        if block not in counted:
            listen_in(block, functools.partial(seen.beside, block))
            counted |= set(block.modules())
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d) and any(module.padding):  # no patch embedding has one
            handles.append(module.register_forward_hook(seen.convolution))
        elif isinstance(module, nn.Conv2d) and module.in_channels == 3:
            listen(module, lambda x, conv=module: seen.embedding(conv, x))  # type: ignore[misc]
        elif isinstance(module, Product):
            handles.append(module.register_forward_pre_hook(lambda _, given: seen.product(*given)))
        elif isinstance(module, nn.Conv1d) and module.groups == 1:
            handles.append(module.register_forward_hook(seen.convolution))
        elif isinstance(module, nn.Linear) and module not in counted:
            listen(
                module,
                lambda x, layer=module: seen.linear(layer, x.numel() // x.shape[-1]),  # type: ignore[misc]
            )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
