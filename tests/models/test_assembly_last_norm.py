"""Backbones whose last norm stands behind pooling in timm (`fc_norm`): from a file, from a hub."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import _registry

from fgdeploy.models import assembly
from fgdeploy.models.assembly import NetworkSettings
from fgdeploy.models.backbone import hub
from tests.models.samples import images

POOLED = "eva_large_patch14_196"


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    made = _registry._model_entrypoints[POOLED]
    shrunk = functools.partial(made, depth=2, embed_dim=32, num_heads=2)
    monkeypatch.setitem(_registry._model_entrypoints, POOLED, shrunk)
    yield


@pytest.fixture
def pooling(tmp_path: Path) -> tuple[Any, Path]:
    """A network as timm trains it, and the file that it saves."""
    torch.manual_seed(3)
    net = timm.create_model(POOLED, img_size=56, num_classes=1000).eval()
    with torch.no_grad():
        net.fc_norm.weight.uniform_(0.5, 2.0)
        net.fc_norm.bias.normal_()
    file = tmp_path / "pooling.safetensors"
    save_file(net.state_dict(), file)
    return net, file


def _settings(**given: Any) -> NetworkSettings:
    return NetworkSettings(backbone=POOLED, image_size=56, options={"stages": "none"}, **given)


def _is_normalised_cls(encoder: Any, net: Any) -> None:
    photos = images(2, 56, torch.float32)
    with torch.no_grad():
        expected = net.fc_norm(net.forward_features(photos)[:, 0])
        assert torch.allclose(encoder(photos).embedding, expected, atol=1e-5)


def test_a_file_s_norm_behind_pooling_normalises_the_class_token(
    pooling: tuple[Any, Path],
) -> None:
    net, file = pooling
    told: list[str] = []
    encoder = assembly.choose(_settings(checkpoint=file)).encoder(told.append)
    _is_normalised_cls(encoder, net)
    assert told == [
        "pooling.safetensors: its last norm (fc_norm) was trained on the mean of the patches; "
        "here it normalises the class token, so train before you judge"
    ]


def test_timm_s_own_weights_do_too(
    pooling: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, file = pooling
    create = timm.create_model

    def from_file(name: str, pretrained: bool = False, **options: Any) -> Any:
        overlay = {"file": str(file)} if pretrained else None
        return create(name, pretrained, pretrained_cfg_overlay=overlay, **options)

    monkeypatch.setattr(timm, "create_model", from_file)
    monkeypatch.setattr(hub, "_reachable", lambda endpoint: False)
    _is_normalised_cls(assembly.choose(_settings()).encoder(), net)
