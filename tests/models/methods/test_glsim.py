"""GLSim against a float64 reference from the published maths, simplified and not."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fgdeploy.core.errors import UsageError
from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.backbone.vit import Geometry
from fgdeploy.models.heads.base import Features, NoHead
from fgdeploy.models.methods import glsim
from fgdeploy.models.methods.glsim_options import GLSimOptions
from fgdeploy.models.network import Network
from fgdeploy.models.plan import record
from tests.checks import refused
from tests.models.methods import reference_glsim, reference_looks
from tests.models.samples import NORM, images, randomised, size_of

ONE_HEAD = {"aggregator_heads": 1}  # of 64 columns, as the authors count
RELEASED = {"norm_eps": 1e-12, "shared_cls": True, "inclusive_box": False}
NEWER = {"norm": False, "inclusive_box": False, "last_eps": 1e-5}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def network(name: str = "test_vit", size: int = 64, **options: Any) -> Network:
    """Return GLSim on a ViT of which every weight matters, in float64."""
    chosen = GLSimOptions(**{**ONE_HEAD, **options})
    vit = randomised(name, size)
    chosen.backbone().apply(vit, size, 0)
    chosen = chosen.resolved(backbones.geometry(vit))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = glsim.build(vit, NORM, chosen).double()
        own = made.own()
        with torch.no_grad():
            for key, value in made.state().items():
                if key in own:
                    value.add_(torch.randn_like(value) * 0.1)
    return Network(made, NoHead(), chosen).eval().requires_grad_(False)


def expected(net: Network, pixels: Tensor, heads: int = 2) -> list[reference_glsim.Glanced]:
    """Return what the reference says of each image."""
    options = net.options
    named = {n.replace("aggregator.0.", "aggregator."): v for n, v in net.state().items()}
    return [
        reference_glsim.glsim(
            reference_looks.plain(named),
            one.numpy(),
            heads,
            options.top,
            options.metric,
            options.inclusive_box,
            options.norm_eps or 1e-6,
            options.last_eps,
            options.own_cls,
            options.look == "select",
        )
        for one in pixels
    ]


def hold(found: Features, wanted: list[reference_glsim.Glanced], limit: float = 1e-11) -> None:
    """Hold features to the reference's: boxes exactly, the rest to `limit`."""
    for number, one in enumerate(wanted):
        apart = found.embedding[number].numpy() - one.embedding
        assert np.abs(apart).max() <= limit * np.abs(one.embedding).max()
        apart = found.extras["similarity"][number].numpy() - one.similarity
        assert np.abs(apart).max() <= limit
        if one.box is not None:
            assert found.extras["box"][number].tolist() == list(one.box)
        else:
            assert "box" not in found.extras


@pytest.mark.parametrize(
    "options",
    [
        {},
        RELEASED,
        {**RELEASED, "metric": "l1", "top": 4},
        {**RELEASED, "metric": "l2", "top": 16},
        {**RELEASED, "top": 1},
        NEWER,
        {**NEWER, "norm": True, "metric": "l2"},
        {"width": 128, "aggregator_heads": None},
        {**NEWER, "look": "select", "top": 5},
        {"look": "select", "metric": "l1"},
    ],
    ids=str,
)
def test_it_is_the_published_network(options: dict[str, Any]) -> None:
    net, pixels = network(**options), images(3, 64)
    wanted = expected(net, pixels)
    if options.get("look") != "select" and options.get("top", 2) in (2, 4):
        assert len({one.box for one in wanted}) > 1
    hold(net.published()(pixels), wanted)
    hold(net(pixels), wanted)


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "deit3_small_patch16_224"])
def test_other_prefixes_positions_and_layer_scales(name: str) -> None:
    net = network(name, size_of(name), aggregator_heads=None, top=3)
    pixels = images(1, size_of(name))
    if "distilled" in name:  # the reference calls what stands beside CLS registers
        net_state = {n.replace("dist_token", "reg_token"): v for n, v in net.state().items()}
        net.state = lambda: net_state  # type: ignore[method-assign]
    heads = net.encoder.vit.blocks[0].attn.num_heads
    hold(net(pixels), expected(net, pixels, heads), 1e-10)


