"""Regions: how they are written, that they are views, and what does not lie within a frame."""

from __future__ import annotations

import numpy as np
import pytest

from fgdeploy.camera.region import Region
from fgdeploy.core.errors import UsageError
from tests.checks import refused

FRAME = np.arange(48 * 64 * 3, dtype=np.uint32).astype(np.uint8).reshape(48, 64, 3)


def test_pixels_and_shares_are_views_of_the_same_part() -> None:
    found = Region.parse("16,12,32,24").of(FRAME)
    assert found.base is FRAME.base
    np.testing.assert_array_equal(found, FRAME[12:36, 16:48])
    np.testing.assert_array_equal(Region.parse("25%, 25%, 50%, 50%").of(FRAME), found)
    assert Region.parse("0%,0%,100%,100%").of(FRAME).shape == FRAME.shape
    assert Region.parse("0,0,64,48").within(64, 48) == (0, 0, 64, 48)


@pytest.mark.parametrize("text", ["16,12,32,24", "12.5%,0%,50%,100%"])
def test_it_reads_what_it_writes(text: str) -> None:
    assert str(Region.parse(text)) == text
    assert Region.parse(str(Region.parse(text))) == Region.parse(text)


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "-1,0,4,4", "1,2,3%,4%", "0.1,0.1,0.5,0.5",
             "1e3,0,4,4", "nan%,0%,1%,1%", "\u0665,0,4,4", "1" * 9 + ",0,4,4"],
)  # fmt: skip
def test_other_texts_are_refused(text: str) -> None:
    with refused(UsageError, r"expected X,Y,W,H in pixels \(400,200,640,640\)"):
        Region.parse(text)


def test_no_area_and_more_than_all() -> None:
    with refused(UsageError, "region 0,0,0,4: expected an area"):
        Region.parse("0,0,0,4")
    with refused(UsageError, "region 60%,0%,50%,50%: goes beyond 100% of the frame"):
        Region.parse("60%,0%,50%,50%")


def test_a_frame_that_is_too_small_is_named_with_the_region() -> None:
    words = (
        "region 40,0,32,32 does not lie within frames of 64x48 pixels; give one such as 8,0,48,48"
    )
    with refused(UsageError, words):
        Region.parse("40,0,32,32").of(FRAME)
    with refused(UsageError, "region 0%,0%,0.1%,0.1% does not lie within frames of 64x48"):
        Region.parse("0%,0%,0.1%,0.1%").of(FRAME)
