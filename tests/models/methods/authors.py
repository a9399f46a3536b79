"""Checkpoints as CLCA's authors save them, with random weights, on timm's test_vit at 64 pixels.

Names, shapes and fields are theirs (arkel23/CLCA); nothing here knows ours.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fgdeploy.models.backbone import vit

SIZE, WIDTH, PATCHES, CLASSES = 64, 64, 16, 7
# The fields of their script that say what the network is; its other fields are left out.
ARGUMENTS: dict[str, Any] = {
    "model": "evit_test_vit",
    "input_size": SIZE,
    "keep_rate": [0.5],
    "reduction_loc": [1, 2, 3],
    "ifa_head": True,
    "ifa_dws_conv_groups": 2,
    "clc": True,
    "clc_include_gap": True,
    "clc_pool_cls": False,
    "clc_pool_clr": False,
    "clc_recover_at_last": True,
    "num_clr": 1,
    "custom_mean_std": False,
    "test_resize_size": 73,
}


def backbone(classes: int = 0, name: str = "test_vit", size: int = SIZE) -> dict[str, Tensor]:
    """Return a backbone's state dict in which every value matters."""
    return _random(dict(vit.create(name, size, classes).state_dict()), 11)


def clca(
    clr: int = 1, groups: int = 2, stages: int = 3, name: str = "test_vit", size: int = SIZE
) -> dict[str, Tensor]:
    """Return CLCA's state dict: CLR with positions, their head, an unused class head, no norm."""
    state = backbone(1000, name, size)
    state = {key: value for key, value in state.items() if not key.startswith("norm.")}
    width = state["cls_token"].shape[-1]
    fresh: dict[str, Tensor] = {}
    if clr:
        fresh["clr"] = torch.empty(1, clr, width)
        rows = state["pos_embed"].shape[1]
        if rows != (size // state["patch_embed.proj.weight"].shape[-1]) ** 2:  # CLS has a position
            fresh["pos_embed"] = torch.empty(1, rows + clr, width)
    count = stages + 1
    if groups:
        for place, channels in ((0, width), (2, groups * width)):
            for part in ("weight", "bias", "running_mean", "running_var"):
                fresh[f"ifa_head.0.{place}.{part}"] = torch.empty(channels)
        fresh["ifa_head.0.1.weight"] = torch.empty(groups * width, 1, count)
        fresh["ifa_head.0.1.bias"] = torch.empty(groups * width)
        fresh["ifa_head.0.4.weight"] = torch.empty(CLASSES, groups * width, 1)
    else:
        fresh["ifa_head.0.0.weight"] = torch.empty(1, count)
        fresh["ifa_head.0.0.bias"] = torch.empty(1)
        fresh["ifa_head.0.3.weight"], fresh["ifa_head.0.3.bias"] = torch.empty(2, width)
        fresh["ifa_head.0.4.weight"] = torch.empty(CLASSES, width)
    fresh["ifa_head.0.4.bias"] = torch.empty(CLASSES)
    found = {**state, **_random(fresh, 12)}
    if groups:
        for place in (0, 2):
            found[f"ifa_head.0.{place}.num_batches_tracked"] = torch.tensor(1550)
    return found


def _random(state: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for key, value in state.items():
        noise = torch.randn(value.shape, generator=generator)
        if key.endswith("running_var"):
            found[key] = 0.4 + noise.abs()
        elif value.ndim == 1 and key.endswith("weight"):
            found[key] = 1 + 0.2 * noise
        else:
            found[key] = noise * (0.2 if value.ndim == 1 else 1.2 * value[0].numel() ** -0.5)
    return found


def save(path: Path, state: dict[str, Tensor], more: Any = None, **changed: Any) -> Path:
    """Write a whole training checkpoint; changed: fields of the arguments, None for one left out.

    more: further entries of the file.
    """
    fields = {key: value for key, value in {**ARGUMENTS, **changed}.items() if value is not None}
    moments = {
        0: {"step": torch.tensor(5.0), "exp_avg": torch.zeros(3), "exp_avg_sq": torch.ones(3)}
    }
    content = {
        "model": state,
        "optimizer": {"state": moments, "param_groups": [{"lr": 1e-4, "params": [0]}]},
        "lr_scheduler": {"base_values": [1e-4]},
        "epoch": 49,
        "scaler": {"scale": 65536.0, "_growth_tracker": 3},
        "args": argparse.Namespace(**fields),
        "ema_best": False,
        **(more or {}),
    }
    torch.save(content, path)
    return path