@pytest.mark.parametrize("options", [{}, {**NEWER, "look": "select", "top": 3}], ids=str)
def test_each_simplification_alone_changes_nothing(options: dict[str, Any]) -> None:
    net, pixels = network(**options), images(2, 64)
    names = set(net.simplifications())
    assert names == {"cls-last", "first-row", "fold-normalisation"}
    whole = net.published()(pixels)
    for name in ("cls-last", "first-row"):
        found = net.deployed(names - {name})(pixels)
        assert (
            found.embedding - whole.embedding
        ).abs().max() <= 1e-12 * whole.embedding.abs().max()
        for extra, value in whole.extras.items():
            assert torch.equal(found.extras[extra], value)


def test_a_crop_of_raw_frames_is_the_crop_of_normalised_ones() -> None:
    """Mean and std are folded into the patch embedding, which both looks go through."""
    net = network(top=4)
    net.pixels.to(torch.float64)
    frames = torch.randint(0, 256, (3, 3, 64, 64), generator=torch.Generator().manual_seed(5))
    frames = frames.to(torch.uint8)
    mean, std = (torch.tensor(one, dtype=torch.float64).view(3, 1, 1) for one in _colours())
    whole = net.published()((frames.double() / 255 - mean) / std)
    deployed = net.deployed()
    found = deployed(deployed.pixels(frames))
    assert torch.equal(found.extras["box"], whole.extras["box"])
    assert (found.embedding - whole.embedding).abs().max() <= 1e-12 * whole.embedding.abs().max()


def _colours() -> tuple[Any, Any]:
    return NORM.mean, NORM.std


def test_the_mirror_image_counts_as_much() -> None:
    net, pixels = network(top=3), images(2, 64)
    flipped = network(top=3, flip=True)
    flipped.load(net.state(), "other")
    both = [net(one).embedding for one in (pixels, pixels.flip(3))]
    found = flipped(pixels)
    assert (found.embedding - (both[0] + both[1]) / 2).abs().max() < 1e-13
    assert torch.equal(found.extras["box"], net(pixels).extras["box"])


