"""A checkpoint of another method, where no method is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fgdeploy.core.errors import CheckpointError
from fgdeploy.models.assembly import NetworkSettings, choose
from fgdeploy.models.methods import registry
from tests.checks import refused

WEIGHTS = {"patch_embed.proj.weight": torch.zeros(4, 3, 16, 16), "cls_token": torch.zeros(1, 1, 4)}
HEAD = {"ifa_head.0.0.weight": torch.zeros(4)}
PREDICTOR = {"score_predictor.0.in_conv.0.weight": torch.zeros(4)}


@pytest.mark.parametrize(
    ("more", "given", "method"),
    [
        ({}, {"model": "evit_test_vit", "clc": False}, "evit"),
        ({}, {"model": "tome_test_vit", "clc": True}, "clca"),
        ({}, {"model": "test_vit", "clc": True}, "clca"),
        (HEAD, {}, "clca"),
        ({"clr": torch.zeros(1, 1, 4)}, {}, "clca"),
        (PREDICTOR, {}, "dynamicvit"),
        ({**PREDICTOR, **HEAD}, {}, "clca"),
    ],
)
def test_it_is_refused_by_name(
    tmp_path: Path, more: dict[str, Tensor], given: dict[str, Any], method: str
) -> None:
    torch.save({"model": {**WEIGHTS, **more}, "args": given}, tmp_path / "c.pth")
    words = f"^c.pth was trained with {method}, not eet; pass --method {method}$"
    for as_trained in (True, False):
        with refused(CheckpointError, words):
            choose(NetworkSettings(checkpoint=tmp_path / "c.pth"), as_trained=as_trained)


@pytest.mark.parametrize("given", [{}, {"model": "test_vit", "clc": False}, {"model": "evit_x"}])
def test_a_plain_backbone_is_for_any_method(given: dict[str, Any]) -> None:
    read = registry.teller(None)
    assert read is not None and read(given, WEIGHTS, "c.pth") is None


@pytest.mark.parametrize("given", [{}, {"model": "test_vit", "clc": False}, {"dynamic_top": 8}])
def test_a_named_method_takes_a_plain_backbone(given: dict[str, Any]) -> None:
    """What is written beside a plain network says how it was trained, not what it is."""
    for name, method in registry.METHODS.items():
        if name != "glsim" or "dynamic_top" not in given:
            wanted = None if method.told is None else method.told(given, WEIGHTS, "c.pth")
            assert registry.teller(name)(given, WEIGHTS, "c.pth") == wanted


OWN_VIT = {f"model.{name}": torch.zeros(4) for name in ("patch_embedding.weight", "class_token")}


@pytest.mark.parametrize(
    ("state", "method"),
    [
        (OWN_VIT, "glsim"),
        ({**WEIGHTS, "cls_token_crops": torch.zeros(1, 1, 4)}, "glsim"),
        ({**WEIGHTS, "blocks.0.attn.ic_q.down.weight": torch.zeros(2, 4)}, "dva"),
        ({**WEIGHTS, "local_cls_token": torch.zeros(1, 1, 4)}, "aftrans"),
    ],
)
def test_a_named_method_refuses_the_tensors_of_another(
    state: dict[str, Tensor], method: str
) -> None:
    for other in {"eet", "clca", "evit", "glsim", "dva", "aftrans"} - {method}:
        words = f"^c.pth was trained with {method}, not {other}; pass --method {method}$"
        with refused(CheckpointError, words):
            registry.teller(other)({}, state, "c.pth")
