"""AFTrans against a float64 reference written from the maths, published and deployed."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.backbone.variant import Variant
from fgdeploy.models.heads.base import NoHead
from fgdeploy.models.looks.component import Largest, labelled, largest_parts
from fgdeploy.models.looks.sacm import CLSReader
from fgdeploy.models.looks.two_branches import TwoBranches
from fgdeploy.models.methods.aftrans import AFTransOptions, build
from fgdeploy.models.network import Network
from fgdeploy.models.tracing import rollout, trace
from tests.models.methods.reference_aftrans import aftrans
from tests.models.methods.reference_looks import plain
from tests.models.samples import BACKBONES, NORM, images, size_of

SIZE = 96


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def _encoder(size: int = SIZE, backbone: str = "test_vit", **options: Any) -> TwoBranches:
    """Return an encoder in float64 whose every weight matters, and whose attention is not flat."""
    vit = backbones.create(backbone, size, variant=Variant(stride=12))
    chosen = AFTransOptions(**options).resolved(backbones.geometry(vit))
    encoder = build(vit, NORM, chosen).double().eval()
    assert isinstance(encoder, TwoBranches)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, value in encoder.state().items():
            noise = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            value.mul_(6 if name.endswith("qkv.weight") else 1).add_(noise * 0.05)
        encoder.sacm.fc2.weight.mul_(20)
    return encoder


@pytest.mark.parametrize("pool", ["cls", "full_map"])
@pytest.mark.parametrize("keep", [0.02, 0.06, 0.4])
def test_it_is_the_reference(keep: float, pool: str) -> None:
    encoder = _encoder(keep=keep, pool=pool, branch="both")
    pixels, heads = images(3, SIZE), encoder.vit.blocks[0].attn.num_heads
    encoder.explains = True
    with torch.no_grad():
        found = encoder(pixels)
        encoder.look = dataclasses.replace(encoder.look, deployed=False)
        alone = encoder(pixels)
        encoder.train()
        trained = encoder(pixels)
    state = plain(encoder.state())
    boxes = set()
    for image in range(3):
        expected = aftrans(
            state, pixels[image].numpy(), heads, local_size=48, rate=keep, full_map=pool != "cls"
        )
        wanted = (expected.embedding + expected.local_embedding) / 2
        assert np.abs(found.embedding[image].numpy() - wanted).max() < 1e-11
        assert np.abs(alone.embedding[image].numpy() - expected.embedding).max() < 1e-11
        assert np.abs(trained.embedding[image].numpy() - expected.embedding).max() < 1e-11
        assert np.abs(trained.further[0][image].numpy() - expected.local_embedding).max() < 1e-11
        for one in (found, alone):
            assert tuple(one.extras["box"][image].tolist()) == expected.fused.box
            assert ((one.extras["component"][image] > 0).numpy() == expected.fused.component).all()
        boxes.add(expected.fused.box)
    assert keep == 0.4 or len(boxes) > 1


@pytest.mark.parametrize("sacm_grad", ["none", "reweight"])
@pytest.mark.parametrize("branch", ["global", "both"])
def test_each_simplification_alone_changes_nothing(branch: str, sacm_grad: str) -> None:
    encoder = _encoder(keep=0.05, branch=branch, sacm_grad=sacm_grad)
    network = Network(encoder, NoHead()).double().eval()
    frames = torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8)
    names = set(network.simplifications())
    assert names == {"fold-normalisation", "cls-last"}
    with torch.no_grad():
        published = network.published()
        pixels = _normalised(frames)
        expected = published(pixels)
        for chosen in ({"cls-last"}, {"fold-normalisation"}, names):
            one = network._with(frozenset(chosen))
            given = frames.double() if "fold-normalisation" in chosen else pixels
            found = one(given)
            scale = expected.embedding.abs().max()
            assert (found.embedding - expected.embedding).abs().max() < 1e-12 * scale, chosen
            for name, value in expected.extras.items():
                assert torch.equal(found.extras[name], value)


def _normalised(frames: Tensor) -> Tensor:
    mean, std = (
        torch.tensor(one, dtype=torch.float64).view(3, 1, 1) for one in (NORM.mean, NORM.std)
    )
    return (frames.double() / 255 - mean) / std


@pytest.mark.parametrize("backbone", (BACKBONES[1], BACKBONES[3], BACKBONES[4]))
def test_other_prefixes_positions_and_norms(backbone: str) -> None:
    """The local branch starts as the global one: the whole image gives what that gives."""
    size = size_of(backbone)
    encoder = _encoder(size, backbone, branch="both", keep=0.1, local_size=size)
    encoder.begin()
    pixels = images(2, size)
    with torch.no_grad():
        both = encoder(pixels)
        whole = torch.tensor([[0.0, 0, size, size]] * 2).double()
        reader = CLSReader(encoder.sacm)
        alone = super(TwoBranches, encoder).forward(pixels, [reader])
        again = encoder._second(pixels, whole, encoder.sacm(reader))
    assert (again - alone.embedding).abs().max() < 1e-11
    assert both.embedding.shape == alone.embedding.shape


def test_the_gates_learn_by_reweighting_alone() -> None:
    pixels = images(2, SIZE)
    for way in ("none", "reweight"):
        encoder = _encoder(keep=0.05, sacm_grad=way).train()
        features = encoder(pixels)
        (features.embedding.sum() + features.further[0].sum()).backward()
        learns = encoder.sacm.fc2.weight.grad is not None
        assert learns == (way == "reweight")
        assert encoder.frozen() == (set() if learns else {"sacm.fc1.weight", "sacm.fc2.weight"})
        for value in (encoder.local.cls_token, encoder.local.pos_embed, encoder.vit.cls_token):
            assert value.grad is not None and value.grad.abs().max() > 0


def test_shares_of_the_whole_image_at_its_own_size_are_its_map() -> None:
    encoder = _encoder(sacm_grad="reweight", local_size=SIZE)
    assert encoder.shares is not None
    values = torch.rand(2, 49, dtype=torch.float64) + 0.5
    whole = torch.tensor([[0.0, 0, SIZE, SIZE]] * 2).double()
    found = encoder.shares(values, whole)
    assert (found - values / values.mean(dim=1, keepdim=True)).abs().max() < 1e-12
    part = encoder.shares(values, torch.tensor([[24.0, 36, 64, 76]] * 2).double())
    assert (part.mean(dim=1) - 1).abs().max() < 1e-12
    even = encoder.shares(torch.ones(2, 49).double(), whole / 2)
    assert (even - 1).abs().max() < 1e-12


def test_rounds_find_the_part_that_scipy_finds_in_real_attention() -> None:
    for keep in (0.01, 0.05, 0.2):
        encoder = _encoder(224, keep=keep)
        assert encoder.grid == (18, 18)
        reader = CLSReader(encoder.sacm)
        with torch.no_grad():
            super(TwoBranches, encoder).forward(images(4, 224), [reader])
            mask = encoder.sacm(reader).mask
        found = Largest((18, 18), 36)(mask)
        assert torch.equal(found, largest_parts(mask, (18, 18)))
        assert found.sum() < mask.sum() or keep == 0.2


def test_what_does_not_decide_is_not_in_the_fingerprint() -> None:
    seen: dict[str, list[str]] = {"global": [], "both": []}
    for branch, prints in seen.items():
        for name in ("", "local_cls_token", "local_pos_embed", "sacm.fc1.weight", "cls_token"):
            network = Network(_encoder(branch=branch), NoHead())
            if name:
                with torch.no_grad():
                    network.state()[name].add_(0.01)
            prints.append(network.fingerprint())
    assert len(set(seen["global"])) == 2 and len(set(seen["both"])) == 5


def test_extras_for_a_picture_are_made_on_request_alone() -> None:
    encoder = _encoder(keep=0.05)
    with torch.no_grad():
        assert set(encoder(images(1, SIZE)).extras) == set()
    frames = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    network = Network(encoder.float(), NoHead()).eval()
    for one in trace(network.published(), frames):
        shapes = {name: value.shape for name, value in one.extras.items()}
        assert shapes == {"box": (4,), "attention": (7, 7), "component": (7, 7)}
        inside = one.extras["component"] > 0
        chosen = one.extras["attention"] >= one.extras["attention"][inside].min()
        assert (labelled(chosen) == inside).all() and inside.any()
    assert not encoder.explains
    rolled = rollout(network.published(), frames)
    assert rolled.shape == (2, 7, 7) and (rolled > 0).all()
