from __future__ import annotations

import os
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
from tests.fgdeploy.pictures import RED, WHITE, only_colour, pixels, preprocess, smooth

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


# --- arrays


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.full((5, 7), 9, np.uint8), (9, 9, 9)),
        (np.full((5, 7, 3), RED, np.uint8), RED),
        (np.full((5, 7, 4), (*RED, 255), np.uint8), RED),
        (np.full((5, 7, 4), (*RED, 0), np.uint8), WHITE),
        (np.full((10, 14, 3), RED, np.uint8)[::2, ::-2], RED),
    ],
)
def test_arrays(array: npt.NDArray[np.uint8], expected: tuple[int, ...]) -> None:
    image = decode(array)
    assert image.size == (7, 5)
    assert only_colour(image) == expected


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((5, 7, 3), np.float32),
        np.zeros((5, 7, 3), np.uint16),
        np.zeros((5, 7, 3), np.int64),
        np.zeros((5, 7, 3), bool),
        np.zeros((5, 7, 1), np.uint8),
        np.zeros((5, 7, 2), np.uint8),
        np.zeros((3, 5, 7), np.uint8),
        np.zeros((2, 5, 7, 3), np.uint8),
        np.zeros(7, np.uint8),
        np.zeros((), np.uint8),
        np.array([[None]]),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_other_arrays_are_refused(array: npt.NDArray[Any]) -> None:
    got = rf"got {array.dtype} \({', '.join(map(str, array.shape))},?\)"
    with refused(ImageError, rf"expected a uint8 array .*{got}; convert it first"):
        decode(array)


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (0, 0)])
def test_array_without_pixels_is_refused(shape: tuple[int, ...]) -> None:
    with refused(ImageError, r"expected an image with pixels, got an array of shape \("):
        decode(np.zeros(shape, np.uint8))


def test_array_given_is_not_changed() -> None:
    array = smooth(20, 10)
    array.flags.writeable = False
    image = decode(array)
    image.putpixel((0, 0), (1, 2, 3))
    np.testing.assert_array_equal(array, smooth(20, 10))


def test_pillow_image_given_is_not_changed() -> None:
    image = Image.fromarray(smooth(20, 10))
    decode(image).putpixel((0, 0), (1, 2, 3))
    np.testing.assert_array_equal(pixels(image), smooth(20, 10))


# --- what is refused


def test_float_pixels_are_refused() -> None:
    with refused(ImageError, r"32-bit float pixels have no defined range; convert to 8 or 16 bit"):
        decode(Image.new("F", (4, 4)))


@pytest.mark.parametrize(("mode", "value"), [("F", 0), ("I", -5)])
def test_refused_pixels_name_their_file(tmp_path: Path, mode: str, value: int) -> None:
    source = tmp_path / "depth.tif"
    Image.new(mode, (4, 4), value).save(source)
    with refused(ImageError, r"depth\.tif.*convert to 8 or 16 bit"):
        decode(source)


def test_missing_file(tmp_path: Path) -> None:
    with refused(ImageError, r"/no\.jpg: no such file; check the path$"):
        decode(tmp_path / "no.jpg")


def test_path_may_be_text(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4), RED).save(tmp_path / "a.png")
    assert only_colour(decode(str(tmp_path / "a.png"))) == RED
    with refused(ImageError, r"/no\.jpg: no such file; check the path$"):
        decode(str(tmp_path / "no.jpg"))


def test_folder_is_no_image(tmp_path: Path) -> None:
    folder = tmp_path / "folder.jpg"
    folder.mkdir()
    with refused(ImageError, r"folder\.jpg is a folder; expected an image file"):
        decode(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_read_permission(tmp_path: Path) -> None:
    source = tmp_path / "locked.jpg"
    Image.new("RGB", (4, 4)).save(source)
    source.chmod(0)
    with refused(ImageError, r"locked\.jpg: not readable \(permission denied\); check its rights"):
        decode(source)


def test_permission_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", forbid)
    with refused(ImageError, r"^a\.jpg: not readable \(permission denied\); check its rights$"):
        decode("a.jpg")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"this is no photo\n",
        b"<html><body>404 Not Found</body></html>",
        b"\xff\xd8\xff",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",  # Pillow would start Ghostscript
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
    ],
    ids=["empty", "text", "html", "jpeg marker only", "postscript", "svg"],
)
def test_file_that_is_no_image(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "a.jpg"
    source.write_bytes(content)
    with refused(ImageError, r"a\.jpg is (not an image .*; remove it or convert|damaged .*; repl)"):
        decode(source)


def test_text_named_jpg(tmp_path: Path) -> None:
    source = tmp_path / "a.jpg"
    source.write_text("this is no photo\n")
    with refused(ImageError, r"a\.jpg is not an image .*known: JPEG, .*; remove it or convert it"):
        decode(source)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "gif", "bmp"])
def test_file_cut_short(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"cut.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(source)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    with refused(ImageError, rf"cut\.{suffix} is (damaged|not an image).*; (replace|remove)"):
        preprocess().frame(source)


def test_pillow_image_of_a_file_cut_short(tmp_path: Path) -> None:
    source = tmp_path / "cut.jpg"
    Image.fromarray(smooth(64, 64)).save(source)
    source.write_bytes(source.read_bytes()[:-200])
    with (
        Image.open(source) as image,
        refused(
            ImageError,
            "the image in memory is damaged or unreadable: .*; replace the file",
        ),
    ):
        decode(image)


def test_changed_bytes_raise_nothing_but_image_errors(tmp_path: Path) -> None:
    chooser = np.random.default_rng(7)
    frames = 0
    for suffix in ("jpg", "png", "gif", "tif", "bmp", "webp"):
        source = tmp_path / f"a.{suffix}"
        Image.fromarray(smooth(24, 16)).save(source)
        whole = np.frombuffer(source.read_bytes(), np.uint8)
        for _ in range(60):
            changed = whole.copy()
            changed[chooser.integers(0, len(whole), 3)] = chooser.integers(0, 256, 3)
            source.write_bytes(changed.tobytes())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    frames += preprocess().frame(source).shape == (32, 32, 3)
                except ImageError as error:
                    assert source.name in str(error) and "\n" not in str(error)
    assert frames > 0


def test_path_with_a_zero_byte_is_refused() -> None:
    with refused(ImageError, r"a.b\.jpg is damaged or unreadable: .*; replace the file"):
        decode("a\0b.jpg")


@pytest.mark.parametrize("source", [None, 3, object()])
def test_what_is_no_image_at_all_is_refused(source: Any) -> None:
    with refused(ImageError, r"a uint8 array or a Pillow image, got (NoneType|int|object)"):
        decode(source)


def test_name_with_a_newline_stays_on_one_line() -> None:
    with refused(ImageError, r"no such file; check the path"):
        decode("a\nb.jpg")
