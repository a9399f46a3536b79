"""How many photos really differ, on members of the kind: many photos that are one."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from fgdeploy.core.errors import DataError
from fgdeploy.core.text import counted
from fgdeploy.demo.moths import write_moths
from fgdeploy.photos import Preprocess, decode_all, read
from fgdeploy.proof import variety
from tests.birds import BIRDS, NEEDS_BIRDS
from tests.checks import refused

Frames = npt.NDArray[np.uint8]
SIDE, COUNT = 96, 40
MAKE = Preprocess(SIDE, SIDE, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def moths(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    """Forty drawn moths of five kinds."""
    folder = write_moths(tmp_path_factory.mktemp("moths"), 5, 8, size=128)
    return decode_all(read(folder), MAKE, [])[1]


def _noisy(frames: Frames, sigma: float) -> Frames:
    noise = np.random.default_rng(0).normal(0, sigma, frames.shape)
    return np.clip(frames + noise, 0, 255).astype(np.uint8)


def _exposed(one: Frames) -> Frames:
    """Return one scene in another light each time."""
    gains = np.linspace(0.75, 1.0, COUNT)[:, None, None, None]
    return _noisy(one * gains, 3)


def _shifted(one: Frames) -> Frames:
    places = [(row, column) for row in range(2) for column in range(2)]
    return np.stack([np.roll(one, places[n % 4], axis=(0, 1)) for n in range(COUNT)])


def _saved_again(one: Frames) -> Frames:
    found = []
    for number in range(COUNT):
        buffer = io.BytesIO()
        Image.fromarray(one).save(buffer, "jpeg", quality=40 + number)
        found.append(np.asarray(Image.open(buffer)))
    return np.stack(found)


ALIKE: dict[str, Callable[[Frames], Frames]] = {
    "copies": lambda one: np.repeat(one[None], COUNT, axis=0),
    "a camera that saw nothing move": lambda one: _noisy(np.repeat(one[None], COUNT, axis=0), 8),
    "another exposure": _exposed,
    "moved by a pixel": _shifted,
    "another JPEG quality": _saved_again,
    "black": lambda one: np.zeros((COUNT, SIDE, SIDE, 3), np.uint8),
    "black with noise": lambda one: _noisy(np.zeros((COUNT, SIDE, SIDE, 3), np.uint8), 6),
    "white with noise": lambda one: _noisy(np.full((COUNT, SIDE, SIDE, 3), 250, np.uint8), 6),
    "noise alone": lambda one: np.random.default_rng(0).integers(
        0, 256, (COUNT, 2 * SIDE, 2 * SIDE, 3), np.uint8
    ),
    "flat greys": lambda one: np.broadcast_to(
        np.arange(COUNT, dtype=np.uint8)[:, None, None, None] * 6, (COUNT, SIDE, SIDE, 3)
    ),
}


@pytest.mark.parametrize("kind", ALIKE)
def test_many_photos_that_are_one(moths: Frames, kind: str) -> None:
    frames = ALIKE[kind](moths[3])
    assert len(frames) == COUNT
    assert variety.different(variety.sketch(frames)) == [0]
    with refused(DataError, "^40 photos to check with, but only 1 different: the others look like"):
        variety.check_enough(COUNT, 1, "to check with")


def test_photos_of_five_kinds_all_differ(moths: Frames) -> None:
    sketches = variety.sketch(moths)
    assert variety.different(sketches) == list(range(COUNT))
    assert variety.different(sketches[:8], sketches[4:]) == [0, 1, 2, 3]
    assert variety.different(sketches[:0]) == []


@pytest.mark.parametrize("birds", [pytest.param(None, marks=NEEDS_BIRDS)])
def test_real_photos_of_one_kind_all_differ(birds: None) -> None:
    photos = [photo for photo in read(BIRDS / "split.csv") if "000." in (photo.label or "")]
    frames = decode_all(photos, MAKE, [])[1]
    assert len(photos) > 40
    assert variety.different(variety.sketch(frames)) == list(range(len(photos)))


@pytest.mark.parametrize("side", [1, 7, 10, 11, 224])
def test_any_size_of_frame(side: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), np.uint8)
    rows = variety.sketch(frames)
    assert rows.shape == (3, min(side, 10) ** 2) and np.isfinite(rows).all()


def test_what_codes_say() -> None:
    codes = np.array([[0b11110000], [0b11110001], [0b11110001], [0b00000000]], np.uint8)
    found = variety.measure(9, codes, 8)
    assert (found.photos, found.different, found.codes) == (9, 4, 3)
    assert found.moving_bits == 5 / 8
    apart = [1, 1, 4, 0, 5, 5]  # bits, of the six pairs
    assert found.distance == pytest.approx(sum(apart) / 6 / 8)
    assert found.words() == "9 photos, 4 different, codes 33% of bits apart"
    assert variety.measure(1, codes[:1], 8).distance is None


@pytest.mark.parametrize(("count", "photos"), [(1, 1), (3, 4), (7, 13)])
def test_few_photos_are_warned_of(count: int, photos: int) -> None:
    (line,) = variety.check_enough(photos, count, "to compare on")
    assert line.startswith(f"{counted(count, 'different photo')} to compare on prove little")
    assert variety.check_enough(1000, 8, "to compare on") == []


def test_codes_that_hardly_differ() -> None:
    rng = np.random.default_rng(0)
    assert variety.check_spread(variety.measure(64, _codes(rng, 0.5), 64), "to check with") == []
    (line,) = variety.check_spread(variety.measure(64, _codes(rng, 0.05), 64), "to check with")
    assert "on average 8.8% of bits apart" in line and "(photos of many kinds: 30 to 50 %)" in line
    for share in (0.0, 0.003):
        with refused(
            DataError, r"^64 photos to check with have \d+ different codes?, on average 0"
        ):
            variety.check_spread(variety.measure(64, _codes(rng, share), 64), "to check with")


def _codes(rng: np.random.Generator, share: float) -> npt.NDArray[np.uint8]:
    """Return 64 codes of 64 bits, each of them set in a share of the codes."""
    return np.packbits(rng.random((64, 64)) < share, axis=1)
