"""The frames inside a bundle: they come back as they were, and nothing else is believed."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fgdeploy.bundle import Bundle, checks, open_bundle
from fgdeploy.bundle.checks import Checks, most_frames
from fgdeploy.core.errors import BundleError
from tests.checks import refused

AGAIN = r"; run: fgdeploy calibrate --again$"


def made(count: int = 3, size: int = 32) -> Checks:
    rng = np.random.default_rng(0)
    return Checks(
        rng.integers(0, 256, (count, size, size, 3), np.uint8),
        rng.standard_normal((count, 12)).astype(np.float32),
        rng.integers(0, 256, (count, 2), np.uint8),
        rng.integers(0, 256, (count, 2), np.uint8),
    )


def holding(folder: Path, content: bytes) -> Bundle:
    return open_bundle(folder).with_files({checks.FILE: content}, None)


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_what_is_written_is_read(own_bundle: Path) -> None:
    wanted = made()
    holding(own_bundle, wanted.to_bytes())
    found = checks.read(open_bundle(own_bundle))
    assert found is not None
    for name in ("frames", "hashes", "codes", "int8"):
        left, right = getattr(found, name), getattr(wanted, name)
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


def test_older_ones_have_no_int8_codes(own_bundle: Path) -> None:
    wanted = dataclasses.replace(made(), int8=None)
    holding(own_bundle, wanted.to_bytes())
    found = checks.read(open_bundle(own_bundle))
    assert found is not None and found.int8 is None
    np.testing.assert_array_equal(found.codes, wanted.codes)


@pytest.mark.parametrize("int8", [np.zeros((3, 1), np.uint8), np.zeros((3, 2), np.int8)])
def test_int8_codes_of_another_model(own_bundle: Path, int8: npt.NDArray[Any]) -> None:
    opened = holding(own_bundle, dataclasses.replace(made(), int8=int8).to_bytes())
    with refused(BundleError, r"which is not of this model" + AGAIN):
        checks.read(opened)


def test_a_bundle_without_any(toy_bundle: Path) -> None:
    assert checks.read(open_bundle(toy_bundle)) is None


@pytest.mark.parametrize(
    ("size", "count"), [(32, 64), (224, 64), (384, 37), (1024, 5), (2364, 1), (9999, 1)]
)
def test_how_many_a_bundle_carries(size: int, count: int) -> None:
    assert most_frames(size) == count
    assert count == 1 or 3 * size**2 * count <= 16 << 20


def _cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _flipped(content: bytes) -> bytes:
    """Damage the compressed data and leave the zip's table as it is."""
    middle = len(content) // 3
    return (
        content[:middle]
        + bytes(255 - byte for byte in content[middle : middle + 64])
        + (content[middle + 64 :])
    )


def _plain_array(content: bytes) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


def _foreign_zip(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("frames.npy", b"no array")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "damage", [_cut, _flipped, _plain_array, _foreign_zip, lambda content: b""], ids=str
)
def test_a_damaged_file(own_bundle: Path, damage: Callable[[bytes], bytes]) -> None:
    opened = holding(own_bundle, damage(made().to_bytes()))
    with refused(BundleError, r"own\.fgd/checks\.npz cannot be read \(.+\)" + AGAIN):
        checks.read(opened)


def test_a_file_that_vanished(own_bundle: Path) -> None:
    opened = holding(own_bundle, made().to_bytes())
    (own_bundle / checks.FILE).unlink()
    with refused(BundleError, r"checks\.npz cannot be read \(.*No such file.*\)" + AGAIN):
        checks.read(opened)


class Bomb:
    """What must never be unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("unpickled",)


def test_objects_are_never_unpickled(own_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    some = made()
    objects = np.array([Bomb()], dtype=object)
    opened = holding(own_bundle, npz(frames=objects, hashes=some.hashes, codes=some.codes))
    with refused(BundleError, "cannot be read" + r".*" + AGAIN):
        checks.read(opened)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frames": np.zeros((3, 16, 16, 3), np.uint8)}, r"uint8 \(3, 16, 16, 3\)"),
        ({"frames": np.zeros((2, 32, 32, 3), np.uint8)}, r"uint8 \(2, 32, 32, 3\)"),
        ({"frames": np.zeros((3, 32, 32, 3), np.float32)}, r"float32 \(3, 32, 32, 3\)"),
        ({"hashes": np.zeros((3, 13), np.float32)}, r"float32 \(3, 13\)"),
        ({"hashes": np.zeros((3, 12), np.float64)}, r"float64 \(3, 12\)"),
        ({"codes": np.zeros((3, 3), np.uint8)}, r"uint8 \(3, 3\)"),
        ({"codes": np.array("none")}, r"str\d+ \(\)"),
    ],
)
def test_arrays_of_another_model(own_bundle: Path, changes: dict[str, Any], words: str) -> None:
    some = made()
    arrays = {"frames": some.frames, "hashes": some.hashes, "codes": some.codes, **changes}
    opened = holding(own_bundle, npz(**arrays))
    with refused(BundleError, rf"checks\.npz holds .*{words}.*not of this model" + AGAIN):
        checks.read(opened)


def test_no_frames_at_all(own_bundle: Path) -> None:
    opened = holding(own_bundle, made(0).to_bytes())
    with refused(BundleError, r"holds uint8 \(0, 32, 32, 3\), .*not of this model" + AGAIN):
        checks.read(opened)


def test_an_array_that_is_missing(own_bundle: Path) -> None:
    opened = holding(own_bundle, npz(frames=made().frames, codes=made().codes))
    with refused(BundleError, r"cannot be read \(.*hashes.*\)" + AGAIN):
        checks.read(opened)
