"""From settings to a network."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fgdeploy.core.errors import CheckpointError, StageError, UsageError
from fgdeploy.models import assembly
from fgdeploy.models.assembly import NetworkSettings
from fgdeploy.models.backbone import vit
from fgdeploy.models.backbone.embedding import Normalisation
from fgdeploy.models.backbone.variant import Variant
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.heads.hash import ClassHashHead
from fgdeploy.models.methods import registry
from fgdeploy.models.methods.base import Method, Photometry
from fgdeploy.models.methods.eet import EETOptions
from fgdeploy.models.reduce.keep import KeepBest
from fgdeploy.models.reduce.stages import Stage
from fgdeploy.models.weights import trained
from fgdeploy.models.weights.trained import TrainedConfig
from fgdeploy.photos import Preprocess
from tests.checks import refused

SMALL = NetworkSettings(
    backbone="test_vit", image_size=64, weights="random", options={"stages": "2:8,4:4"}
)
STAGES = (Stage(2, 8), Stage(4, 4))


def _options(chosen: assembly.Assembly) -> EETOptions:
    assert isinstance(chosen.options, EETOptions)
    return chosen.options


def _equal(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_all_that_is_left_open_is_the_method_s() -> None:
    chosen = assembly.choose(NetworkSettings(weights="random"))
    assert chosen.method.name == "eet"
    assert (chosen.source.backbone, chosen.source.size) == ("deit_small_patch16_224", 224)
    assert [stage.keep for stage in _options(chosen).stages or ()] == [98, 49, 12]
    assert chosen.geometry == vit.geometry(vit.create("deit_small_patch16_224", 224))
    assert chosen.norm.mean == chosen.preprocess.mean == (0.485, 0.456, 0.406)
    assert (chosen.preprocess.size, chosen.preprocess.resize) == (224, 256)
    assert chosen.config is None


@pytest.mark.parametrize(("crop", "resize"), [(None, 73), (1.0, 64), (0.5, 128), (0.875, 73)])
def test_the_crop_is_the_middle_part_that_the_model_sees(crop: float | None, resize: int) -> None:
    chosen = assembly.choose(dataclasses.replace(SMALL, crop=crop))
    assert (chosen.preprocess.size, chosen.preprocess.resize) == (64, resize)


def test_an_assembly_makes_the_same_network_each_time() -> None:
    chosen = assembly.choose(SMALL)
    one, two = chosen.encoder(), chosen.encoder()
    assert _equal(one.state(), two.state()) and one is not two
    assert not one.training
    other = assembly.choose(dataclasses.replace(SMALL, seed=1)).encoder()
    assert not _equal(one.state(), other.state())
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    nets = [chosen.trainable(5, 16) for _ in range(2)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert nets[0].fingerprint() == nets[1].fingerprint()
    assert nets[0].options == chosen.options
    assert _equal(nets[0].encoder.state(), one.state())


@pytest.mark.parametrize("method", registry.METHODS)
def test_what_a_method_starts_at_random_is_drawn_from_the_seed(method: str) -> None:
    settings = dataclasses.replace(SMALL, method=method, options={})
    one = assembly.choose(settings).encoder().state()
    torch.rand(3)  # whatever else was drawn
    assert _equal(one, assembly.choose(settings).encoder().state())


def test_a_dense_network_prunes_nothing_and_has_the_same_weights() -> None:
    chosen = assembly.choose(SMALL)
    dense, sparse = chosen.trainable(5, 16, dense=True), chosen.trainable(5, 16)
    kinds = [[isinstance(step, KeepBest) for step in net.encoder.walk.steps.values()]
             for net in (dense, sparse)]  # fmt: skip
    assert kinds == [[False] * 6, [False, True, False, True, False, False]]
    assert dense.options == EETOptions(()) and sparse.options == EETOptions(STAGES)
    assert dense.fingerprint() == sparse.fingerprint()


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"method": "dino"}, UsageError, "there is no method 'dino'; choose one of eet"),
        ({"options": {"keep": "3"}}, UsageError, "--set keep: the method's options are stages"),
        ({"options": {"stages": "2:17"}}, StageError, "keeps 17 patch tokens, but 16 arrive"),
        ({"options": {"stages": "6:3"}}, StageError, "below 6"),
        ({"backbone": "resnet50"}, UsageError, "resnet50 is of the family ResNet"),
        ({"image_size": 60}, UsageError, "60 is no multiple"),
        ({"weights_key": "ema"}, UsageError, "--weights-key chooses in a checkpoint, and none"),
        ({"checkpoint": Path("none.pth")}, CheckpointError, "no checkpoint at none.pth"),
    ],
)
def test_what_cannot_be(changes: dict[str, Any], kind: type[Any], words: str) -> None:
    with refused(kind, words):
        assembly.choose(dataclasses.replace(SMALL, **changes))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a training at 64 pixels left."""
    chosen = assembly.choose(SMALL)
    net = chosen.trainable(3, 16)
    config = TrainedConfig(
        "eet",
        "test_vit",
        64,
        16,
        EETOptions(STAGES, True),
        Preprocess(64, 80, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ("a", "b", "c"),
        {"recipe": "fast"},
    )
    with torch.no_grad():
        net.encoder.vit.norm.bias.fill_(3.0)
    trained.save(tmp_path / "model.safetensors", net.state(), config)
    return tmp_path


def test_a_training_s_checkpoint_is_taken_as_what_it_was_trained_as(run: Path) -> None:
    said: list[str] = []
    chosen = assembly.choose(NetworkSettings(checkpoint=run), said.append)
    assert chosen.options == EETOptions(STAGES, True)
    assert (chosen.source.backbone, chosen.source.size) == ("test_vit", 64)
    assert chosen.preprocess.resize == 80
    assert chosen.config is not None and chosen.config.classes == ("a", "b", "c")
    assert said == [
        "model.safetensors: eet on test_vit, 3 classes, 16 bits, recipe fast, as model.json says"
    ]
    encoder = chosen.encoder(said.append)
    assert (encoder.vit.norm.bias == 3).all() and len(said) == 1


def test_options_given_come_on_top_of_those_trained_with(run: Path) -> None:
    given = NetworkSettings(checkpoint=run, options={"stages": "3:5"})
    assert assembly.choose(given).options == EETOptions((Stage(3, 5),), True)
    given = NetworkSettings(checkpoint=run, options={"transposed_mask": "false"})
    assert assembly.choose(given).options == EETOptions(STAGES, False)


def test_another_size_takes_the_published_fractions_and_scales_the_photo(run: Path) -> None:
    said: list[str] = []
    chosen = assembly.choose(NetworkSettings(checkpoint=run, image_size=96))
    assert [stage.keep for stage in _options(chosen).stages or ()] == [18, 9, 2]
    assert chosen.preprocess.resize == 120
    chosen.encoder(said.append)
    assert said == ["position embedding of model.safetensors resized to 96 pixels, bilinearly"]


def test_to_go_on_from_it_only_gives_backbone_and_weights(run: Path) -> None:
    chosen = assembly.choose(NetworkSettings(checkpoint=run), as_trained=False)
    assert (chosen.source.backbone, chosen.source.size) == ("test_vit", 64)
    assert [stage.keep for stage in _options(chosen).stages or ()] == [8, 4, 1]
    assert chosen.preprocess.resize == 73
    assert (chosen.encoder().vit.norm.bias == 3).all()


def test_what_it_was_not_trained_as_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "METHODS", {**registry.METHODS, "other": _method()})
    with refused(CheckpointError, "was trained as eet, not other; pass --method eet"):
        assembly.choose(NetworkSettings(method="other", checkpoint=run))
    with refused(CheckpointError, "was trained on test_vit; leave --backbone .* out"):
        assembly.choose(NetworkSettings(backbone="deit_tiny_patch16_224", checkpoint=run))
    monkeypatch.setattr(registry, "METHODS", {"other": _method(), **registry.METHODS})
    with refused(CheckpointError, "was trained as eet, not other; pass --method eet"):
        assembly.choose(NetworkSettings(checkpoint=run), as_trained=False)
    given = NetworkSettings(method="other", checkpoint=run)
    assert assembly.choose(given, as_trained=False).method.name == "other"