def test_equal_patches_are_taken_by_position() -> None:
    net = network(top=3)
    uniform = torch.ones(1, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        net.encoder.vit.pos_embed.zero_()
    assert net(uniform).extras["box"].tolist() == [[0, 0, 16, 48]]


@pytest.mark.parametrize(
    ("aggregator", "options"),
    [("dwsc", {"look": "select", "top": 4}), ("conv", {"look": "select", "top": 4}), ("conv", {})],
)
def test_convolutions_aggregate_rows_best_first(aggregator: str, options: dict[str, Any]) -> None:
    net = network(aggregator=aggregator, aggregator_heads=None, norm=False, **options)
    pixels = images(2, 64)
    state = reference_looks.plain(net.state())
    for number, one in enumerate(pixels):
        first = reference_looks.vit_tokens(state, one.numpy(), 2)
        values = reference_glsim.similarity(first.tokens, 1, "cos")
        chosen = reference_glsim.most_similar(values, net.options.top, "cos")
        rows = first.tokens[[0, *(1 + place for place in chosen)]]
        if not options:
            box = reference_glsim.box_around(chosen, 4, 16, 64, True)
            crop = reference_looks.cut_and_resized(one.numpy(), box, 64)
            again = reference_looks.vit_tokens(state, crop, 2, cls="cls_token_crops")
            rows = np.stack([first.tokens[0], again.tokens[0]])
        wanted = _convolved(state, rows, aggregator == "dwsc")
        assert np.abs(net(pixels).embedding[number].numpy() - wanted).max() < 1e-11


def _convolved(state: Any, rows: Any, depthwise: bool) -> Any:
    norm = functools.partial(reference_looks.layer_norm, p=state, eps=1e-5)
    x, kernel = norm(rows, name="aggregator.norm_in"), state["aggregator.mix.weight"]
    if not depthwise:
        mixed = np.einsum("rd,edr->e", x, kernel) + state["aggregator.mix.bias"]
        return norm(mixed, name="aggregator_norm")
    mixed = np.einsum("rd,dr->d", x, kernel[:, 0]) + state["aggregator.mix.bias"]
    x = reference_looks.gelu(norm(mixed, name="aggregator.between"))
    x = state["aggregator.point.weight"][:, :, 0] @ x + state["aggregator.point.bias"]
    return norm(x, name="aggregator_norm")


@pytest.mark.parametrize(
    ("width", "depth", "side", "published", "exported"),
    [
        (768, 12, 14, "35.14", "33.92"),
        (768, 12, 28, "157.00", "151.43"),
        (384, 12, 14, "9.20", "8.88"),
    ],
)
def test_multiply_accumulates(
    width: int, depth: int, side: int, published: str, exported: str
) -> None:
    """docs/methods: 35.14 -> 33.92 G, 157.0 -> 151.4 G, 9.20 -> 8.88 G, and 6 S^3 of the crop."""
    import timm

    size = 16 * side
    with torch.device("meta"):
        vit = timm.models.VisionTransformer(
            img_size=size,
            embed_dim=width,
            depth=depth,
            num_heads=width // 64,
            num_classes=0,
            global_pool="token",
        ).eval()
        options = GLSimOptions().resolved(backbones.geometry(vit))
        net = Network(glsim.build(vit, NORM, options), NoHead(), options).to("meta")
    counted = {"published": net.published(), "exported": net.deployed()}
    crop = 6 * size**3
    found = {name: record(one, size).macs - crop for name, one in counted.items()}
    assert {name: f"{macs / 1e9:.2f}" for name, macs in found.items()} == {
        "published": published,
        "exported": exported,
    }
    plan = record(net.deployed(), size)
    assert plan.embeddings == 2 and len(plan.runs) == 2 * depth
    assert [plan.runs[number].mlp for number in (depth - 1, -1)] == [1 + side * side, 1]


@pytest.mark.parametrize(("side", "top"), [(14, 8), (28, 16), (4, 2), (1, 1)])
def test_the_top_follows_the_grid(side: int, top: int) -> None:
    shape = Geometry(64, 6, 16, (side, side))
    options = GLSimOptions().resolved(shape)
    assert options.top == top
    assert options.resized().top is None
    fixed = dataclasses.replace(options, look="select", aggregator="conv")
    assert fixed.resized() == fixed


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"metric": "dot"}, "^--set metric=dot: choose one of cos, l1, l2$"),
        ({"aggregator": "mlp"}, "^--set aggregator=mlp: choose one of transformer, dwsc, conv, "),
        ({"look": "thrice"}, "^--set look=thrice: choose one of twice, select, once$"),
        ({"top": "17"}, "^--set top=17: the photo has 16 patches at this size; choose 1 to 16$"),
        ({"top": "0"}, "^--set top 0: expected a whole number from 1 to 65536$"),
        ({"norm_eps": "nan"}, "^--set norm_eps nan: expected a finite number from 0 to 1$"),
        ({"layers": "65"}, "^--set layers=65: expected a number from 1 to 64$"),
        ({"aggregator": "conv", "pool": "mean"}, "^--set pool=mean: a convolution makes one row"),
        ({"look": "select", "tokens": "all"}, "^--set tokens=all: look=select has CLS and"),
        ({"look": "once", "pool": "both"}, "^--set pool=both: look=once has CLS alone, and no"),
        ({"aggregator_heads": "7"}, "^--set aggregator_heads=7: they do not divide .* of 64;"),
        ({"width": "65536"}, "^--set width 65536: expected a whole number from 1 to 4096$"),
        ({"hidden": "65536"}, "^--set hidden 65536: expected a whole number from 1 to 4096$"),
        ({"width": "200"}, "^--set aggregator_heads=3: they do not divide .* of 200;"),
    ],
)
def test_options_that_make_no_sense(given: dict[str, str], words: str) -> None:
    shape = Geometry(64, 6, 16, (4, 4))
    with refused(UsageError, words):
        GLSimOptions.parse(given).resolved(shape)


def test_options_come_back_from_json() -> None:
    options = GLSimOptions(top=3, metric="l1", norm_eps=1e-12, width=128)
    assert GLSimOptions.from_json(options.to_json()) == options
    for name, value in (("top", 0), ("top", True), ("norm_eps", 1), ("metric", "dot")):
        with pytest.raises((TypeError, ValueError)):
            GLSimOptions.from_json({name: value})


def test_a_new_one_starts_from_the_backbone() -> None:
    """CLS comes through: an untrained aggregator keeps which images are near to each other."""
    for options in ({}, {"aggregator": "conv"}, {"width": 128}):
        net = network(**{"aggregator_heads": None, **options})
        net.encoder.begin()
        assert net(images(2, 64)).embedding.isfinite().all()
        token = net.state()["cls_token_crops"]
        assert torch.equal(token, net.encoder.vit.cls_token)


def test_no_gradient_goes_through_what_decides() -> None:
    net = network(top=3).requires_grad_(True)
    net(images(2, 64)).embedding.square().sum().backward()
    without = [
        name
        for name, value in net.state().items()
        if isinstance(value, nn.Parameter) and value.grad is None
    ]
    assert without == []
    similarity = net(images(1, 64)).extras["similarity"]
    assert not similarity.requires_grad
