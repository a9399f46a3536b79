"""Two engines on the same photos: what both see, what is left out, which are chosen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgdeploy.bundle import Bundle
from fgdeploy.core.errors import (
    DataError,
    EngineError,
    ImageError,
)
from fgdeploy.photos import Photo
from fgdeploy.proof import comparing
from fgdeploy.proof.comparing import choose_candidate, compare_engines, limits_for
from fgdeploy.proof.limits import FP32_LIMITS, LIMITS
from tests.checks import ColourEngine, colour_bundle, refused

SIZE = 8


@pytest.fixture
def bundle() -> Bundle:
    return colour_bundle()


@pytest.fixture
def photos(tmp_path: Path) -> list[Photo]:
    made = []
    rng = np.random.default_rng(0)
    for number in range(20):
        path = tmp_path / f"{number:02d}.png"
        pixels = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        pixels[0, 0] = (number * 11, 255 - number, number)
        Image.fromarray(pixels).save(path)
        made.append(Photo(path, f"class {number % 3}"))
    return made


def test_both_engines_see_the_same_frames(bundle: Bundle, photos: list[Photo]) -> None:
    left, right = ColourEngine(bundle.manifest), ColourEngine(bundle.manifest, error=0.125)
    seen: list[tuple[int, int]] = []
    found = compare_engines(
        bundle, left, right, photos, progress=lambda done, total: seen.append((done, total))
    )
    result, skipped = found.parity, found.skipped
    assert (found.variety.photos, found.variety.different, found.warnings) == (20, 20, [])
    assert [len(batch) for batch in left.batches] == [8, 8, 4]
    for one, other in zip(left.batches, right.batches, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (result.photos, skipped) == (20, [])
    assert (result.max_hash_diff, result.bit_agreement) == (0.125, 1.0)
    assert result.map_drop == 0
    assert seen == [(8, 20), (16, 20), (20, 20)]


def test_engines_that_differ(bundle: Bundle, photos: list[Photo]) -> None:
    left, right = ColourEngine(bundle.manifest), ColourEngine(bundle.manifest, flip=1)
    result = compare_engines(bundle, left, right, photos).parity
    assert result.bit_agreement == pytest.approx(21 / 24)
    assert (result.identical_codes, result.clear_bits_differ) == (0, 60)
    assert result.breaches(FP32_LIMITS) == ["bit agreement is 0.875, limit >= 0.999"]


def test_unreadable_photos_are_left_out_of_both(bundle: Bundle, photos: list[Photo]) -> None:
    for number in (0, 9, 19):
        photos[number].path.write_text("no image")
    left, right = ColourEngine(bundle.manifest), ColourEngine(bundle.manifest)
    found = compare_engines(bundle, left, right, photos)
    result, skipped = found.parity, found.skipped
    assert result.photos == 17
    for name, reason in zip(("00.png", "09.png", "19.png"), skipped, strict=True):
        assert name in reason
    kept = [int(photo.path.stem) for n, photo in enumerate(photos) if n not in (0, 9, 19)]
    assert [int(blue) for batch in left.batches for blue in batch[:, 0, 0, 2]] == kept
    with refused(ImageError, r"00\.png is not an image that can be read .*; remove it or convert"):
        compare_engines(bundle, left, right, photos, strict=True)


def test_no_photo_can_be_read(bundle: Bundle, tmp_path: Path) -> None:
    engine = ColourEngine(bundle.manifest)
    gone = [Photo(tmp_path / "gone.png"), Photo(tmp_path / "lost.png")]
    words = r"^none of 2 photos can be read; the first: .*gone\.png: no such file; check the path$"
    with refused(DataError, words):
        compare_engines(bundle, engine, engine, gone)


def test_no_photos(bundle: Bundle) -> None:
    engine = ColourEngine(bundle.manifest)
    with refused(DataError, "^there are no photos to compare; check the list$"):
        compare_engines(bundle, engine, engine, [])


def test_the_other_engine_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "available", lambda: ["onnxruntime", "openvino"])
    assert choose_candidate("onnxruntime:fp32") == "openvino:fp32"
    assert choose_candidate("openvino") == "onnxruntime:fp32"
    assert choose_candidate("pytorch") == "onnxruntime:fp32"
    monkeypatch.setattr(comparing, "available", lambda: ["openvino"])
    words = r"no second engine .*; run: pip install \"fgdeploy\[cpu\]\", or name one with --candid"
    with refused(EngineError, words):
        choose_candidate("openvino:fp32")


def test_alike_photos_count_once(bundle: Bundle, photos: list[Photo]) -> None:
    left, right = ColourEngine(bundle.manifest), ColourEngine(bundle.manifest, flip=1)
    found = compare_engines(bundle, left, right, [*photos[:10], *(photos[:1] * 90)])
    assert (found.variety.photos, found.variety.different, found.parity.photos) == (100, 10, 10)
    few = compare_engines(bundle, left, right, photos[:3])
    (warning,) = few.warnings
    assert warning.startswith("3 different photos to compare on prove little")
    assert few.parity.photos == 3
    with refused(DataError, "^90 photos to compare on, but only 1 different: "):
        compare_engines(bundle, left, right, photos[:1] * 90)


def test_the_limits_are_those_of_the_least_exact(bundle: Bundle) -> None:
    manifest = dataclasses.replace(bundle.manifest, limits=FP32_LIMITS.to_json())
    bundle = dataclasses.replace(bundle, manifest=manifest)
    full, reduced = ColourEngine(manifest), ColourEngine(manifest)
    reduced.precision = "fp16"
    assert limits_for(bundle, 5000, full, full).limits == FP32_LIMITS
    for pair in ((full, reduced), (reduced, full)):
        assert limits_for(bundle, 5000, *pair).limits == LIMITS["fp16"]
