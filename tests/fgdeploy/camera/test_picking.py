"""Which frames are hashed: every n-th, changed ones, a region, all together."""

from __future__ import annotations

import numpy as np

from fgdeploy.camera.capture_source import Captured
from fgdeploy.camera.gate import ChangeGate
from fgdeploy.camera.picking import Picker
from fgdeploy.camera.region import Region
from fgdeploy.core.errors import UsageError
from tests.checks import refused


def frame(level: int = 0) -> Captured:
    return Captured(np.full((8, 8, 3), level, np.uint8), "bgr")


def test_everything_by_default_untouched() -> None:
    given = frame()
    assert Picker()(given) is given


def test_every_third_from_the_first_on() -> None:
    picker = Picker(every=3)
    assert [picker(frame()) is not None for _ in range(7)] == [True, False, False] * 2 + [True]
    with refused(UsageError, "every 0: expected 1 for each frame"):
        Picker(every=0)


def test_a_region_is_a_view_and_the_whole_stays() -> None:
    given = frame()
    picked = Picker(Region(2, 2, 4, 4))(given)
    assert picked is not None and picked.whole is given.pixels
    assert picked.pixels.base is given.pixels and picked.pixels.shape == (4, 4, 3)
    assert (picked.when, picked.at, picked.color) == (given.when, given.at, "bgr")


def test_the_gate_sees_the_region_alone_and_only_the_frames_that_are_due() -> None:
    picker = Picker(Region(0, 0, 4, 8), every=2, gate=ChangeGate(0.1))
    assert picker(frame()) is not None
    assert picker(frame(255)) is None  # not due
    outside = frame()
    outside.pixels[:, 4:] = 255
    assert picker(outside) is None
    assert picker(frame()) is None  # not due
    inside = frame()
    inside.pixels[:, :4] = 255
    assert picker(inside) is not None
