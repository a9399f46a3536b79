"""16-bit pixels: the bits that count, said or refused, never a black photo without a word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgdeploy.core.errors import ImageError
from fgdeploy.photos.images import decode
from fgdeploy.photos.pixels import Reading
from tests.checks import refused
from tests.fgdeploy.pictures import pixels


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize(("depth", "high"), [(8, 255), (10, 1023), (12, 4095)])
def test_fewer_bits_in_a_sixteen_bit_file(
    tmp_path: Path, suffix: str, depth: int, high: int
) -> None:
    source = tmp_path / f"a.{suffix}"
    values = np.linspace(0, high, 24).astype(np.uint16).reshape(4, 6)
    Image.fromarray(values).save(source)
    said = Reading(bit_depth=depth)
    np.testing.assert_array_equal(
        pixels(decode(source, reading=said))[..., 0], values >> (depth - 8)
    )
    with refused(ImageError, rf"a\.{suffix}: 16-bit pixels reach up to {high} only; .*{depth} \("):
        decode(source)
    dark = decode(source, reading=Reading(bit_depth=16))  # as it is
    np.testing.assert_array_equal(pixels(dark)[..., 0], values >> 8)


def test_more_than_the_bits_that_were_said(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    Image.fromarray(np.full((4, 6), 5000, np.uint16)).save(source)
    assert pixels(decode(source)).max() == 5000 >> 8
    with refused(ImageError, r"a\.png: pixels reach up to 5000, more than 12 bits hold; give the"):
        decode(source, reading=Reading(bit_depth=12))


def test_black_is_black(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    Image.fromarray(np.zeros((4, 6), np.uint16)).save(source)
    assert pixels(decode(source)).max() == 0


def _rgb16_png(path: Path, value: int) -> Path:
    """Write a PNG of 16-bit colour, which Pillow itself does not write."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    rows = (b"\0" + struct.pack(">H", value) * 12) * 4
    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    return path


def test_sixteen_bit_colour(tmp_path: Path) -> None:
    assert pixels(decode(_rgb16_png(tmp_path / "a.png", 0x8012))).max() == 0x80
    dark = _rgb16_png(tmp_path / "b.png", 0xABC)
    for reading in (Reading(), Reading(bit_depth=12)):
        with refused(ImageError, r"b\.png: 16-bit colour of fewer bits than 16 cannot be read; co"):
            decode(dark, reading=reading)
    assert pixels(decode(dark, reading=Reading(bit_depth=16))).max() == 0xA
