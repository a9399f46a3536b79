"""Photos of every orientation, colour and format become upright RGB."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from fgdeploy.core.errors import ImageError
from fgdeploy.photos.images import decode
from tests.checks import refused
from tests.fgdeploy.pictures import RED, WHITE, only_colour, pixels, smooth

# --- orientation

TURNED_BACK: dict[int, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


@pytest.mark.parametrize(("suffix", "tolerance"), [("png", 0), ("tif", 0), ("jpg", 6)])
@pytest.mark.parametrize("orientation", TURNED_BACK)
def test_photo_is_turned_upright(
    tmp_path: Path, orientation: int, suffix: str, tolerance: int
) -> None:
    stored = smooth(48, 32)
    options: dict[str, Any] = {"quality": 98, "subsampling": 0} if tolerance else {}
    source = tmp_path / f"turned.{suffix}"
    Image.fromarray(stored).save(
        source,
        exif=exif_of(orientation),
        **options,
    )
    upright = pixels(decode(source))
    expected = TURNED_BACK[orientation](stored).astype(np.int32)
    assert upright.shape == expected.shape
    assert np.abs(upright - expected).max() <= tolerance


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientation_that_does_not_exist_is_ignored(tmp_path: Path, orientation: int) -> None:
    source = tmp_path / "a.png"
    Image.fromarray(smooth(48, 32)).save(source, exif=exif_of(orientation))
    np.testing.assert_array_equal(pixels(decode(source)), smooth(48, 32))


@pytest.mark.parametrize(
    "exif",
    [b"Exif\0\0", b"Exif\0\0no tiff at all", b"Exif\0\0MM\0\x2a\0\0\xff\xff", exif_of(6)[:-9]],
)
def test_damaged_exif_does_not_cost_the_photo(tmp_path: Path, exif: bytes) -> None:
    source = tmp_path / "a.jpg"
    Image.fromarray(smooth(48, 32)).save(source, exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of the damage
        assert decode(source).size in ((48, 32), (32, 48))


def exif_with_odd_comment() -> bytes:
    """Return EXIF that says orientation 6 and holds a type of value that Pillow cannot rewrite."""
    entries = [
        bytes.fromhex("0112 0003 00000001 00060000"),  # Orientation, SHORT, 6
        bytes.fromhex("8298 0005 00000001 00000026"),  # Copyright as a RATIONAL
    ]
    folder = len(entries).to_bytes(2, "big") + b"".join(entries) + bytes(4)
    return b"Exif\0\0MM\0\x2a\0\0\0\x08" + folder + bytes.fromhex("0000000100000002")


def test_odd_exif_tag_does_not_cost_a_turned_photo(tmp_path: Path) -> None:
    source = tmp_path / "a.jpg"
    Image.fromarray(smooth(48, 32)).save(source, exif=exif_with_odd_comment())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert decode(source).size == (32, 48)


# --- colour


def test_greyscale(tmp_path: Path) -> None:
    source = tmp_path / "a.jpg"
    Image.new("L", (20, 10), 77).save(source)
    assert only_colour(decode(source)) == (77, 77, 77)


def test_bilevel(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    Image.new("1", (20, 10), 1).save(source)
    assert only_colour(decode(source)) == WHITE


def palette_image() -> Image.Image:
    image = Image.new("P", (10, 10), 1)
    image.putpalette([0, 0, 0, *RED, 0, 255, 0])
    image.paste(2, (0, 0, 5, 10))
    return image


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_palette(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"a.{suffix}"
    palette_image().save(source)
    image = decode(source)
    assert (image.getpixel((0, 0)), image.getpixel((9, 9))) == ((0, 255, 0), RED)


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_palette_with_a_transparent_colour_lies_over_white(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"a.{suffix}"
    palette_image().save(source, transparency=2)
    image = decode(source)
    assert (image.getpixel((0, 0)), image.getpixel((9, 9))) == (WHITE, RED)


def test_palette_with_half_transparent_colours_lies_over_white(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    palette_image().save(source, transparency=bytes([255, 255, 128]))
    image = decode(source)
    assert image.getpixel((9, 9)) == RED
    assert np.abs(pixels(image)[0, 0] - (127, 255, 127)).max() <= 1


@pytest.mark.parametrize("mode", ["L", "RGB", "1"])
def test_transparent_colour_lies_over_white(tmp_path: Path, mode: str) -> None:
    source = tmp_path / "a.png"
    image = Image.new(mode, (6, 6), 0)
    image.save(source, transparency=(0, 0, 0) if mode == "RGB" else 0)
    assert only_colour(decode(source)) == WHITE


def test_cmyk_jpeg(tmp_path: Path) -> None:
    source = tmp_path / "a.jpg"
    Image.new("CMYK", (32, 32), (0, 255, 255, 0)).save(source, quality=95)
    with Image.open(source) as stored:
        assert stored.mode == "CMYK"
    for image in (decode(source), decode(source, shortest=8)):
        red, green, blue = only_colour(image)
        assert red >= 250 and green <= 5 and blue <= 5


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_greyscale_keeps_the_high_byte(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"a.{suffix}"
    values = np.array([[0, 255, 256, 0x8000], [0x80FF, 0xFF00, 0xFFFF, 0x1234]], np.uint16)
    Image.fromarray(values).save(source)
    np.testing.assert_array_equal(pixels(decode(source))[..., 0], values >> 8)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_sixteen_bit_image_in_memory(mode: str) -> None:
    image = Image.new(mode, (3, 2))
    for x in range(3):
        image.putpixel((x, 1), 0x4000 * x + 0x37)
    assert pixels(decode(image))[1, :, 2].tolist() == [0x00, 0x40, 0x80]


@pytest.mark.parametrize("value", [-1, 65536])
def test_pixels_beyond_sixteen_bits_are_refused(value: int) -> None:
    image = Image.new("I", (2, 2), value)
    with refused(ImageError, rf"pixels reach from {value} to {value}; expected 0..65535; convert"):
        decode(image)


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("LA", (100, 255), (100, 100, 100)),
        ("LA", (100, 0), WHITE),
        ("LA", (0, 51), (204, 204, 204)),
        ("RGBA", (*RED, 255), RED),
        ("RGBA", (*RED, 0), WHITE),
        ("RGBA", (0, 0, 255, 51), (204, 204, 255)),
    ],
)
def test_alpha_lies_over_white(
    tmp_path: Path, mode: str, colour: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    source = tmp_path / "a.png"
    Image.new(mode, (8, 8), colour).save(source)
    with Image.open(source) as opened:
        for image in (decode(source), decode(opened)):
            assert np.abs(np.subtract(only_colour(image), expected)).max() <= 1


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "gif", "tif", "ppm", "jp2"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"a.{suffix}"
    Image.new("RGB", (16, 16), RED).save(source)
    assert np.abs(pixels(decode(source)) - RED).max() <= 4


@pytest.mark.parametrize("suffix", ["png", "tif", "gif", "bmp", "mpo"])
def test_any_format_can_be_the_first_of_a_process(tmp_path: Path, suffix: str) -> None:
    """Pillow loads its plugins step by step, so what comes first may find others missing."""
    source = tmp_path / f"a.{suffix}"
    image = Image.new("RGB", (16, 16), RED)
    if suffix == "mpo":
        image.save(source, save_all=True, append_images=[image])
    else:
        image.save(source)
    program = (
        "import sys; from fgdeploy.photos import images; print(images.decode(sys.argv[1]).size)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, source], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "(16, 16)"), done.stderr


def test_first_picture_of_several_counts(tmp_path: Path) -> None:
    for name in ("a.mpo", "a.jpg", "a.gif", "a.tif"):
        first, second = (Image.new("RGB", (16, 16), colour) for colour in (RED, (0, 0, 255)))
        kind = "MPO" if name == "a.jpg" else None
        first.save(tmp_path / name, kind, save_all=True, append_images=[second])
        assert np.abs(np.subtract(only_colour(decode(tmp_path / name)), RED)).max() <= 3, name
