"""DINOv2's own files, by its names: read, told from their shapes, the same features as timm's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fgdeploy.core.errors import CheckpointError
from fgdeploy.models import assembly
from fgdeploy.models.assembly import NetworkSettings
from fgdeploy.models.backbone import vit
from fgdeploy.models.weights import checkpoint, dinov2_keys
from tests.checks import refused
from tests.models.backbone.kinds import shrunk
from tests.models.samples import images, pruned

KINDS = (
    "vit_small_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",
    "vit_giant_patch14_dinov2",
    "vit_giant_patch14_reg4_dinov2",
)


def as_published(net: Any) -> dict[str, Tensor]:
    """Return a ViT's weights as DINOv2 names them: CLS has a position, patches can be hidden."""
    state: dict[str, Tensor] = {**net.state_dict(), "mask_token": torch.zeros(1, net.embed_dim)}
    if "reg_token" in state:
        of_cls = torch.full_like(state["cls_token"], 0.25)
        state["register_tokens"] = state.pop("reg_token")
        state["cls_token"] = state["cls_token"] - of_cls
        state["pos_embed"] = torch.cat([of_cls, state["pos_embed"]], dim=1)
    if hasattr(net.blocks[0].mlp, "gate_last"):
        for part, published in (("fc1", "w12"), ("fc2", "w3")):
            start = f"mlp.{part}."
            state = {k.replace(start, f"mlp.{published}."): v for k, v in state.items()}
    return state


@pytest.mark.parametrize("kind", KINDS)
def test_published_names_are_timm_s_with_the_same_features(kind: str) -> None:
    net = shrunk(kind)
    published = as_published(net)
    assert set(published) != set(net.state_dict())
    found = dinov2_keys.rename(published)
    other = shrunk(kind)
    with torch.no_grad():
        for value in other.parameters():
            value.zero_()
    checkpoint.load_matching(other.state_dict(), found, "published")
    photos = images(1, int(net.patch_embed.img_size[0]))
    difference = pruned(other)(photos).embedding - pruned(net)(photos).embedding
    assert difference.abs().max() < 1e-12


def test_other_names_stay() -> None:
    net = vit.create("test_vit", 32)
    assert dinov2_keys.rename(net.state_dict()).keys() == net.state_dict().keys()
    alone = {"register_tokens": torch.zeros(1, 4, 8), "blocks.0.mlp.w4.weight": torch.zeros(1)}
    assert dinov2_keys.rename(alone) == alone


@pytest.mark.parametrize("registers", [False, True])
def test_a_file_tells_its_backbone_and_size(tmp_path: Path, registers: bool) -> None:
    name = f"vit_small_patch14_{'reg4_' if registers else ''}dinov2"
    file = tmp_path / "published.pth"
    net = vit.create(name, 70)
    torch.save(as_published(net), file)
    told: list[str] = []
    chosen = assembly.choose(NetworkSettings(checkpoint=file), told.append)
    assert (chosen.source.backbone, chosen.source.size) == (name, 70)
    assert any(f"backbone {name} at 70 pixels, told from" in line for line in told)
    state, expected = chosen.encoder().vit.state_dict(), net.state_dict()
    assert all(torch.allclose(state[key], expected[key], atol=1e-6) for key in state)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "vit_base_patch14_dinov2"),
        ({"reg_token": (1, 4, 768), "pos_embed": (1, 1369, 768)}, "vit_base_patch14_reg4_dinov2"),
        ({"reg_token": (1, 1, 768), "pos_embed": (1, 1369, 768)}, None),  # TIPSv2's
        ({"norm.weight": None}, None),
        ({"blocks.11.ls1.gamma": None}, None),  # eleven blocks
        ({"pos_embed": (1, 1000, 768)}, None),
    ],
)
def test_shapes_that_are_a_dinov2_s(changes: dict[str, Any], name: str | None) -> None:
    shapes: dict[str, Any] = {
        "cls_token": (1, 1, 768),
        "pos_embed": (1, 1370, 768),
        "patch_embed.proj.weight": (768, 3, 14, 14),
        "blocks.0.ls1.gamma": (768,),
        "blocks.11.ls1.gamma": (768,),
        "norm.weight": (768,),
        **changes,
    }
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items() if shape}
    if name is not None:
        assert vit.guess_backbone(state) == (name, 518)
        return
    with refused(CheckpointError, "name its backbone with --backbone"):
        vit.guess_backbone(state)
