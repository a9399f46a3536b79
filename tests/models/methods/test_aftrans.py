"""AFTrans' options and files: what is read, what is refused, what it costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from fgdeploy.core.errors import CheckpointError, UsageError
from fgdeploy.models import assembly
from fgdeploy.models.assembly import NetworkSettings
from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.backbone.variant import Variant
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.heads.base import NoHead
from fgdeploy.models.methods.aftrans import METHOD, AFTransOptions, build, told
from fgdeploy.models.network import Network
from fgdeploy.models.plan import record
from fgdeploy.models.weights import checkpoint
from tests.checks import refused
from tests.models.samples import NORM
from tests.models.weights.vit_pytorch_layouts import laid_out, timm_weights

OWN = {"local_cls_token", "local_pos_embed", "sacm.fc1.weight", "sacm.fc2.weight"}


def _shape(size: int = 224) -> backbones.Geometry:
    return backbones.geometry(backbones.create("test_vit", size, variant=Variant(stride=12)))


def _settings(path: Path | None, **changes: Any) -> NetworkSettings:
    given: dict[str, Any] = {"method": "aftrans", "backbone": "test_vit", "checkpoint": path}
    return NetworkSettings(**{**given, "weights": "random", **changes})


def _encoder(settings: NetworkSettings, heard: list[str] | None = None) -> Encoder:
    notify = (lambda text: None) if heard is None else heard.append
    return assembly.choose(settings, notify).encoder(notify)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"keep": "0"}, "^--set keep=0: expected a share above 0 and up to 1$"),
        ({"keep": "1.01"}, "^--set keep=1.01: expected a share above 0"),
        ({"branch": "local"}, "^--set branch=local: choose global or both$"),
        ({"pool": "mean"}, "^--set pool=mean: choose cls or full_map$"),
        ({"sacm_grad": "all"}, "^--set sacm_grad=all: choose none or reweight$"),
        ({"ratio": "0"}, "^--set ratio=0: expected a whole number from 1 to 6$"),
        ({"ratio": "7"}, "^--set ratio=7: expected a whole number from 1 to 6$"),
        ({"local_size": "15"}, "^--set local_size=15: expected a whole number from 16 to 4096$"),
        ({"local_size": "big"}, "^--set local_size=big: expected a whole number from 16"),
        ({"rounds": "0"}, "^--set rounds=0: expected a whole number from 1 to 1024$"),
        ({"rounds": "true"}, "^--set rounds=True: expected a whole number from 1 to 1024$"),
        ({"speed": "1"}, "the method's options are keep, ratio, pool, sacm_grad, local_size"),
    ],
)
def test_what_does_not_fit_is_said(given: dict[str, str], words: str) -> None:
    with refused(UsageError, words):
        AFTransOptions.parse(given).resolved(_shape())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"image_size": 8},
            "^image size 8 is smaller than a patch of 16 pixels; choose 16 or more",
        ),
        ({"image_size": 15}, "^image size 15 is smaller than a patch of 16 pixels"),
        ({"options": {"stride": "17"}, "image_size": 64}, "a stride of 17 does not cut 64 pixels"),
        ({"options": {"stride": "0"}, "image_size": 64}, "a stride of 0 does not cut 64 pixels"),
    ],
)
def test_sizes_that_make_no_patches_are_said(changes: dict[str, Any], words: str) -> None:
    with refused(UsageError, words):
        _encoder(_settings(None, **changes))


def test_options_come_back_from_json() -> None:
    options = AFTransOptions.parse({"branch": "both", "local_size": "112"}).resolved(_shape())
    assert options.rounds == 36
    assert AFTransOptions.from_json(json.loads(json.dumps(options.to_json()))) == options
    again = options.resized()
    assert (again.local_size, again.rounds, again.branch) == (None, None, "both")


def test_only_what_decides_is_in_the_fingerprint() -> None:
    shape = _shape()
    first, second = (AFTransOptions(keep=keep).resolved(shape) for keep in (0.4, 0.1))
    assert first.deciding(shape) == second.deciding(shape)
    first, second = (
        AFTransOptions(keep=keep, branch="both").resolved(shape) for keep in (0.4, 0.1)
    )
    assert first.deciding(shape) != second.deciding(shape)


def test_the_cost_of_both_branches_is_said() -> None:
    assert METHOD.caution(AFTransOptions()) is None
    said = METHOD.caution(AFTransOptions(branch="both").resolved(_shape()))
    assert said is not None and "36 rounds" in said and "\n" not in said
    assert METHOD.pinned(AFTransOptions()) == () == METHOD.further(AFTransOptions())
    assert METHOD.further(AFTransOptions(branch="both")) == ("box",)


@pytest.mark.parametrize(
    ("width", "size", "grid", "published", "exported"),
    [
        (384, 224, 18, "7.97", "7.41"),
        (768, 224, 18, "29.74", "27.67"),
        (768, 448, 37, "151.8", "140.8"),
    ],
)
def test_multiply_accumulates(
    width: int, size: int, grid: int, published: str, exported: str
) -> None:
    """docs/methods: 7.97 -> 7.41, 29.74 -> 27.67 and 151.8 -> 140.8 G."""
    nets = {branch: _on_meta(width, size, branch) for branch in ("global", "both")}
    one = nets["global"]
    found = [record(net, size).macs / 1e9 for net in (one.published(), one.deployed())]
    digits = len(published.split(".")[1])
    assert [f"{macs:.{digits}f}" for macs in found] == [published, exported]
    runs = record(one.deployed(), size).runs
    assert {run.tokens for run in runs} == {1 + grid * grid}
    # Both: the first look's last block attends with all rows, the second look is of half the size.
    both = record(nets["both"].deployed(), size).macs / 1e9
    assert 1.22 < both / found[1] < 1.26


def _on_meta(width: int, size: int, branch: str) -> Network:
    with torch.device("meta"):
        vit = timm.models.VisionTransformer(
            img_size=size,
            embed_dim=width,
            num_heads=width // 64,
            num_classes=0,
            global_pool="token",
        ).eval()
    side = (size - 16) // 12 + 1
    vit.patch_embed.proj.stride = (12, 12)
    vit.patch_embed.grid_size, vit.patch_embed.num_patches = (side, side), side * side
    with torch.device("meta"):
        vit.pos_embed = torch.nn.Parameter(torch.zeros(1, 1 + side * side, width))
        options = AFTransOptions(branch=branch).resolved(backbones.geometry(vit))
        return Network(build(vit, NORM, options), NoHead(), options).to("meta").eval()


def test_a_plain_backbone_starts_both_branches(tmp_path: Path) -> None:
    given = timm_weights(size=64)
    torch.save(given, tmp_path / "plain.pth")
    heard: list[str] = []
    encoder = _encoder(_settings(tmp_path / "plain.pth", image_size=96), heard)
    state = encoder.state()
    assert set(encoder.own()) == OWN
    assert torch.equal(state["local_cls_token"], given["cls_token"])
    vit = backbones.create("test_vit", 96, variant=Variant(stride=12))
    resized = checkpoint.resize_positions(given["pos_embed"], vit)
    assert torch.equal(state["pos_embed"], resized)
    assert torch.equal(state["pos_embed"][:, 0], given["pos_embed"][:, 0])
    local = checkpoint.resize_grid(resized, 1, (3, 3))
    assert torch.equal(state["local_pos_embed"], local)
    assert any("none of aftrans's own weights" in text for text in heard)


@pytest.mark.parametrize("layout", ["ViT-pytorch", "TransFG"])
def test_files_in_transfg_s_names_are_read(tmp_path: Path, layout: str) -> None:
    """Positions of 64 pixels with overlapping patches: 5 x 5, which need no resizing."""
    given = timm_weights(size=80)
    assert given["pos_embed"].shape[1] == 1 + 25
    torch.save({"model": laid_out(given, layout)}, tmp_path / "theirs.bin")
    state = _encoder(_settings(tmp_path / "theirs.bin", image_size=64)).state()
    for name in ("pos_embed", "cls_token", "blocks.5.attn.qkv.weight", "norm.weight"):
        assert torch.equal(state[name], given[name]), name


def test_missing_and_foreign_weights_are_said(tmp_path: Path) -> None:
    whole = {k: v.detach() for k, v in _encoder(_settings(None, image_size=64)).state().items()}
    for words, change in (
        ("lacks sacm.fc1.weight", lambda held: held.pop("sacm.fc1.weight")),
        ("lacks blocks.3.norm1.weight", lambda held: held.pop("blocks.3.norm1.weight")),
        ("has misshapen sacm.fc2.weight", lambda held: held.update({"sacm.fc2.weight": NONE})),
        ("has unknown selector", lambda held: held.update(selector=NONE)),
    ):
        held = dict(whole)
        change(held)
        torch.save(held, tmp_path / "c.pth")
        with refused(CheckpointError, words):
            _encoder(_settings(tmp_path / "c.pth", image_size=64))
    torch.save(whole, tmp_path / "c.pth")
    with refused(CheckpointError, "trained with aftrans, not eet; pass --method aftrans"):
        _encoder(_settings(tmp_path / "c.pth", method=None))
    assert torch.equal(
        _encoder(_settings(tmp_path / "c.pth")).state()["pos_embed"], whole["pos_embed"]
    )


NONE = torch.zeros(2, 2)


def test_another_image_size_resizes_both_positions(tmp_path: Path) -> None:
    whole = {k: v.detach() for k, v in _encoder(_settings(None, image_size=64)).state().items()}
    torch.save(whole, tmp_path / "c.pth")
    state = _encoder(_settings(tmp_path / "c.pth", image_size=96)).state()
    resized = checkpoint.resize_grid(whole["local_pos_embed"], 1, (3, 3))
    assert torch.equal(state["local_pos_embed"], resized)
    assert torch.equal(state["sacm.fc1.weight"], whole["sacm.fc1.weight"])


def _held(positions: int, own: bool = False, patch: int = 16) -> dict[str, Tensor]:
    state = {
        "patch_embed.proj.weight": torch.zeros(4, 3, patch, patch),
        "pos_embed": torch.zeros(1, positions, 4),
    }
    return {**state, "local_pos_embed": torch.zeros(1, 10, 4)} if own else state


@pytest.mark.parametrize(
    ("state", "size"),
    [
        (_held(1370), 448),
        (_held(325), 224),
        (_held(197), None),  # 14 x 14: of 224 pixels side by side
        (_held(785), None),
        (_held(26, own=True), 64),
        (_held(26), None),
        (_held(7), None),
        ({}, None),
    ],
)
def test_positions_tell_the_size(state: dict[str, Tensor], size: int | None) -> None:
    found = told({}, state, "c.pth")
    assert (None if found is None else found.size) == size


def test_paper_s_recipe() -> None:
    recipe = METHOD.recipe("paper")
    assert (recipe.batch, recipe.lr, recipe.warmup, recipe.clip_norm) == (12, 0.03, 500, 1.0)
    assert METHOD.photometry.resize_ratio * 448 == 600 and METHOD.photometry.square
