"""CLCA's options, its parts switched on and off, and one network of each."""

from __future__ import annotations

import json

import pytest
import torch

from fgdeploy.core.errors import StageError, UsageError
from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.heads.base import NoHead
from fgdeploy.models.methods.clca import METHOD, CLCAOptions, build
from fgdeploy.models.methods.registry import METHODS
from fgdeploy.models.network import Network
from fgdeploy.models.reduce.reductions import REDUCTIONS
from tests.checks import refused
from tests.models.samples import NORM, images, randomised

SHAPE = backbones.geometry(backbones.create("deit_tiny_patch16_224", 224))


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ({"reduction": "best"}, UsageError, "reduction=best: there is no such reduction; choose"),
        ({"cla": "false"}, UsageError, "the cache feeds the CLA head and needs it"),
        ({"gap": "false", "clr": "0"}, UsageError, "leave the cache nothing to keep"),
        ({"clr": "-1"}, UsageError, "clr=-1: expected a number from 0 to 64"),
        ({"kernels": "65"}, UsageError, "kernels=65: expected a number from 0 to 64"),
        ({"neighbours": "0"}, UsageError, "neighbours=0"),
        ({"keep_rate": "0"}, UsageError, "above 0 and up to 1"),
        ({"keep_rate": "1.5"}, UsageError, "above 0 and up to 1"),
        ({"keep_rate": "0.5,0.5"}, StageError, "2 keep rates for 3 blocks"),
        ({"blocks": "4,7,12"}, StageError, "expected rising numbers from 1 to 11, got 12"),
        ({"cache": "maybe"}, UsageError, "expected true or false"),
        ({"speed": "1"}, UsageError, "the method's options are keep_rate, blocks, reduction"),
    ],
)
def test_what_does_not_fit_is_said(
    given: dict[str, str], kind: type[Exception], words: str
) -> None:
    with refused(kind, words):
        CLCAOptions.parse(given).resolved(SHAPE)


def test_options_are_kept() -> None:
    options = CLCAOptions.parse({"reduction": "evit", "clr": "2", "at_last": "false"})
    options = options.resolved(SHAPE)
    assert CLCAOptions.from_json(json.loads(json.dumps(options.to_json()))) == options
    assert not options.dense().reduces and options.reduces


@pytest.mark.parametrize("cla", [True, False])
@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("clr", [0, 1])
def test_every_part_can_be_left_out(cla: bool, cache: bool, clr: int) -> None:
    """A checkpoint may hold a cache without CLA, so the network can, though no user may ask it."""
    vit = randomised("test_vit", 64)
    shape = backbones.geometry(vit)
    options = CLCAOptions(cla=cla, cache=cache, clr=clr).resolved(shape)
    network = Network(build(vit, NORM, options), NoHead(), options).double().eval()
    names = set(network.encoder.own())
    assert ("clr" in names) == bool(clr)
    assert any(name.startswith("aggregate.") for name in names) == cla
    assert ("norm.weight" in network.state()) != cla
    assert network.encoder.width == (128 if cla else 64)
    photos = images(2, 64)
    with torch.no_grad():
        expected = network.published()(photos).embedding
        assert expected.shape == (2, network.encoder.width)
        every = [name for name in network.simplifications() if name != "fold-normalisation"]
        for chosen in (every, *([name] for name in every)):
            found = network._with(frozenset(chosen))(photos).embedding
            assert (found - expected).abs().max() < 1e-11, chosen


def test_clr_starts_as_cls_with_a_position() -> None:
    vit = randomised("test_vit", 64)
    encoder = build(vit, NORM, CLCAOptions(clr=2).resolved(backbones.geometry(vit))).double()
    before = encoder.state()["clr"].detach().clone()
    encoder.begin()
    assert torch.allclose(encoder.state()["clr"], before + vit.cls_token, atol=1e-7)


def test_each_reduction_is_a_method_too() -> None:
    assert set(METHODS) >= {METHOD.name, *REDUCTIONS}
    for name, reduction in REDUCTIONS.items():
        assert METHODS[name].options is reduction.options
