"""Files of GLSim's authors: read as they were trained, equal to the reference, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fgdeploy.core.errors import CheckpointError
from fgdeploy.models.assembly import Assembly, NetworkSettings, choose
from fgdeploy.models.methods import glsim_files, registry
from tests.checks import refused
from tests.models.methods import reference_glsim, reference_looks
from tests.models.methods.glsim_authors import OWN, TIMM, own_vit, timm_vit, write
from tests.models.samples import images


def opened(path: Path, notes: list[str] | None = None, **settings: Any) -> Assembly:
    """Return what a file is."""
    notify = (notes if notes is not None else []).append
    return choose(NetworkSettings(checkpoint=path, **{"method": "glsim", **settings}), notify)


def hold(assembly: Assembly, heads: int, eps: float = 1e-12, **how: Any) -> None:
    """Hold a file's float32 network to the reference: boxes exactly, the rest to 1e-4."""
    options, state = assembly.options, assembly.source.state
    assert isinstance(state, dict)
    named = {
        name.replace("aggregator.", "aggregator.blocks.")
        if options.layers > 1  # type: ignore[attr-defined]
        else name.replace("aggregator.0.", "aggregator."): value
        for name, value in state.items()
    }
    pixels = images(3, 96, torch.float32)
    features = assembly.encoder()(pixels)
    logits = F.linear(features.embedding, state["head.weight"], state["head.bias"])
    for number, one in enumerate(pixels):
        wanted = reference_glsim.glsim(
            reference_looks.plain(named), one.double().numpy(), heads, 5, eps=eps, **how
        )
        assert wanted.logits is not None
        assert np.abs(logits[number].detach().numpy() - wanted.logits).max() < 1e-4
        similarity = features.extras["similarity"][number].numpy()
        assert np.abs(similarity - wanted.similarity).max() < 1e-4
        if wanted.box is not None:
            assert features.extras["box"][number].tolist() == list(wanted.box)


@pytest.mark.parametrize(
    ("reduced", "layers", "metric", "prefix"),
    [
        (None, 1, "cos", "model."),
        (128, 1, "l1", "module.model."),
        (None, 2, "l2", "model."),
    ],
)
def test_their_own_vit(
    tmp_path: Path, reduced: int | None, layers: int, metric: str, prefix: str
) -> None:
    config = {**OWN, "sim_metric": metric, "aggregator_num_hidden_layers": layers}
    path = write(tmp_path / "vit_t16_best.pth", own_vit(reduced, layers), config, prefix)
    notes: list[str] = []
    found = opened(path, notes)
    assert f"prefix {prefix} taken off" in notes[0]
    values = found.options.to_json()
    told = {"top": 5, "metric": metric, "inclusive_box": False, "look": "twice", "layers": layers}
    told |= {"shared_cls": True, "norm_eps": 1e-12, "heads": 4, "hidden": 64, "depth": 2}
    told |= {"mlp_ratio": 2.5, "width": reduced, "aggregator_heads": (reduced or 64) // 64}
    assert {name: values[name] for name in told} == told
    assert found.source.backbone == "vit_tiny_patch16_224"
    assert found.preprocess.to_json() | {"resize": 128, "size": 96, "square": True} == (
        found.preprocess.to_json()
    )
    assert found.norm.mean == (0.485, 0.456, 0.406)
    hold(found, 4, metric=metric)


@pytest.mark.parametrize("norm", [True, False])
def test_their_timm_vit(tmp_path: Path, norm: bool) -> None:
    found = opened(write(tmp_path / "b.pth", timm_vit(norm), TIMM))
    values = found.options.to_json()
    told = {"norm": norm, "shared_cls": False, "last_eps": 1e-5, "depth": 2, "heads": None}
    assert {name: values[name] for name in told} == told
    assert found.source.backbone == "deit_tiny_patch16_224.fb_in1k"
    hold(found, 3, 1e-6, aggregator_eps=1e-5, own_cls=True, aggregator_heads=3)


def test_top_tokens_without_a_crop(tmp_path: Path) -> None:
    config = {**TIMM, "select_top_k": True}
    found = opened(write(tmp_path / "b.pth", timm_vit(False), config))
    assert found.options.to_json()["look"] == "select"
    hold(found, 3, 1e-6, aggregator_eps=1e-5, select_only=True, aggregator_heads=3)
    for kind in ("conv", "dwsc"):
        config["classifier"] = "pool"  # one row comes out: its mean is itself
        found = opened(write(tmp_path / "c.pth", timm_vit(False, kind, 6), config))
        options = found.options.to_json()
        assert (options["aggregator"], options["pool"]) == (kind, "cls")
        assert found.encoder()(images(2, 96, torch.float32)).embedding.isfinite().all()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"classifier": "avg_cls"}, {"pool": "mean", "tokens": "cls"}),
        ({"reducer": None}, {"tokens": "all", "pool": "cls"}),
        ({"test_flip": True}, {"flip": True}),
        ({"anchor_size": None}, {"look": "once"}),
        ({"dynamic_top": None}, {"top": 8}),
    ],
)
def test_their_own_vit_otherwise(
    tmp_path: Path, change: dict[str, Any], told: dict[str, Any]
) -> None:
    found = opened(write(tmp_path / "a.pth", own_vit(), {**OWN, **change}))
    values = found.options.to_json()
    assert {name: values[name] for name in told} == told
    assert found.encoder()(images(1, 96, torch.float32)).embedding.isfinite().all()


