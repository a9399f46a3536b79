"""Codes that stay the same."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from fgdeploy.camera.camera import Camera
from fgdeploy.camera.constancy import Constancy
from tests.fgdeploy.camera.feeds import Feed, HeldEngine, hasher_on

SIZE = 64


def scene(number: int, noise: int = 0) -> npt.NDArray[np.uint8]:
    """Return a picture of blocks, another one for each number, with some noise."""
    blocks = np.random.default_rng(number).integers(0, 200, (8, 8, 3), np.uint8)
    picture = blocks.repeat(SIZE // 8, axis=0).repeat(SIZE // 8, axis=1)
    if noise:
        picture += np.random.default_rng(1000 + noise).integers(0, 6, picture.shape, np.uint8)
    return picture


def test_different_frames_with_one_code_are_noticed_once() -> None:
    constancy = Constancy(frames=10)
    found = [constancy.noticed(b"x", scene(number)) for number in range(40)]
    assert [place for place, noticed in enumerate(found) if noticed] == [9]


def test_a_scene_that_stands_still_is_not_noticed() -> None:
    constancy = Constancy(frames=3)
    assert not any(constancy.noticed(b"x", scene(0, noise)) for noise in range(1, 100))


def test_light_that_fades_is_not_noticed() -> None:
    constancy = Constancy(frames=3)
    still = scene(0).astype(np.float64)
    faded = [(still * share).astype(np.uint8) for share in np.linspace(1, 0.8, 50)]
    assert not any(constancy.noticed(b"x", frame) for frame in faded)


def test_a_code_that_changes_now_and_then_begins_anew() -> None:
    constancy = Constancy(frames=10)
    found = [constancy.noticed(b"xy"[place // 9 % 2 :][:1], scene(place)) for place in range(90)]
    assert not any(found)


def test_the_camera_says_so(caplog: pytest.LogCaptureFixture) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (250, 8, 8, 3), np.uint8)
    frames[:, 0, 0] = 7  # all that the engine looks at
    camera = Camera(Feed(frames, live=False, ends=True), hasher_on(HeldEngine()))
    assert len({result.code for result in camera}) == 1
    assert caplog.text.count("constant_codes") == 1
