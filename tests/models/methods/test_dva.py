"""DVA in float64 against the plain reference, folded and not; its options, names and files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor

from fgdeploy.core.errors import CheckpointError, UsageError
from fgdeploy.models import assembly
from fgdeploy.models.assembly import NetworkSettings
from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.heads.base import NoHead
from fgdeploy.models.methods.dva import METHOD, DVAOptions, build
from fgdeploy.models.network import Network
from fgdeploy.models.plan import dense, record
from tests.checks import refused
from tests.models.methods import reference_dva, reference_looks
from tests.models.reduce.proof import close, narrow
from tests.models.samples import NORM, images, size_of
from tests.models.weights.vit_pytorch_layouts import laid_out

SMALL = "deit_tiny_patch16_224"
OTHERS = ("deit3_small_patch16_224", "vit_medium_patch16_clip_224", "vit_small_patch14_reg4_dinov2")
WIDTH, DEPTH, RANK = 64, 6, 3
PROXIES = {"proxies_obj": torch.ones(4, WIDTH), "proxies_all": torch.ones(5, WIDTH)}


def _network(backbone: str = SMALL, **given: Any) -> Network:
    """Return a small DVA in float64 whose every weight matters."""
    options = DVAOptions(**{"rank": RANK, **given})
    encoder = build(narrow(backbone, size_of(backbone)), NORM, options).double().eval()
    generator, held = torch.Generator().manual_seed(3), encoder.state()
    with torch.no_grad():
        for name in sorted(encoder.own()):
            noise = torch.randn(held[name].shape, generator=generator, dtype=torch.float64)
            held[name].copy_(noise / held[name].shape[-1] ** 0.5 + ("norm" in name))
    return Network(encoder, NoHead(), options).requires_grad_(False)


def _expected(network: Network, photos: Tensor) -> Tensor:
    vit = network.encoder.vit
    state = reference_looks.plain(network.encoder.state())
    heads, eps = vit.blocks[0].attn.num_heads, vit.blocks[0].norm1.eps
    rows = [reference_dva.dva(state, image, heads, eps) for image in photos.numpy()]
    return torch.from_numpy(np.stack(rows))


@pytest.mark.parametrize(
    ("backbone", "targets", "own_norm"),
    [
        (SMALL, "qk", False),
        (SMALL, "qk", True),
        (SMALL, "q", False),
        (SMALL, "kv", True),
        (SMALL, "qkv", True),
        *zip(OTHERS, ("qk", "v", "k"), (True, False, True), strict=True),
    ],
)
def test_it_is_the_reference_folded_or_not(backbone: str, targets: str, own_norm: bool) -> None:
    network = _network(backbone, targets=targets, own_norm=own_norm)
    photos = images(1, size_of(backbone))
    want = _expected(network, photos)
    names = set(network.simplifications()) - {"fold-normalisation"}  # takes other pixels
    assert names == {"fold-adapters", "cls-last"}
    published = network.published()(photos).embedding
    close(published, want, 5e-14)
    for chosen in (names, {"fold-adapters"}, {"cls-last"}):
        found = network._with(frozenset(chosen))(photos).embedding
        close(found, want, 5e-14)
        close(found, published, 5e-14)
    without = _network(backbone, targets=targets, own_norm=own_norm)
    for name in without.encoder.own():
        without.encoder.state()[name].zero_()
    close(without.published()(photos).embedding, _expected(without, photos), 5e-14)
    assert (without(photos).embedding - published).abs().max() > 0.1  # adapters matter


@pytest.mark.parametrize("own_norm", [False, True])
def test_it_starts_as_its_backbone(own_norm: bool) -> None:
    photos, vit = images(2, 64), narrow(SMALL, 64)
    with torch.no_grad():
        expected = vit(photos)
    encoder = build(vit, NORM, DVAOptions(own_norm=own_norm)).double()
    encoder.begin()
    close(encoder(photos).embedding.detach(), expected, 5e-14)
    state = encoder.state()
    downs = torch.cat([state[name].detach() for name in encoder.own() if "down" in name])
    assert abs(float(downs.std()) - 0.02) < 0.001 and abs(float(downs.mean())) < 0.001
    for name in encoder.own():
        if ".norm." in name:  # one of its own starts as the block's
            block, part = name.split(".attn.")[0], name.rsplit(".", 1)[1]
            assert torch.equal(state[name], state[f"{block}.norm1.{part}"])
            assert state[name] is not state[f"{block}.norm1.{part}"]


@pytest.mark.parametrize("own_norm", [False, True])
def test_names_are_timm_s_and_the_adapters_and_only_these_learn(own_norm: bool) -> None:
    network = _network(targets="qv", own_norm=own_norm)
    encoder, plain = network.encoder, narrow(SMALL, 64).state_dict()
    parts = ["down.weight", "up.weight", *(["norm.weight", "norm.bias"] if own_norm else [])]
    own = {
        f"blocks.{block}.attn.ic_{target}.{part}"
        for block in range(DEPTH)
        for target in "qv"
        for part in parts
    }
    assert encoder.own() == own and encoder.frozen() == set(plain)
    assert set(encoder.state()) == own | set(plain)
    assert all(encoder.state()[name].shape == value.shape for name, value in plain.items())
    deployed = network.deployed()
    assert not deployed.encoder.own()
    assert not any(name.startswith("walk") for name, _ in deployed.encoder.named_parameters())


def test_folded_it_costs_what_the_plain_vit_costs() -> None:
    with torch.device("meta"):
        net = timm.create_model("vit_base_patch16_224", num_classes=0)
        network = Network(build(net, NORM, DVAOptions()), NoHead()).to("meta")
    macs = {
        name: record(one, 224).macs / 1e9
        for name, one in (
            ("published", network.published()),
            ("folded", network.deployed(frozenset({"cls-last"}))),
            ("deployed", network.deployed()),
        )
    }
    adapters = 12 * 2 * 197 * 2 * 768 * 16 / 1e9
    assert macs["published"] == pytest.approx(17.56 + adapters, abs=0.006)
    assert f"{macs['folded']:.2f} {macs['deployed']:.2f}" == "17.56 16.35"
    assert dense(backbones.geometry(net)).macs / 1e9 == macs["folded"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"targets": "q,x"}, "targets=q,x: expected some of q, k and v, such as q,k"),
        ({"targets": ""}, "targets=: expected some of q, k and v"),
        ({"rank": "0"}, "rank=0: expected 1 to 64, the backbone's width"),
        ({"rank": "65"}, "rank=65: expected 1 to 64"),
        ({"rank": "wide"}, "expected a whole number such as 16"),
        ({"own_norm": "1"}, "expected true or false"),
        ({"speed": "1"}, "the method's options are targets, rank, own_norm, adapter_eps"),
        ({"adapter_eps": "1e-5"}, "eps 1e-06, and adapters with another cannot be folded exactly"),
        ({"adapter_eps": "small"}, "adapter_eps=small: the backbone's norms have eps 1e-06"),
    ],
)
def test_what_does_not_fit_is_said(given: Mapping[str, str], words: str) -> None:
    vit = narrow(SMALL, 64)
    with refused(UsageError, words):
        build(vit, NORM, DVAOptions.parse(given).resolved(backbones.geometry(vit)))


def test_a_norm_of_its_own_needs_a_layer_norm() -> None:
    vit = narrow(SMALL, 64)
    vit.blocks[0].norm1 = torch.nn.RMSNorm(WIDTH)
    with refused(
        UsageError,
        "own_norm=true: the backbone's norm1 is no LayerNorm before attention but RMSNorm",
    ):
        build(vit, NORM, DVAOptions(own_norm=True))


@pytest.mark.parametrize(
    ("text", "expected"), [("k,q", "qk"), ("qk", "qk"), (" V, Q ", "qv"), ("q,q", "q")]
)
def test_targets_are_read_in_any_order(text: str, expected: str) -> None:
    options = DVAOptions.parse({"targets": text})
    assert options.targets == expected
    assert DVAOptions.from_json(json.loads(json.dumps(options.to_json()))) == options


def _saved(folder: Path, **given: Any) -> Path:
    """Save a file as a training of somebody else might leave it: proxies and a prefix too."""
    encoder = build(backbones.create("test_vit", 64), NORM, DVAOptions(**given))
    with torch.no_grad():
        for name in encoder.own():
            encoder.state()[name].add_(0.1)
    state = {f"module.{k}": v.detach() for k, v in {**encoder.state(), **PROXIES}.items()}
    torch.save({"state_dict": state}, folder / "theirs.pth")
    return folder / "theirs.pth"


def _settings(path: Path, **changes: Any) -> NetworkSettings:
    return NetworkSettings("dva", backbone="test_vit", checkpoint=path, **changes)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"rank": 5, "targets": "v"},
        {"rank": 2, "own_norm": True},
    ],
)
def test_a_file_tells_targets_rank_and_norm(tmp_path: Path, given: dict[str, Any]) -> None:
    path = _saved(tmp_path, **given)
    found = assembly.choose(_settings(path))
    assert found.options == DVAOptions(**given)
    held = torch.load(path)["state_dict"]
    state = found.encoder().state()
    assert set(state) == {name.removeprefix("module.") for name in held} - set(PROXIES)
    assert all(torch.equal(value, held[f"module.{name}"]) for name, value in state.items())


def test_a_folded_file_is_the_plain_backbone_with_new_adapters(tmp_path: Path) -> None:
    said = list[str]()
    torch.save(timm.create_model("test_vit", img_size=64).state_dict(), tmp_path / "folded.pth")
    found = assembly.choose(_settings(tmp_path / "folded.pth"))
    encoder = found.encoder(said.append)
    assert said == ["folded.pth holds none of dva's own weights: new ones"]
    assert all(not value.any() for name, value in encoder.state().items() if "up." in name)


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({}, {"rank": "8"}, "rank=8: theirs.pth was trained with rank=16 and its weights hold to"),
        ({}, {"targets": "q"}, "targets=q: theirs.pth was trained with targets=qk"),
        ({"ic_k": None}, {"targets": "q,k"}, "trained with targets=q and its weights hold to it"),
        ({"3.attn.ic_k": None}, {}, r"lacks blocks\.3\.attn\.ic_k\.down\.weight, though it has"),
        ({"up.weight": None}, {}, r"lacks blocks\.0\.attn\.ic_q\.up\.weight"),
        ({"2.attn.ic_q.down": (7, 64)}, {}, "adapters of ranks 7, 16; expected one rank in all"),
        ({"2.attn.ic_q.up": (64, 7)}, {}, r"misshapen blocks\.2\.attn\.ic_q\.up\.weight \(64, 7\)"),
        ({"2.attn.ic_q.down": (2, 16, 64)}, {}, "misshapen|adapters of ranks"),
    ],
)
def test_adapters_that_do_not_fit_are_one_line(
    tmp_path: Path, change: dict[str, Any], options: dict[str, str], words: str
) -> None:
    path = _saved(tmp_path)
    state = torch.load(path)["state_dict"]
    for part, shape in change.items():
        for name in [name for name in state if part in name]:
            state[name] = None if shape is None else torch.zeros(shape)
    torch.save({key: value for key, value in state.items() if value is not None}, path)
    with refused(CheckpointError, words):
        assembly.choose(_settings(path, options=options)).encoder()


def test_another_method_is_told_that_a_file_is_of_this_one(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    with refused(CheckpointError, "theirs.pth was trained with dva, not eet; pass --method dva"):
        assembly.choose(NetworkSettings(backbone="test_vit", checkpoint=path))
    with refused(CheckpointError, "theirs.pth was trained with dva, not evit; pass --method dva"):
        assembly.choose(NetworkSettings("evit", backbone="test_vit", checkpoint=path))
    assert not METHOD.claims({}, {"blocks.0.attn.qkv.weight": torch.zeros(1)})


@pytest.mark.parametrize("layout", ["ViT-pytorch", "DVF"])
def test_adapters_in_the_names_of_the_authors_other_code(tmp_path: Path, layout: str) -> None:
    """Query, key and value apart, adapters beside them, the last block perhaps by its own name."""
    path = _saved(tmp_path, targets="qv", rank=3)
    ours = {name[7:]: value for name, value in torch.load(path)["state_dict"].items()}
    state = {name: value for name, value in ours.items() if name not in PROXIES}
    theirs = {**laid_out(state, layout), **PROXIES}
    assert any(name.endswith("attn.ic_v.up.weight") for name in theirs)
    assert not set(theirs) & set(state)
    torch.save(theirs, path)
    found = assembly.choose(_settings(path))
    assert found.options == DVAOptions(targets="qv", rank=3)
    loaded = found.encoder().state()
    assert all(torch.equal(value, state[name]) for name, value in loaded.items())