@pytest.mark.parametrize(
    ("change", "mean", "resize", "square"),
    [
        ({"custom_mean_std": True}, 0.3659524, 128, True),
        ({"custom_mean_std": True, "dataset_name": "dafb"}, 0.5, 128, True),
        ({"test_resize_size": None, "resize_size": 110}, 0.485, 110, True),
        ({"test_resize_directly": True}, 0.485, 96, True),
        ({"deit_recipe": True}, 0.485, 109, False),
    ],
)
def test_photos_are_read_as_theirs(
    tmp_path: Path, change: dict[str, Any], mean: float, resize: int, square: bool
) -> None:
    found = opened(write(tmp_path / "a.pth", own_vit(), {**OWN, **change})).preprocess
    assert (found.mean[0], found.resize, found.square) == (mean, resize, square)
    assert (found.size, found.interpolation) == (96, "bicubic")


def test_a_bare_state_dict_leaves_open_what_it_cannot_tell(tmp_path: Path) -> None:
    path = tmp_path / "bare.pth"
    torch.save(own_vit(), path)
    notes: list[str] = []
    found = opened(path, notes, options={"heads": "4", "top": "5"})
    assert any(
        "does not tell how it was trained in all: metric=cos, tokens=cls" in n for n in notes
    )
    hold(found, 4)


