"""Files as GLSim's script writes them, with random weights (arkel23/GLSim, docs/methods.md 2.4)."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

WIDTH, INNER, CLASSES, SIDE = 64, 160, 5, 6
SCRIPT = {
    "image_size": 96,
    "dataset_name": "cub",
    "custom_mean_std": False,
    "test_flip": False,
    "resize_size": 128,
    "test_resize_size": 128,
    "anchor_class_token": True,
    "dynamic_anchor": True,
    "dynamic_top": 5,
    "sim_metric": "cos",
    "num_anchors": 1,
    "anchor_size": 16,
    "classifier": "cls",
    "reducer": "cls",
    "pretrained": True,  # never followed
}
OWN = {
    **SCRIPT,
    "model_name": "vit_t16",
    "hidden_size": WIDTH,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": INNER,
    "layer_norm_eps": 1e-12,
}
TIMM = {
    **SCRIPT,
    "model_name": "glsdeit_tiny_patch16_224.fb_in1k",
    "select_top_k": False,
    "hidden_size": None,
    "num_attention_heads": None,
    "layer_norm_eps": None,
    "num_anchors": None,
}


class Drawn:
    """Random tensors by name, each of which matters."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(4)
        self.held: dict[str, Tensor] = {}

    def add(self, name: str, *shape: int, mean: float = 0.0, std: float = 0.1) -> None:
        """Draw one tensor."""
        self.held[name] = torch.randn(shape, generator=self._generator) * std + mean

    def linear(self, name: str, outputs: int, inputs: int) -> None:
        """Draw weight and bias of a layer."""
        self.add(f"{name}.weight", outputs, inputs)
        self.add(f"{name}.bias", outputs)

    def norm(self, name: str, width: int) -> None:
        """Draw weight and bias of a norm."""
        self.add(f"{name}.weight", width, mean=1.0)
        self.add(f"{name}.bias", width)


def own_vit(reduced: int | None = None, layers: int = 1) -> dict[str, Tensor]:
    """Return the weights of their own ViT (path A). reduced: width of the aggregator."""
    drawn, last = Drawn(), reduced or WIDTH
    for name in ("class_token", "anchor_class_token"):
        drawn.add(name, 1, 1, WIDTH)
    drawn.add("patch_embedding.weight", WIDTH, 3, 16, 16, std=0.05)
    drawn.add("patch_embedding.bias", WIDTH)
    drawn.add("positional_embedding.pos_embedding", 1, 1 + SIDE**2, WIDTH, std=0.5)
    for number in range(2):
        _own_block(drawn, f"encoder.blocks.{number}", WIDTH, INNER)
    drawn.norm("encoder_norm", WIDTH)
    if reduced:
        drawn.linear("reducer", reduced, WIDTH)
    for number in range(layers):
        _own_block(drawn, f"aggregator.blocks.{number}", last, 4 * last)
    drawn.norm("aggregator_norm", last)
    drawn.linear("head", CLASSES, last)
    return drawn.held


def _own_block(drawn: Drawn, name: str, width: int, inner: int) -> None:
    for part in ("attn.proj_q", "attn.proj_k", "attn.proj_v", "proj"):
        drawn.linear(f"{name}.{part}", width, width)
    for part in ("norm1", "norm2"):
        drawn.norm(f"{name}.{part}", width)
    drawn.linear(f"{name}.pwff.fc1", inner, width)
    drawn.linear(f"{name}.pwff.fc2", width, inner)


def timm_vit(norm: bool, aggregator: str = "transformer", rows: int = 2) -> dict[str, Tensor]:
    """Return the weights of their timm ViT (path B), DeiT-Tiny with two blocks."""
    drawn, width = Drawn(), 192
    for name in ("cls_token", "cls_token_crops"):
        drawn.add(name, 1, 1, width)
    drawn.add("patch_embed.proj.weight", width, 3, 16, 16, std=0.05)
    drawn.add("patch_embed.proj.bias", width)
    drawn.add("pos_embed", 1, 1 + SIDE**2, width, std=0.5)
    names = [f"blocks.{number}" for number in range(2)]
    for name in [*names, *(["aggregator.0"] if aggregator == "transformer" else [])]:
        for part in ("norm1", "norm2"):
            drawn.norm(f"{name}.{part}", width)
        drawn.linear(f"{name}.attn.qkv", 3 * width, width)
        drawn.linear(f"{name}.attn.proj", width, width)
        drawn.linear(f"{name}.mlp.fc1", 4 * width, width)
        drawn.linear(f"{name}.mlp.fc2", width, 4 * width)
    if norm:
        drawn.norm("norm", width)
    for number in {"transformer": (1,), "conv": (0, 4), "dwsc": (0, 4, 9)}[aggregator]:
        drawn.norm(f"aggregator.{number}", width)
    if aggregator != "transformer":
        drawn.add("aggregator.2.weight", width, width if aggregator == "conv" else 1, rows)
        drawn.add("aggregator.2.bias", width)
    if aggregator == "dwsc":
        drawn.add("aggregator.7.weight", width, width, 1)
        drawn.add("aggregator.7.bias", width)
    drawn.linear("head", CLASSES, width)
    return drawn.held


def adapted(kind: str) -> dict[str, Tensor]:
    """Return the weights of their timm ViT with adapters in its blocks: plain or convpass."""
    drawn, width, inner = Drawn(), 192, 2
    drawn.held |= timm_vit(False)
    for start in (f"blocks.{number}" for number in range(2)):
        for name in (f"{start}.adapter_attn", f"{start}.adapter_pwffn"):
            drawn.linear(f"{name}.adapter_down", inner, width)
            drawn.linear(f"{name}.adapter_up", width, inner)
            if kind == "convpass":
                drawn.add(f"{name}.adapter_conv.weight", inner, inner, 3, 3, std=0.5)
                drawn.add(f"{name}.adapter_conv.bias", inner)
    return drawn.held


def write(
    path: Path, weights: Mapping[str, Tensor], config: Mapping[str, Any], prefix: str = "model."
) -> Path:
    """Write a file as the script does; prefix: `module.model.` where several GPUs trained."""
    named = {prefix + name: value for name, value in weights.items()}
    whole = {"config": Namespace(**config), "epoch": 50, "model": named, "accuracy": 90.93}
    torch.save({**whole, "optimizer": {"state": {}, "param_groups": []}}, path)
    return path
