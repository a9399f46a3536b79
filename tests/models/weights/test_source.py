"""Where weights come from: told by a checkpoint's shapes, its name, or a default."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fgdeploy.core.errors import CheckpointError
from fgdeploy.models.backbone import hub, vit
from fgdeploy.models.weights import source
from fgdeploy.models.weights.source import WeightSource
from tests.checks import refused

TINY = "deit_tiny_patch16_224"


def _as_it_is(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return dict(state)


def _choose(
    backbone: str | None = None, size: int | None = None, path: Path | None = None
) -> tuple[WeightSource, list[str]]:
    said: list[str] = []
    found = source.choose(TINY, _as_it_is, backbone, size, path, "random", said.append)
    return found, said


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.save(vit.create(TINY, 64, classes=3).state_dict(), path)
    return path


def test_without_anything_it_is_the_method_s_default() -> None:
    assert _choose() == (WeightSource(TINY, 224, "random", None, "random"), [])
    assert _choose(size=64)[0].size == 64


@pytest.mark.parametrize(
    ("backbone", "size"),
    [
        ("vit_small_patch14_reg4_dinov2", 224),
        ("vit_small_patch14_dinov2", 224),
        ("deit_base_patch16_384", 384),
        ("vit_base_patch16_clip_quickgelu_224.openai", 224),
        ("vit_base_patch15_thing", 210),
        ("test_vit", 224),
    ],
)
def test_the_size_is_that_in_the_name(backbone: str, size: int) -> None:
    assert _choose(backbone)[0].size == size
    assert _choose(backbone, 96)[0].size == 96


def test_a_checkpoint_tells_its_backbone_and_size(saved: Path) -> None:
    found, said = _choose(path=saved)
    assert (found.backbone, found.size, found.name) == (TINY, 64, "tiny.pth")
    assert said == [
        f"backbone {TINY} at 64 pixels, told from the checkpoint's shapes, with its mean and std; "
        "name --backbone if it is another ViT of these shapes"
    ]
    assert _choose(path=saved, size=96)[0].size == 96
    tensors = found.tensors()
    assert tensors is not None and tensors["head.weight"].shape == (3, 192)


def test_a_backbone_that_is_named_is_not_guessed(saved: Path) -> None:
    found, said = _choose("vit_tiny_patch16_224", path=saved)
    assert (found.backbone, found.size, said) == ("vit_tiny_patch16_224", 64, [])


def test_averaged_weights_are_taken_or_those_of_the_key(tmp_path: Path) -> None:
    raw, ema = (dict(vit.create(TINY, 64, seed=seed).state_dict()) for seed in (1, 2))
    path = tmp_path / "c.pth"
    torch.save({"state_dict": raw, "state_dict_ema": ema, "epoch": 3}, path)
    found, said = _choose(TINY, 64, path)
    assert found.state is not None and torch.equal(found.state["pos_embed"], ema["pos_embed"])
    assert said == [
        "c.pth: EMA weights of state_dict_ema; also there: state_dict (--weights-key chooses)"
    ]
    kept = source.choose(TINY, _as_it_is, TINY, 64, path, "random", key="state_dict")
    assert kept.state is not None and torch.equal(kept.state["pos_embed"], raw["pos_embed"])


def test_a_checkpoint_is_renamed_first(tmp_path: Path) -> None:
    state = vit.create(TINY, 64).state_dict()
    torch.save({f"backbone/{key}": value for key, value in state.items()}, tmp_path / "c.pth")
    with refused(CheckpointError, "no cls_token, pos_embed and patch_embed.proj.weight"):
        _choose(path=tmp_path / "c.pth")

    def rename(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key.removeprefix("backbone/"): value for key, value in given.items()}

    found = source.choose(TINY, rename, None, None, tmp_path / "c.pth", "random")
    assert (found.backbone, found.size) == (TINY, 64)
    assert found.state is not None and found.state.keys() == state.keys()


def test_tensors_come_from_the_state_the_hub_or_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def give(backbone: str, size: int) -> Any:
        asked.append((backbone, size))
        return vit.create(backbone, size)

    monkeypatch.setattr(hub, "pretrained", give)
    state = {"a": torch.ones(1)}
    assert WeightSource("test_vit", 64, "pretrained", state, "c.pth").tensors() is state
    assert WeightSource("test_vit", 64, "random", None, "random").tensors() is None
    assert asked == []
    tensors = WeightSource("test_vit", 64, "pretrained", None, "pretrained").tensors()
    assert tensors is not None and "blocks.5.norm1.weight" in tensors
    assert asked == [("test_vit", 64)]