def test_patches_that_do_not_fill_the_photo(tmp_path: Path) -> None:
    """A photo of 100 pixels has 6 x 6 patches of 16; what is left is seen in the crop alone."""
    config = {**OWN, "image_size": 100, "test_resize_size": 134}
    found = opened(write(tmp_path / "a.pth", own_vit(), config))
    assert found.geometry.grid == (6, 6) and found.preprocess.size == 100
    features = found.encoder()(images(1, 100, torch.float32))
    assert features.extras["similarity"].shape == (1, 6, 6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classifier": "max_cls"}, "a.pth was trained with the classifier .*max_cls"),
        ({"num_anchors": 3}, "a.pth was trained with 3 anchors, which is not supported"),
        ({"anchor_random": True}, "a.pth was trained with random crops"),
        ({"sim_metric": "dot"}, "--set metric=dot: choose one of cos, l1, l2"),
        ({"dynamic_top": 37}, "--set top=37: the photo has 36 patches"),
        ({"dynamic_top": "8"}, "a.pth: its argument dynamic_top is 8, expected a whole number"),
        ({"sim_metric": 3}, "a.pth: its argument sim_metric is 3, expected a text; save"),
        ({"image_size": 65536}, "argument image_size is 65536, expected .* above 0, up to 8192; "),
        ({"test_resize_size": 64}, "trained with photos of 64 pixels in frames of 96, which is"),
        ({"image_size": 127}, "a.pth was trained with images of 127 pixels and patches of 16"),
        ({"model_name": "resnet101"}, "a.pth says that it is resnet101, which is no ViT of GLSim"),
    ],
)
def test_what_is_not_made_here(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = write(tmp_path / "a.pth", own_vit(), {**OWN, **change})
    with pytest.raises(Exception, match=words) as refusal:
        opened(path)
    assert "\n" not in str(refusal.value)


def test_missing_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    weights = own_vit()
    gone = {n: v for n, v in weights.items() if n != "encoder.blocks.1.attn.proj_k.weight"}
    lacks = r"^a.pth lacks blocks.1.attn.qkv.weight; it is of another backbone"
    with refused(CheckpointError, lacks):
        opened(write(tmp_path / "a.pth", gone, OWN)).encoder()
    short = {n: v for n, v in weights.items() if n != "positional_embedding.pos_embedding"}
    with refused(CheckpointError, "^a.pth lacks pos_embed; "):
        opened(write(tmp_path / "a.pth", short, OWN)).encoder()
    more = {**timm_vit(False), "blocks.0.adapter_attn.adapter_down.weight": torch.zeros(2, 192)}
    with refused(CheckpointError, r"^a.pth lacks blocks.0.adapter_attn.adapter_down.bias; "):
        opened(write(tmp_path / "a.pth", more, TIMM)).encoder()
    with refused(CheckpointError, "^--set norm=false: a.pth was trained with norm=true and its"):
        opened(write(tmp_path / "a.pth", weights, OWN), options={"norm": "false"})


@pytest.mark.parametrize(
    ("weights", "config", "part", "field"),
    [
        (own_vit(), OWN, "encoder_norm", "encoder_norm"),
        (own_vit(), OWN, "aggregator", "aggregator"),
        (own_vit(), OWN, "aggregator_norm", "aggregator_norm"),
        (timm_vit(False), TIMM, "cls_token_crops", "dynamic_anchor"),
        (timm_vit(False), TIMM, "aggregator", "dynamic_anchor"),
    ],
)
def test_a_part_that_its_arguments_promise(
    tmp_path: Path, weights: dict[str, Tensor], config: dict[str, Any], part: str, field: str
) -> None:
    """A network without it is another one, which nobody trained."""
    short = {name: value for name, value in weights.items() if name.split(".")[0] != part}
    words = f"^a.pth lacks [a-z_.]+, though its arguments say {field}; its network is not whole"
    with refused(CheckpointError, words):
        opened(write(tmp_path / "a.pth", short, {**config, field: True}))


def test_a_file_tells_its_method() -> None:
    """Without --method it is refused by name; --method glsim refuses the files of others."""
    tell = registry.teller(None)
    assert tell is not None
    for arguments, weights in (
        (OWN, own_vit()),
        ({}, {f"model.{name}": value for name, value in own_vit().items()}),
        ({}, timm_vit(False)),
        (TIMM, timm_vit(True, "conv")),
    ):
        with refused(
            CheckpointError, "^c.pth was trained with glsim, not eet; pass --method glsim$"
        ):
            tell(arguments, weights, "c.pth")


PLAIN = {"patch_embed.proj.weight": torch.zeros(4, 3, 16, 16), "cls_token": torch.zeros(1, 1, 4)}


@pytest.mark.parametrize(
    ("more", "arguments", "words"),
    [
        ({"ifa_head.0.0.weight": torch.zeros(4)}, {}, "^c.pth was trained with clca, not glsim; "),
        ({}, {"model": "evit_test_vit", "clc": False}, "^c.pth was trained with evit, not glsim; "),
        ({"head_hash.weight": torch.zeros(4, 4)}, {}, "^c.pth has a hash head and no aggregator, "),
    ],
)
def test_files_of_other_methods_are_refused(
    more: dict[str, Tensor], arguments: dict[str, Any], words: str
) -> None:
    with refused(CheckpointError, words):
        glsim_files.tell(arguments, {**PLAIN, **more}, "c.pth")


def test_a_plain_backbone_is_a_start() -> None:
    assert glsim_files.tell({}, PLAIN, "c.pth") is None
    assert not glsim_files.claims({}, PLAIN)