class _Routed(Encoder):
    """An encoder with a layer of its own, from torch's random state."""

    def __init__(self, net: Any, norm: Normalisation) -> None:
        super().__init__(net, norm)
        self.router = nn.Linear(64, 3)


class _OwnHead(ClassHashHead):
    parts = ("head", "head_hash", "extra")


def _method() -> Method:
    return Method(
        "other",
        "test_vit",
        build=lambda net, norm, options: _Routed(net, norm),
        photometry=Photometry(1.25, "bicubic", square=True),
        head=_OwnHead,
        variant=Variant(stride=12, norm_eps=1e-5),
    )


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> NetworkSettings:
    monkeypatch.setattr(registry, "METHODS", {**registry.METHODS, "other": _method()})
    return NetworkSettings("other", {}, "test_vit", 64, weights="random")


def test_a_method_s_own_numbers_reach_the_network(other: NetworkSettings) -> None:
    chosen = assembly.choose(other)
    assert chosen.geometry.grid == (5, 5) and chosen.geometry.stride == 12
    assert (chosen.preprocess.resize, chosen.preprocess.interpolation) == (80, "bicubic")
    assert chosen.preprocess.square
    encoder = chosen.encoder()
    assert encoder.vit.norm.eps == 1e-5
    assert _equal(encoder.state(), chosen.encoder().state())  # its random layer, too
    assert isinstance(chosen.trainable(3, 16).head, _OwnHead)


def test_a_plain_backbone_starts_a_method_s_own_weights_fresh(
    other: NetworkSettings, tmp_path: Path
) -> None:
    chosen, said = assembly.choose(other), []
    state = {name: value.detach().clone() for name, value in chosen.encoder().state().items()}
    plain = {name: value for name, value in state.items() if not name.startswith("router")}
    torch.save({**plain, "extra.weight": torch.ones(3)}, tmp_path / "plain.pth")
    fresh = assembly.choose(dataclasses.replace(other, checkpoint=tmp_path / "plain.pth"))
    said = []
    encoder = fresh.encoder(said.append)
    assert said == ["plain.pth holds none of other's own weights: new ones"]
    assert _equal(encoder.state(), state)
    # Some of them but not all is a checkpoint that does not fit.
    torch.save({**plain, "router.bias": state["router.bias"]}, tmp_path / "half.pth")
    half = assembly.choose(dataclasses.replace(other, checkpoint=tmp_path / "half.pth"))
    with refused(CheckpointError, "half.pth lacks router.weight"):
        half.encoder()
    torch.save(state | {"router.bias": torch.full((3,), 7.0)}, tmp_path / "whole.pth")
    whole = assembly.choose(dataclasses.replace(other, checkpoint=tmp_path / "whole.pth"))
    found = whole.encoder(said.append)
    assert (found.state()["router.bias"] == 7).all() and len(said) == 1
