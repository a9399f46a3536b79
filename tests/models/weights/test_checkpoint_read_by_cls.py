"""Files of Evas that pool their patches, read by networks that read CLS."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from fgdeploy.core.errors import CheckpointError
from fgdeploy.models import assembly
from fgdeploy.models.assembly import NetworkSettings
from fgdeploy.models.backbone import hub, vit
from fgdeploy.models.backbone.variant import Variant
from fgdeploy.models.weights import checkpoint
from tests.checks import refused
from tests.models.samples import pruned

SMALL = {"depth": 2, "embed_dim": 48, "num_heads": 3}


@pytest.mark.parametrize(
    ("backbone", "pooled"),
    [
        ("eva02_tiny_patch14_224", "fc_norm."),
        ("vit_pe_core_tiny_patch16_384", "attn_pool."),
        ("vit_small_patch16_dinov3", None),
    ],
)
def test_every_tensor_of_the_blocks_is_taken(backbone: str, pooled: str | None) -> None:
    size = 56 if "14" in backbone else 64
    file = timm.create_model(
        backbone, num_classes=0, img_size=size, dynamic_img_size=False, **SMALL
    ).state_dict()
    assert pooled is None or any(name.startswith(pooled) for name in file)
    net = vit.create(backbone, size, variant=Variant(depth=2, width=48, heads=3))
    wanted = pruned(net).state()
    found = checkpoint.read_by_cls(file, "file")
    assert found.keys() == wanted.keys()
    assert {name: value.shape for name, value in found.items()} == {
        name: value.shape for name, value in wanted.items()
    }
    if pooled == "fc_norm.":
        assert found["norm.weight"] is file["fc_norm.weight"]


def test_a_norm_of_all_rows_stays_beside_that_of_pooled_ones() -> None:
    file = {name: torch.zeros(1) for name in ("norm.weight", "fc_norm.weight")}
    assert checkpoint.read_by_cls(file, "file") == file


def test_the_hub_is_asked_for_the_pooling_that_weights_are_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, object]] = []

    def create(name: str, **given: object) -> torch.nn.Module:
        asked.append(given)
        return torch.nn.Identity()

    monkeypatch.setattr(hub, "_reachable", lambda endpoint: True)
    monkeypatch.setattr(timm, "create_model", create)
    for backbone in ("eva02_tiny_patch14_224.mim_in22k", "deit_tiny_patch16_224"):
        hub.pretrained(backbone, 224)
    assert [given.get("global_pool") for given in asked] == [None, None]


def test_a_checkpoint_in_timms_names_is_read_whole(tmp_path: Path) -> None:
    backbone = "vit_tiny_patch16_dinov3_qkvb"
    model = timm.create_model(backbone, num_classes=7, img_size=64, dynamic_img_size=False)
    torch.save(model.state_dict(), tmp_path / "dino.pth")
    settings = NetworkSettings(backbone=backbone, image_size=64, checkpoint=tmp_path / "dino.pth")
    encoder = assembly.choose(settings).encoder()
    for name, value in encoder.state().items():
        assert torch.equal(value, model.state_dict()[name]), name
    with refused(CheckpointError, "no pos_embed, as models with rotary .*name it with --backbone"):
        assembly.choose(NetworkSettings(checkpoint=tmp_path / "dino.pth"))
