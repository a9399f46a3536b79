"""Token rows and multiply-accumulates, recorded from runs, against the method tables by hand."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fgdeploy.bundle import BlockRows
from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.backbone.vit import Geometry
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.heads.base import Features, NoHead
from fgdeploy.models.methods.eet import SCHEDULE
from fgdeploy.models.network import Network
from fgdeploy.models.plan import block_macs, dense, record
from fgdeploy.models.reduce.stages import Stage, check, parse
from tests.checks import examples
from tests.models.samples import NORM, pruned

AT_224, AT_448 = parse("4:98,8:49,10:12"), parse("4:392,8:196,10:49")
EARLY, LAST = "early-gather", "cls-last"


def _vit(width: int, depth: int, patch: int, side: int, prefix: int = 1, ratio: float = 4.0) -> Any:
    """Return a ViT of these sizes that holds no numbers: enough to count what it does."""
    with torch.device("meta"):
        return timm.models.VisionTransformer(
            img_size=patch * side,
            patch_size=patch,
            embed_dim=width,
            depth=depth,
            num_heads=1,
            mlp_ratio=ratio,
            reg_tokens=prefix - 1,
            num_classes=0,
            global_pool="token",
        ).eval()


def _network(net: Any, stages: tuple[Stage, ...]) -> Network:
    return Network(pruned(net, stages), NoHead()).to("meta")


def _macs(net: Any, stages: tuple[Stage, ...], *active: str) -> int:
    network = _network(net, stages)
    left = frozenset(network.simplifications()) - set(active)
    return record(network.deployed(left), net.patch_embed.img_size[0]).macs


def giga(macs: int) -> str:
    return f"{macs / 1e9:.2f}"


@pytest.mark.parametrize(
    ("width", "side", "stages", "numbers"),
    [
        (384, 14, AT_224, ("4.60", "4.28", "2.53", "2.27")),
        (768, 14, AT_224, ("17.56", "16.35", "9.69", "8.65")),
        (768, 28, AT_448, ("78.49", "72.92", "42.17", "37.98")),
        (768, 28, AT_224, ("78.49", "72.92", "30.24", "26.07")),  # "EET literal" at 448
    ],
    ids=["S/16@224", "B/16@224", "B/16@448", "B/16@448 literal"],
)
def test_the_numbers_of_the_method_tables(
    width: int, side: int, stages: tuple[Stage, ...], numbers: tuple[str, ...]
) -> None:
    # docs/methods.md, section 6: dense as coded / simplified, EET as coded / simplified.
    net, size = _vit(width, 12, 16, side), 16 * side
    plain, eet = _network(net, ()), _network(net, stages)
    counts = (
        dense(backbones.geometry(net)).macs,
        record(plain.deployed(), size).macs,
        record(eet.published(), size).macs,
        record(eet.deployed(), size).macs,
    )
    assert tuple(giga(count) for count in counts) == numbers
    assert all(type(count) is int for count in counts)
    assert record(plain.published(), size).macs == counts[0]


@pytest.mark.parametrize(
    ("side", "prefix", "kept", "numbers"),
    [
        (37, 1, (684, 342, 85), ("46.70", "43.24", "23.77", "21.94")),
        (37, 5, (684, 342, 85), ("46.88", "43.41", "23.91", "22.07")),
        (16, 1, (128, 64, 16), ("6.12", "5.70", "3.34", "3.00")),
        (16, 5, (128, 64, 16), ("6.23", "5.79", "3.44", "3.09")),
    ],
    ids=["DINOv2-S/14@518", "with registers@518", "DINOv2-S/14@224", "with registers@224"],
)
def test_dinov2_at_its_own_size_and_at_224(
    side: int, prefix: int, kept: tuple[int, ...], numbers: tuple[str, ...]
) -> None:
    """By hand, as in the method tables: dense as coded / simplified, EET as coded / simplified."""
    net, size = _vit(384, 12, 14, side, prefix), 14 * side
    stages = SCHEDULE.stages(12, side * side)
    assert tuple(stage.keep for stage in stages) == kept
    plain, eet = _network(net, ()), _network(net, stages)
    counts = (
        record(plain.published(), size).macs,
        record(plain.deployed(), size).macs,
        record(eet.published(), size).macs,
        record(eet.deployed(), size).macs,
    )
    assert tuple(giga(count) for count in counts) == numbers


def test_a_network_with_weights_is_counted_alike() -> None:
    net = backbones.create("deit_tiny_patch16_224", 64)
    network = Network(pruned(net, (Stage(4, 8),)), NoHead())
    on_meta = _network(_vit(192, 12, 16, 4), (Stage(4, 8),))
    for one, two in (
        (network.published(), on_meta.published()),
        (network.deployed(), on_meta.deployed()),
    ):
        assert record(one, 64).runs == record(two, 64).runs
        assert record(one, 64).macs == record(two, 64).macs
    assert not net.blocks[0].norm1._forward_pre_hooks  # nobody listens any more
    assert not net.patch_embed.proj._forward_pre_hooks


def test_a_dense_block_is_twelve_t_d_squared_and_two_t_squared_d() -> None:
    tokens, width = 197, 384
    expected = 12 * tokens * width**2 + 2 * tokens**2 * width
    assert block_macs(width, tokens, tokens, tokens, tokens) == expected
    patches = 196 * 3 * 16**2 * 384
    assert dense(Geometry(384, 12, 16, (14, 14))).macs == patches + 12 * expected


def test_each_part_of_a_block() -> None:
    width = 10
    none = block_macs(width, 0, 0, 0, 0)
    assert none == 0
    assert block_macs(width, 1, 0, 0, 0) == 100  # q
    assert block_macs(width, 0, 1, 0, 0) == 200  # k and v
    assert block_macs(width, 1, 1, 0, 0) == 100 + 200 + 2 * 10  # and QK^T, AV
    assert block_macs(width, 3, 7, 0, 0) == 300 + 1400 + 2 * 3 * 7 * 10
    assert block_macs(width, 0, 0, 1, 0) == 100  # proj
    assert block_macs(width, 0, 0, 0, 1) == 800  # MLP, ratio 4
    assert block_macs(width, 0, 0, 0, 1, ratio=8 / 3) == int(2 * 8 / 3 * 100)


@pytest.mark.parametrize("ratio", [2.0, 4.0])
@pytest.mark.parametrize("prefix", [1, 2, 5])
def test_one_pruning_by_hand(ratio: float, prefix: int) -> None:
    net = _vit(8, 3, 2, 3, prefix, ratio)
    shape = backbones.geometry(net)
    assert shape == Geometry(8, 3, 2, (3, 3), prefix, ratio, 2)
    stages = (Stage(2, 4),)
    many, few = 9 + prefix, 4 + prefix
    stem = 9 * 3 * 4 * 8

    def block(*rows: int) -> int:
        return block_macs(8, *rows, ratio=ratio)

    full, late = block(many, many, many, many), block(few, few, few, few)
    assert dense(shape).macs == stem + 3 * full
    assert _macs(net, stages) == stem + 2 * full + late
    gathered = block(many, many, few, few)
    one_row = block(1, few, 1, 1)
    assert _macs(net, stages, EARLY) == stem + full + gathered + late
    assert _macs(net, stages, LAST) == stem + 2 * full + one_row
    assert _macs(net, stages, EARLY, LAST) == stem + full + gathered + one_row
    assert _macs(net, (), EARLY, LAST) == stem + 2 * full + block(1, many, 1, 1)
    assert record(_network(net, stages).deployed(), 6).runs == (
        BlockRows(1, many, many, many, many, many),
        BlockRows(2, many, many, many, few, few),
        BlockRows(3, few, 1, few, 1, 1),
    )


@examples(25)
@given(
    depth=st.integers(2, 9),
    side=st.integers(1, 17),
    prefix=st.integers(1, 5),
    width=st.sampled_from([64, 192, 384]),
    data=st.data(),
)
def test_each_saving_saves(
    depth: int, side: int, prefix: int, width: int, data: st.DataObject
) -> None:
    net, patches = _vit(width, depth, 16, side, prefix), side * side
    blocks = data.draw(st.lists(st.integers(1, depth - 1), unique=True, max_size=4))
    keeps = data.draw(st.lists(st.integers(1, patches), min_size=4, max_size=4))
    stages = check(
        [
            Stage(block, keep)
            for block, keep in zip(sorted(blocks), sorted(keeps, reverse=True), strict=False)
        ],
        depth,
        patches,
    )
    published = _macs(net, stages)
    whole = dense(backbones.geometry(net)).macs
    assert record(_network(net, stages).published(), 16 * side).macs == published
    assert _macs(net, ()) == whole
    assert _macs(net, (), EARLY) == whole
    early, last = _macs(net, stages, EARLY), _macs(net, stages, LAST)
    both = _macs(net, stages, EARLY, LAST)
    assert both <= last < published
    assert both < early <= published <= whole
    # The two savings are in different blocks, so they add up.
    assert published - both == 2 * published - early - last


class _Twice(Encoder):
    """Looks twice, with a layer of its own in between."""

    def __init__(self, net: Any) -> None:
        super().__init__(net, NORM)
        self.between = nn.Linear(8, 5)

    def forward(self, pixels: torch.Tensor, observers: Any = ()) -> Features:
        """Run everything twice."""
        tokens = self.walk(self.vit.blocks, self.embed(pixels), observers, all_rows=True)
        self.between(tokens.x)
        return super().forward(pixels, observers)


def test_a_second_look_and_a_method_s_own_layers_count() -> None:
    net = _vit(8, 3, 2, 3)
    found = record(Network(_Twice(net), NoHead()).to("meta").deployed(), 6)
    full, last = [BlockRows(n, *[10] * 5) for n in (1, 2, 3)], BlockRows(3, 10, 1, 10, 1, 1)
    assert list(found.runs) == [*full, *full[:2], last]
    assert (found.embeddings, found.others) == (2, 10 * 8 * 5)
    once, plain = record(_network(net, ()).deployed(), 6), dense(backbones.geometry(net))
    assert found.macs == once.macs + plain.macs + 10 * 8 * 5
