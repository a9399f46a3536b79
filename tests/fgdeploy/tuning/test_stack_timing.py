"""Timing stacks: two depths to two parts of a block, in a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgdeploy.bundle import open_bundle
from fgdeploy.models.backbone.vit import Geometry
from fgdeploy.tuning.stack_timing import Backbone, measure, split

SMALL = Backbone(Geometry(width=16, depth=2, patch_size=16, grid=(2, 2)), heads=2)


def test_what_a_call_costs_beside_blocks_cancels() -> None:
    # 2 ms beside; a block takes 3 ms, 1 ms of it in `feed`
    assert split(2 + 3, 2 + 5 * 3, 2 + 5 * 1) == pytest.approx((2, 1))


@pytest.mark.parametrize("noise", [(5, 4, 3), (1, 9, 50), (0, 0, 0)])
def test_noise_gives_no_time_below_zero(noise: tuple[float, float, float]) -> None:
    attend, feed = split(*noise)
    assert attend >= 0 <= feed


def test_a_stair_for_each_batch(toy_bundle: Path) -> None:
    pytest.importorskip("onnxruntime")
    assert SMALL.rows == 5
    found = measure(open_bundle(toy_bundle), "onnxruntime:fp32", SMALL, {1: (2, 5), 2: (5,)}, 1)
    assert {batch: stair.rows for batch, stair in found.items()} == {1: (2, 5), 2: (5,)}
    assert all(stair.block(5) >= 0 for stair in found.values())
