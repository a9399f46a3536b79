"""Which network in a checkpoint is taken: EMA first, prefixes off, and no guess between two."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fgdeploy.core.errors import CheckpointError
from fgdeploy.models.weights import checkpoint, state_dicts
from tests.checks import refused

State = dict[str, Tensor]


def network(value: float, head: bool = True) -> State:
    """Return what is told as a ViT, all of one value."""
    names = ["cls_token", "patch_embed.proj.weight", "blocks.0.norm1.weight", "norm.bias"]
    names += ["head.weight", "head_hash.weight"] if head else []
    return {name: torch.full((2,), value) for name in names}


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


RAW, EMA = network(1), network(2)


def picked(content: Any, key: str | None = None) -> tuple[float, str]:
    """Return the value of the network that is taken, and what was said."""
    said: list[str] = []
    found = state_dicts.pick(content, "c.pth", key=key, notify=said.append)
    assert set(found) == set(RAW)
    assert len(said) < 2
    return float(found["patch_embed.proj.weight"][0]), "".join(said)


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": RAW, "state_dict_ema": EMA},
        {"state_dict_ema": EMA, "state_dict": RAW},
        {"model": RAW, "model_ema": EMA, "epoch": 3},
        {"state_dict": RAW, "state_dict_ema": EMA, "model_ema": network(3)},
        {"model": RAW, "ema": EMA},
        {"model": RAW, "model_ema": {"module": EMA, "decay": 0.99}},
        {"model": RAW, "ema": {"module": {"model": EMA}, "updates": 3}},
        {"state_dict": {**under("model.", RAW), **under("ema_model.module.", EMA)}},
        {"model": under("module.", RAW), "ema_state_dict": under("module.", EMA)},
        {**under("student.", RAW), **under("student_ema.", EMA)},
        {"ema": EMA},
        {"model_ema": {"module": EMA}},
        {"state_dict_ema": under("_orig_mod.module.", EMA)},
        {"state_dict": RAW, "EMA": EMA},
        {"state_dict": RAW, "modelEMA": EMA},
        {"model": RAW, "EMAModel": EMA},
        {"model": RAW, "emaModel": {"shadow": EMA}},
        {"model": RAW, "swa_model": {**under("module.", EMA), "n_averaged": torch.tensor(3)}},
        {"state_dict": {**under("model.", RAW), **under("_average_model.module.", EMA)}},
    ],
)
def test_averaged_weights_come_first_and_it_is_said(content: Any) -> None:
    value, said = picked(content)
    assert value == 2
    assert re.match(r"c\.pth: (EMA|averaged) weights of ", said)
    if len(content) > 1:
        assert "also there: " in said or "epoch" in content


@pytest.mark.parametrize(
    ("content", "key", "value"),
    [
        ({"state_dict": RAW, "state_dict_ema": EMA}, "state_dict", 1),
        ({"state_dict": RAW, "state_dict_ema": EMA}, "state_dict_ema", 2),
        ({"model": RAW, "model_ema": {"module": EMA}}, "model_ema.module", 2),
        ({"model": RAW, "model_ema": {"module": EMA}}, "model_ema", 2),
        ({"a.b": {"c": under("module.", RAW)}, "ema": EMA}, "a.b.c", 1),
        ({**under("student.", RAW), **under("teacher.", EMA)}, "student", 1),
        ({**under("student.backbone.", RAW), **under("teacher.", EMA)}, "student.backbone", 1),
        ({"model": {**under("student.", RAW), **under("teacher.", EMA)}}, "model.teacher", 2),
        ({**RAW, **under("teacher.", EMA)}, ".", 1),
        ({**RAW, **under("teacher.", EMA)}, "teacher", 2),
    ],
)
def test_a_key_decides(content: Any, key: str, value: float) -> None:
    assert picked(content, key)[0] == value


@pytest.mark.parametrize(
    "prefix",
    [
        *("model.", "backbone.", "encoder.", "student.", "teacher.backbone.", "module.model."),
        *("module.", "_orig_mod.", "_orig_mod.module.backbone.", "module.encoder._orig_mod."),
        *("net.module.", "model.backbone.encoder.vit."),
        *("feature_extractor.", "module.visual.trunk.", "image_encoder.model."),
    ],
)
def test_prefixes_are_taken_off_and_named(prefix: str, tmp_path: Path) -> None:
    content = {"model": under(prefix, RAW), "epoch": torch.tensor(3)}
    assert picked(content) == (1, f"c.pth: prefix {prefix} taken off")
    flat = {**under(prefix, RAW), "epoch": torch.tensor(3)}
    assert picked(flat)[0] == 1
    save_file(under(prefix, RAW), tmp_path / "c.safetensors")
    assert set(checkpoint.read(tmp_path / "c.safetensors")) == set(RAW)


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (torch.eye(4).to_sparse(), "float32, sparse_coo"),
        (torch.eye(4).to(torch.complex64), "complex64, strided"),
    ],
)
def test_tensors_that_are_no_real_numbers(odd: torch.Tensor, words: str) -> None:
    for content in ({**RAW, "norm.weight": odd}, {"model": {**RAW, "norm.weight": odd}}):
        with refused(CheckpointError, f"^c.pth: norm.weight is {words}; expected dense real"):
            picked(content)


def test_heads_beside_the_backbone_come_along_and_the_rest_is_named() -> None:
    backbone = network(1, head=False)
    heads = {name: RAW[name] for name in ("head.weight", "head_hash.weight")}
    other = {"dino_loss.center": torch.ones(2), "epoch": torch.tensor(3)}
    content = {**under("module.backbone.", backbone), **under("module.", {**heads, **other})}
    assert picked(content) == (
        1,
        "c.pth: prefix module.backbone. taken off; left out: module.dino_loss.center",
    )


@pytest.mark.parametrize(
    ("content", "places"),
    [
        ({**under("student.", RAW), **under("teacher.", EMA)}, "student, teacher"),
        ({"student": RAW, "teacher": EMA}, "student, teacher"),
        (
            {"model": {**under("student.backbone.", RAW), **under("teacher.backbone.", EMA)}},
            "model.student.backbone, model.teacher.backbone",
        ),
        ({**RAW, **under("teacher.", EMA)}, "., teacher"),
        ({"ema": RAW, "student_ema": EMA}, "ema, student_ema"),
        (
            {**under("base_encoder.", RAW), **under("momentum_encoder.", EMA)},
            "base_encoder, momentum_encoder",
        ),
    ],
)
def test_two_whole_networks_are_not_guessed_between(content: Any, places: str) -> None:
    with refused(
        CheckpointError,
        rf"^c\.pth holds 2 whole networks \({places}\); choose one with --weights-key$",
    ):
        state_dicts.pick(content, "c.pth")


def test_the_same_tensors_under_two_names_are_one_network() -> None:
    assert picked({"model": RAW, "net": dict(RAW)}) == (1, "")


def test_networks_that_share_a_frozen_patch_embedding_are_two() -> None:
    shared = "patch_embed.proj.weight"
    said: list[str] = []
    content = {"state_dict": RAW, "state_dict_ema": {**EMA, shared: RAW[shared]}}
    found = state_dicts.pick(content, "c.pth", notify=said.append)
    assert float(found["norm.bias"][0]) == 2
    assert "also there: state_dict" in said[0]


@pytest.mark.parametrize(
    ("ema", "place"),
    [
        ({"shadow_params": list(EMA.values())}, "ema"),
        ({"norm.bias": EMA["norm.bias"]}, "ema"),
        (list(EMA.values()), "ema"),
    ],
)
def test_averaged_weights_that_cannot_be_told_are_not_left_out_in_silence(
    ema: Any, place: str
) -> None:
    value, said = picked({"state_dict": RAW, "ema": ema})
    assert value == 1
    assert f"not used, as it is no whole network by name: {place}; " in said


@pytest.mark.parametrize("ema", [None, {}, {"decay": 0.9}, {"n": torch.tensor(3)}])
def test_of_averages_that_hold_nothing_nothing_is_said(ema: Any) -> None:
    assert picked({"state_dict": RAW, "ema": ema, "ema_decay": 0.9}) == (1, "")


def test_timm_s_order_of_raw_ones() -> None:
    value, said = picked({"model": RAW, "state_dict": EMA})
    assert value == 2
    assert said == "c.pth: weights of state_dict; also there: model (--weights-key chooses)"


@pytest.mark.parametrize("key", ["nope", "state_dict.nope", "", "optimizer", "epoch"])
def test_a_key_that_is_not_there(key: str) -> None:
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}}
    content = {"state_dict": under("teacher.", RAW), "ema": EMA, "optimizer": optimizer, "epoch": 3}
    with pytest.raises(CheckpointError, match=r"c\.pth") as caught:
        state_dicts.pick(content, "c.pth", key=key)
    if key != "optimizer":
        assert str(caught.value) == (
            f"--weights-key {key}: nothing of that name in c.pth; it holds tensors under "
            "state_dict.teacher, ema"
        )


def test_names_of_a_method_s_own_tell_a_network_too() -> None:
    def rename(state: Any) -> State:
        return {name.replace("stem.", "patch_embed.proj."): value for name, value in state.items()}

    theirs = {"stem.weight": torch.ones(2), "encoder.x": torch.ones(2)}
    content = {"model": under("module.", theirs)}
    assert set(state_dicts.pick(content, "c.pth", rename)) == set(theirs)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"model": {}}, {"a": {"b": {}}}])
def test_no_tensors(content: Any) -> None:
    with refused(CheckpointError, r"^c\.pth holds no tensors by name; save model\.state_dict\(\)$"):
        state_dicts.pick(content, "c.pth")
