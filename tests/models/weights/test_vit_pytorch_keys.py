"""Files in the names of ViT-pytorch are the same networks as under timm's names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fgdeploy.core.errors import CheckpointError
from fgdeploy.models import assembly
from fgdeploy.models.assembly import Assembly, NetworkSettings
from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.weights import checkpoint, vit_pytorch_keys
from tests.checks import refused
from tests.models.methods import reference_looks
from tests.models.samples import images
from tests.models.weights.vit_pytorch_layouts import LAYOUTS, laid_out, timm_weights

SIZE, HEADS = 64, 2  # timm's test_vit
PLAIN = [layout for layout in LAYOUTS if layout != "RAMS-Trans"]
_PARTS = "its last block was trained on chosen patches and sees all of them here"
NOTES = {
    "ViT-pytorch": None,
    "TransFG": _PARTS,
    "FFVT": _PARTS,
    "DVF": "left out, as it chooses patches: transformer.encoder.part_select.attention_layer."
    f"weight, transformer.encoder.part_select.attention_layer.bias; {_PARTS}",
}


def _saved(path: Path, state: dict[str, Tensor], prefix: str = "", key: str = "model") -> Path:
    torch.save({key: {prefix + name: value for name, value in state.items()}}, path)
    return path


def _opened(path: Path, **changed: Any) -> tuple[Assembly, list[str]]:
    said: list[str] = []
    given: dict[str, Any] = {"backbone": "test_vit", "options": {"stages": "none"}, **changed}
    return assembly.choose(NetworkSettings(checkpoint=path, **given), said.append), said


def _embedding(chosen: Assembly, dtype: torch.dtype, size: int = SIZE) -> Tensor:
    encoder = chosen.encoder().to(dtype)
    with torch.no_grad():
        found: Tensor = encoder(images(2, size, dtype)).embedding
    return found


@pytest.mark.parametrize("layout", PLAIN)
def test_a_layout_is_the_same_network(layout: str, tmp_path: Path) -> None:
    state = timm_weights()
    theirs = laid_out(state, layout)
    assert not set(theirs) & {name for name in state if not name.startswith("head.")}
    chosen, said = _opened(_saved(tmp_path / "theirs.bin", theirs))
    ours, _ = _opened(_saved(tmp_path / "ours.pth", state))
    assert chosen.source.size == SIZE
    assert chosen.source.state is not None and ours.source.state is not None
    held = dict(ours.source.state)
    if layout == "DVF":
        held = {name: value for name, value in held.items() if name.split(".")[0] != "head"}
    assert chosen.source.state.keys() == held.keys()
    assert all(torch.equal(chosen.source.state[name], value) for name, value in held.items())
    assert torch.equal(_embedding(chosen, torch.float64), _embedding(ours, torch.float64))
    single = _embedding(chosen, torch.float32)
    weights = reference_looks.plain(state)
    for row, pixels in zip(single, images(2, SIZE), strict=True):
        expected = reference_looks.vit_tokens(weights, pixels.numpy(), HEADS).normed[0]
        assert (row.double() - torch.from_numpy(expected)).abs().max() < 1e-4
    note = NOTES[layout]
    assert said == ([] if note is None else [f"theirs.bin: {note}"])


def test_two_cls_tokens_are_those_of_a_distilled_vit(tmp_path: Path) -> None:
    name = "deit_tiny_distilled_patch16_224"
    state = timm_weights(name)
    path = _saved(tmp_path / "theirs.pth", laid_out(state, "RAMS-Trans"), key="state_dict")
    chosen, said = _opened(path, backbone=None)
    assert (chosen.source.backbone, chosen.source.size) == (name, SIZE)
    assert (
        said[0] == "theirs.pth: two CLS tokens; the first is used, so this is the first look alone"
    )
    assert said[1].startswith(f"backbone {name} at 64 pixels")
    ours, _ = _opened(_saved(tmp_path / "ours.pth", state), backbone=name)
    assert torch.equal(_embedding(chosen, torch.float64), _embedding(ours, torch.float64))
    with refused(
        CheckpointError, r"has misshapen pos_embed \(1, 18, 192\), expected \(1, 17, 192\)"
    ):
        _opened(path, backbone="deit_tiny_patch16_224")[0].encoder()


@pytest.mark.parametrize(
    ("prefix", "said"), [("module.", "module."), ("module.model.", "module.model."), ("0.", "0.")]
)
def test_wrappers_are_taken_off(prefix: str, said: str, tmp_path: Path) -> None:
    state = laid_out(timm_weights(), "ViT-pytorch")
    chosen, words = _opened(_saved(tmp_path / "c.pth", state, prefix))
    plain, _ = _opened(_saved(tmp_path / "p.pth", state))
    assert words == [f"c.pth: prefix {said} taken off"]
    assert torch.equal(_embedding(chosen, torch.float64), _embedding(plain, torch.float64))


def test_a_large_one_tells_its_backbone(tmp_path: Path) -> None:
    """The shapes of DeiT-tiny: the guess sees the names of timm."""
    state = laid_out(timm_weights("deit_tiny_patch16_224"), "TransFG")
    chosen, said = _opened(_saved(tmp_path / "c.bin", state), backbone=None)
    assert chosen.source.backbone == "deit_tiny_patch16_224" and chosen.source.size == SIZE
    assert len(said) == 2 and said[1].startswith("backbone deit_tiny_patch16_224 at 64 pixels")


def test_positions_of_overlapping_patches_say_both_sizes() -> None:
    state = laid_out(timm_weights(), "TransFG")
    state["transformer.embeddings.position_embeddings"] = torch.zeros(1, 37 * 37 + 1, 64)
    assert vit_pytorch_keys.notes(state)[1] == (
        "37 x 37 positions: 448 pixels in patches every 12 pixels, 592 in patches side by side"
    )
    renamed = vit_pytorch_keys.rename(state)
    assert (backbones.trained_size(renamed), backbones.trained_size(renamed, 12)) == (592, 448)
    for rows in (28 * 28 + 1, 14 * 14 + 1, 37 * 37, 2):
        state["transformer.embeddings.position_embeddings"] = torch.zeros(1, rows, 64)
        assert len(vit_pytorch_keys.notes(state)) == 1
    state["transformer.embeddings.position_embeddings"] = torch.zeros(3)
    assert len(vit_pytorch_keys.notes(state)) == 1


@pytest.mark.parametrize(
    "name",
    [
        "embeddings.cls_token",
        "embeddings.position_embeddings",
        "embeddings.patch_embeddings.weight",
        "encoder.layer.0.attn.query.weight",
        "encoder.part_layer.attn.value.bias",
        "encoder.part_norm.weight",
    ],
)
def test_a_tensor_without_dimensions_is_refused(name: str, tmp_path: Path) -> None:
    state = laid_out(timm_weights(), "TransFG")
    state[f"transformer.{name}"] = torch.tensor(1.0)
    for backbone in ("test_vit", None):
        with pytest.raises(CheckpointError):
            _opened(_saved(tmp_path / "c.bin", state), backbone=backbone)[0].encoder()


def test_names_of_timm_and_of_others_stay_as_they_are() -> None:
    state = timm_weights() | {"transformer.encoder.part_select.x": torch.ones(1)}
    renamed = vit_pytorch_keys.rename(state)
    assert list(renamed) == list(state) and vit_pytorch_keys.notes(state) == []


def test_what_stands_beside_known_names_keeps_its_own() -> None:
    state = laid_out(timm_weights(), "ViT-pytorch")
    state["transformer.encoder.layer.3.attn.ic_q.down.weight"] = torch.ones(1)
    state["transformer.embeddings.cls_token_l"] = torch.ones(1)
    state["proxies"] = torch.ones(1)
    renamed = vit_pytorch_keys.rename(state)
    more = {"blocks.3.attn.ic_q.down.weight", "transformer.embeddings.cls_token_l", "proxies"}
    assert set(renamed) == set(timm_weights()) | more


def test_a_method_s_own_map_comes_behind() -> None:
    seen: list[set[str]] = []

    def own(state: Any) -> dict[str, Tensor]:
        seen.append(set(state))
        return {f"x.{name}": value for name, value in state.items()}

    found = vit_pytorch_keys.then(own)(laid_out(timm_weights(), "TransFG"))
    assert seen == [set(timm_weights())] and set(found) == {f"x.{name}" for name in seen[0]}


_KEY = "transformer.encoder.layer.2.attn.key.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({_KEY: None}, "lacks blocks.2.attn.qkv.weight"),
        ({_KEY: torch.ones(64, 32)}, "lacks blocks.2.attn.qkv.weight"),
        ({"transformer.encoder.part_norm.bias": None}, "lacks norm.bias"),
        (
            {"transformer.encoder.part_layer.ffn.fc1.weight": torch.ones(3, 64)},
            r"has misshapen blocks.5.mlp.fc1.weight \(3, 64\), expected",
        ),
        (
            {"transformer.embeddings.hybrid_model.root.conv.weight": torch.ones(1)},
            "has unknown transformer.embeddings.hybrid_model.root.conv.weight",
        ),
        (
            {"transformer.encoder.encoder_norm.bias": torch.ones(64)},
            "two tensors for norm.bias, transformer.encoder.part_norm.bias and transformer.encoder."
            "encoder_norm.bias",
        ),
        (
            {"transformer.embeddings.position_embeddings": torch.ones(1, 17, 32)},
            "has misshapen pos_embed",
        ),
        ({_KEY: torch.full((64, 64), torch.nan)}, "blocks.2.attn.qkv.weight holds NaN"),
    ],
)
def test_what_does_not_fit_is_told_by_timm_s_names(
    change: dict[str, Tensor | None], words: str, tmp_path: Path
) -> None:
    state: dict[str, Any] = {**laid_out(timm_weights(), "TransFG"), **change}
    state = {name: value for name, value in state.items() if value is not None}
    path = _saved(tmp_path / "c.bin", state)
    with refused(CheckpointError, words):
        _opened(path)[0].encoder()


def test_another_size_is_resized_and_another_width_refused(tmp_path: Path) -> None:
    path = _saved(tmp_path / "c.bin", laid_out(timm_weights(), "ViT-pytorch"))
    chosen, _ = _opened(path, image_size=96)
    said: list[str] = []
    chosen.encoder(said.append)
    assert said == ["position embedding of c.bin resized to 96 pixels, bilinearly"]
    with refused(CheckpointError, "c.bin lacks|c.bin has misshapen"):
        _opened(path, backbone="deit_tiny_patch16_224")[0].encoder()


def test_a_teacher_is_read_in_these_names_too(tmp_path: Path) -> None:
    state = timm_weights()
    path = _saved(tmp_path / "c.bin", laid_out(state, "FFVT"))
    said: list[str] = []
    found = checkpoint.read(path, notify=said.append)
    assert set(found) == set(state) and said == [f"c.bin: {_PARTS}"]
