"""The gate: what passes is what moved, not noise, exposure or daylight."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from fgdeploy.camera.gate import ChangeGate
from fgdeploy.core.errors import UsageError
from tests.checks import refused

Pixels = npt.NDArray[np.uint8]
SCENE = np.random.default_rng(1).normal(110, 40, (18, 32, 3))


def scene(gain: float = 1.0, noise: float = 0.0, seed: int = 0, side: int = 0) -> Pixels:
    """Return a picture of 320 x 180 with a dark square of so many pixels in it."""
    picture = np.asarray(
        Image.fromarray(SCENE.clip(0, 170).astype(np.uint8)).resize((320, 180)), np.float64
    ).copy()
    picture[60 : 60 + side, 100 : 100 + side] = (10, 20, 10)
    picture = gain * picture + np.random.default_rng(seed).normal(0, noise, picture.shape)
    return picture.clip(0, 255).astype(np.uint8)


def test_the_first_passes_and_then_only_what_moved() -> None:
    gate = ChangeGate(0.02)
    assert gate.passes(scene())
    assert not gate.passes(scene())
    assert not gate.passes(scene(side=24))  # 1 % of the picture
    assert gate.passes(scene(side=44))  # 3.4 %
    assert not gate.passes(scene(side=44, noise=5, seed=3))
    assert gate.passes(scene())  # it left


def test_small_changes_add_up_against_the_last_that_passed() -> None:
    gate = ChangeGate(0.02)
    gate.passes(scene())
    passed = [gate.passes(scene(side=side)) for side in range(0, 60, 4)]
    assert 1 <= sum(passed) <= 3


@pytest.mark.parametrize("gain", [0.7, 0.85, 1.2, 1.4])
def test_exposure_and_noise_change_nothing(gain: float) -> None:
    gate = ChangeGate(0.02)
    gate.passes(scene(noise=8, seed=1))
    assert not gate.passes(scene(gain, noise=8, seed=2))


def test_jpeg_changes_nothing() -> None:
    gate = ChangeGate(0.02)
    gate.passes(scene(noise=4))
    for quality in (90, 60, 30):
        stored = io.BytesIO()
        Image.fromarray(scene(noise=4)).save(stored, "JPEG", quality=quality)
        assert not gate.passes(np.asarray(Image.open(stored)))


def test_a_slow_dusk_passes_a_frame_for_each_halving_at_most() -> None:
    gate = ChangeGate(0.02)
    gate.passes(scene())
    passed = sum(gate.passes(scene(gain)) for gain in np.geomspace(1, 1 / 8, 60))
    assert passed <= 4


def test_a_lamp_going_out_passes_even_where_all_is_one_colour() -> None:
    gate = ChangeGate(0.5)
    gate.passes(np.full((180, 320, 3), 200, np.uint8))
    assert not gate.passes(np.full((180, 320, 3), 150, np.uint8))
    assert gate.passes(np.full((180, 320, 3), 5, np.uint8))


def test_another_size_and_grey_frames_and_tiny_ones() -> None:
    gate = ChangeGate(1.0)
    assert gate.passes(np.zeros((4, 6), np.uint8))
    assert not gate.passes(np.zeros((4, 6, 3), np.uint8))
    assert gate.passes(np.zeros((1, 1, 3), np.uint8))


@pytest.mark.parametrize("share", [0, -0.1, 1.5, float("nan")])
def test_what_is_no_share(share: float) -> None:
    with refused(UsageError, "expected a share above 0, at most 1"):
        ChangeGate(share)
