"""GLSim with adapters in its blocks: the published network, the authors' files, a graph."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fgdeploy.core.errors import CheckpointError, UsageError
from fgdeploy.models.backbone.vit import Geometry
from fgdeploy.models.looks.adapter import AdapterStep, Bottleneck
from fgdeploy.models.methods import glsim_files
from fgdeploy.models.methods.glsim_options import GLSimOptions
from fgdeploy.models.plan import record
from fgdeploy.models.tokens import Tokens
from fgdeploy.models.walk import Observer
from tests.checks import refused
from tests.models.methods.glsim_authors import TIMM, adapted, timm_vit, write
from tests.models.methods.test_glsim import NEWER, expected, hold, network
from tests.models.methods.test_glsim_files import hold as hold_file
from tests.models.methods.test_glsim_files import opened
from tests.models.samples import images

KINDS = ["plain", "convpass"]
# 192 wide, so that two channels are within and the convolution mixes them.
WIDE = {**NEWER, "aggregator_heads": None, "depth": 3}


class Sees:
    """An observer that wants the attention of the last block."""

    wants_attention = True
    rows = 0

    def __call__(self, number: int, tokens: Tokens) -> None:
        """Keep how many rows attended."""
        if tokens.attended is not None:
            self.rows = int(tokens.attended.out.shape[1])


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("more", [{}, {"look": "select", "top": 3}], ids=str)
def test_it_is_the_published_network(kind: str, more: dict[str, object]) -> None:
    net = network("deit_tiny_patch16_224", adapter=kind, **WIDE, **more)
    pixels = images(2, 64)
    wanted = expected(net, pixels, 3)
    hold(net.published()(pixels), wanted)
    hold(net(pixels), wanted)
    off = network("deit_tiny_patch16_224", **WIDE, **more)(pixels).embedding
    assert (off - net(pixels).embedding).abs().max() > 1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_layer_scales_are_of_attention_and_mlp_alone(kind: str) -> None:
    net = network("deit3_small_patch16_224", adapter=kind, **WIDE)
    pixels = images(1, 64)
    hold(net(pixels), expected(net, pixels, 6))


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_block_is_exact_for_cls_alone(kind: str) -> None:
    net, pixels = network(adapter=kind), images(2, 64)
    names = set(net.simplifications())
    assert names == {"cls-last", "first-row", "fold-normalisation"}
    whole, short = net.published()(pixels), net.deployed(frozenset({"fold-normalisation"}))(pixels)
    assert torch.equal(whole.extras["box"], short.extras["box"])
    assert (whole.embedding - short.embedding).abs().max() <= 1e-12 * whole.embedding.abs().max()
    seen = Sees()
    observers: list[Observer] = [seen]
    once = network(adapter=kind, look="once")
    rows = once(pixels).embedding
    apart = once.encoder(pixels, observers).embedding - rows
    assert apart.abs().max() <= 1e-12 * rows.abs().max()
    assert seen.rows == 17
    both, one = (record(twin, 64).runs[-1].mlp for twin in (net.float().published(), net))
    assert (both, one) == (17, 1)


def test_cls_sees_only_the_middle_of_the_kernel() -> None:
    made = Bottleneck(96, (2, 2)).double()
    with torch.no_grad():
        for value in made.parameters():
            value.normal_(generator=torch.Generator().manual_seed(1))
    rows = torch.randn(1, 5, 96, dtype=torch.float64)
    apart = made(rows)[:, :1] - made(rows[:, :1])
    assert apart.abs().max() < 1e-12
    conv = made.adapter_conv
    assert conv is not None
    z = torch.nn.functional.gelu(made.adapter_down(rows[:, :1]))
    pixel: Tensor = torch.nn.functional.gelu(conv(z.transpose(1, 2).unsqueeze(3))).flatten(2)
    assert (made.adapter_up(pixel.transpose(1, 2)) - made(rows[:, :1])).abs().max() < 1e-12


def test_what_adapters_cost_is_counted() -> None:
    """At 64 pixels: 17 rows in five blocks, one in the last, twice; one channel within 64."""
    plain, convolved = (record(network(adapter=kind, look="once").float(), 64) for kind in KINDS)
    none = record(network(look="once").float(), 64)
    assert plain.others - none.others == 2 * (5 * 17 + 1) * 2 * 64
    assert convolved.others - plain.others == 2 * 5 * 16 * 9
    assert plain.embeddings == convolved.embeddings == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("look", ["twice", "select"])
def test_their_files(tmp_path: Path, kind: str, look: str) -> None:
    weights = adapted(kind)
    config = {**TIMM, "adapter": "convpass", "select_top_k": look == "select"}
    found = opened(write(tmp_path / "b.pth", weights, config))
    values = found.options.to_json()
    assert (values["adapter"], values["look"]) == (kind, look)
    theirs = {name for name in weights if "adapter_" in name}
    assert {name for name in found.encoder().state() if "adapter_" in name} == theirs
    others = {"own_cls": True} if look == "twice" else {"select_only": True}
    hold_file(found, 3, 1e-6, aggregator_eps=1e-5, aggregator_heads=3, **others)


def test_weights_say_which_adapters(tmp_path: Path) -> None:
    path = write(tmp_path / "b.pth", timm_vit(False), {**TIMM, "adapter": "convpass"})
    assert opened(path).options.to_json()["adapter"] == "none"
    with refused(CheckpointError, "^--set adapter=plain: b.pth was trained with adapter=none and"):
        opened(path, options={"adapter": "plain"})
    bare = {name: value for name, value in adapted("plain").items() if "aggregator" not in name}
    del bare["cls_token_crops"]
    assert glsim_files.claims({}, {f"model.{name}": value for name, value in bare.items()})


def test_a_new_one_starts_at_nothing() -> None:
    made = Bottleneck(96, (2, 2))
    assert torch.equal(made(torch.randn(2, 5, 96)), torch.zeros(2, 5, 96))


def test_options_that_make_no_sense() -> None:
    with refused(UsageError, "^--set adapter=x: choose one of none, plain, convpass$"):
        GLSimOptions.parse({"adapter": "x"}).resolved(Geometry(64, 6, 16, (4, 4)))
    with refused(UsageError, "^--set adapter=convpass: the backbone has 5 tokens before its patc"):
        AdapterStep(Geometry(64, 6, 16, (4, 4), prefix_tokens=5), "convpass")
    assert AdapterStep(Geometry(64, 6, 16, (4, 4), prefix_tokens=5), "plain")
