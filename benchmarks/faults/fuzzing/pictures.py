"""Photos: truncated, flipped, of odd modes and suffixes, 16 bit, odd EXIF, sizes that lie."""

from __future__ import annotations

import functools
import io
import random
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from fuzzing import oracles
from fuzzing.mutations import damaged
from fuzzing.running import Outcome
from fuzzing.world import BUNDLE, INDEX, PHOTOS, Attempt, World

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF")
_SUFFIXES = dict(
    zip(_FORMATS, ".jpg .png .webp .bmp .gif .tif .ppm .jp2 .avif".split(), strict=True)  # noqa: SIM905
)
_MODES = (
    "RGB",
    "RGB",
    "RGB",
    "L",
    "1",
    "P",
    "RGBA",
    "LA",
    "CMYK",
    "I;16",
    "I",
    "F",
    "YCbCr",
    "LAB",
    "HSV",
    "RGBX",
)


def attempt(chooser: random.Random, world: World) -> Attempt:
    """Put an odd photo among the good ones, and hash, store or look for it."""
    form = chooser.choice(_FORMATS)
    mode, content, written = _photo(chooser, form)
    way = chooser.choice(list(_WAYS))
    content = _WAYS[way](chooser, content)
    suffix = chooser.choice(
        (_SUFFIXES[written],) * 6 + (".jpg", ".PNG", ".jpeg", ".tiff", ".heic", ".txt", "", ".cr2")
    )
    name = f"{PHOTOS}/wren/odd{suffix}"
    (world.room / name).write_bytes(content)
    command, judge = chooser.choice(
        (
            (("hash", PHOTOS, "-b", BUNDLE, "-o", "new.npz"), _hashed),
            (("index", "add", INDEX, PHOTOS, "-b", BUNDLE), _added),
            (("search", name, "-i", INDEX, "-b", BUNDLE, "--json"), _searched),
        )
    )
    return Attempt(
        f"{written} {mode} as {suffix}: {way}", command, lambda outcome: judge(world, name, outcome)
    )


def _photo(chooser: random.Random, form: str) -> tuple[str, bytes, str]:
    """Return the mode, the content and the format of an image that is as asked for, or nearly."""
    pixels = np.random.default_rng(chooser.randrange(1 << 30)).integers(0, 256, (5, 6, 3), np.uint8)
    size = chooser.choice(((48, 40), (48, 40), (1, 1), (1, 400), (400, 1), (33, 200), (7, 7)))
    image = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
    mode = chooser.choice(_MODES)
    for made, into, more in (
        (mode, form, _extras(chooser, image)),
        (mode, "PNG", {}),
        (mode, "TIFF", {}),
        ("RGB", form, {}),
    ):
        target = io.BytesIO()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _in_mode(image, made).save(target, into, **more)
            return made, target.getvalue(), into
        except Exception:  # encoders raise anything for what they cannot write
            continue
    raise AssertionError(f"{form} cannot be written")


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if mode == "LAB":
        return Image.merge("LAB", image.split())
    return image.convert(mode)


def _extras(chooser: random.Random, image: Image.Image) -> dict[str, Any]:
    """Return what else is written: EXIF, several frames, progressive, transparency."""
    exif = Image.Exif()
    exif[0x0112] = chooser.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 255, 65535))
    return chooser.choice(
        (
            {},
            {"exif": exif.tobytes()},
            {"exif": b"Exif\0\0" + chooser.randbytes(40)},
            {"exif": damaged(chooser, exif.tobytes())[1]},
            {"save_all": True, "append_images": [image.rotate(90), image]},
            {"progressive": True, "quality": 30},
            {"transparency": 0},
            {
                "compression": chooser.choice(
                    ("tiff_lzw", "jpeg", "group4", "packbits", "tiff_deflate")
                )
            },
            {"icc_profile": chooser.randbytes(200)},
        )
    )


# What is done to the file


def _lie(chooser: random.Random, whole: bytes) -> bytes:
    """Let the header declare another size."""
    side = chooser.choice((0, 1, 100, 9000, 20_000, 65_535, 2**31 - 1, 2**32 - 1))
    for magic, lie in _LIES.items():
        if whole.startswith(magic):
            return lie(bytearray(whole), side, chooser.choice((side, 1, 40)))
    return damaged(chooser, whole)[1]


def _lie_png(whole: bytearray, width: int, height: int) -> bytes:
    whole[16:24] = struct.pack(">II", width, height)
    whole[29:33] = struct.pack(">I", zlib.crc32(whole[12:29]))
    return bytes(whole)


def _lie_jpeg(whole: bytearray, width: int, height: int) -> bytes:
    place = max(whole.find(b"\xff\xc0"), whole.find(b"\xff\xc2"))
    if place > 0:
        whole[place + 5 : place + 9] = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
    return bytes(whole)


_LIES: dict[bytes, Callable[[bytearray, int, int], bytes]] = {
    b"\x89PNG": _lie_png,
    b"\xff\xd8": _lie_jpeg,
    b"GIF8": lambda whole, w, h: bytes(
        whole[:6] + struct.pack("<HH", w & 0xFFFF, h & 0xFFFF) + whole[10:]
    ),
    b"BM": lambda whole, w, h: bytes(
        whole[:18] + struct.pack("<II", w & 0xFFFFFFFF, h & 0xFFFFFFFF) + whole[26:]
    ),
    b"P6": lambda whole, w, h: b"P6\n%d %d\n255\n" % (w, h) + bytes(whole[-300:]),
    b"P5": lambda whole, w, h: b"P5\n%d %d\n255\n" % (w, h) + bytes(whole[-300:]),
}

_WAYS: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "as it is": lambda chooser, whole: whole,
    "as it was": lambda chooser, whole: whole,
    "damaged": lambda chooser, whole: damaged(chooser, whole)[1],
    "cut off": lambda chooser, whole: whole[: chooser.randrange(len(whole))],
    "a few bytes cut off": lambda chooser, whole: whole[: -chooser.choice((1, 2, 4, 12, 30))],
    "a size that lies": _lie,
}


# What is right


@functools.cache
def _hasher(bundle: Path) -> Any:
    import fgdeploy

    return fgdeploy.load(bundle)


def _code(world: World, name: str) -> bytes | None:
    """Return the code of what Pillow alone makes of a photo, None for what has no colours."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(world.room / name, formats=_FORMATS)
            image.load()
            pixels = _colours(image)
    except Exception:
        return None
    return (
        None
        if pixels is None
        else bytes(_hasher(world.folder / "template" / BUNDLE).encode(pixels)[0])
    )


def _colours(image: Image.Image) -> Any:
    try:
        turn = image.getexif().get(0x0112)
    except Exception:  # it does not make a photo unreadable
        turn = 1
    plain = image.copy()
    plain.info = {key: value for key, value in image.info.items() if key == "transparency"}
    exif = Image.Exif()
    exif[0x0112] = turn if turn in range(2, 9) else 1
    plain.info["exif"] = exif.tobytes()
    upright = ImageOps.exif_transpose(plain)
    if upright.mode == "F":
        return None
    if upright.mode.startswith("I"):
        values = np.asarray(upright)
        if values.min() < 0 or values.max() > 65535:
            return None
        return np.repeat((values >> 8).astype(np.uint8)[..., None], 3, axis=2)
    if upright.mode in ("LA", "PA", "RGBA") or "transparency" in upright.info:
        colour = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", colour.size, "white"), colour)
    return np.asarray(upright.convert("RGB"))


def _hashed(world: World, name: str, outcome: Outcome) -> str | None:
    if wrong := oracles.wrong_codes(world, world.room / "new.npz", world.photos, [name]):
        return wrong
    with np.load(world.room / "new.npz", allow_pickle=False) as held:
        found = {
            str(path): bytes(code) for path, code in zip(held["paths"], held["codes"], strict=True)
        }
    return _wrong(world, name, found.get(name), outcome)


def _added(world: World, name: str, outcome: Outcome) -> str | None:
    if wrong := oracles.wrong_index(world, []):
        return wrong
    whole = str(world.room / name)
    found = [
        item["code"]
        for item in oracles.stored(world.room / INDEX).values()
        if item["path"] == whole
    ]
    return _wrong(world, name, found[0] if found else None, outcome)


def _wrong(world: World, name: str, code: bytes | None, outcome: Outcome) -> str | None:
    """Return what is wrong with a photo's code, or that it is lost without a word."""
    right = _code(world, name)
    if code is None:
        known = Path(name).suffix.lower() not in (".txt", "")
        return "lost without a word" if known and Path(name).name not in outcome.err else None
    if right is None:
        return "what Pillow cannot read is hashed"
    return None if code == right else f"code {code.hex()}, expected {right.hex()}"


def _searched(world: World, name: str, outcome: Outcome) -> str | None:
    right = _code(world, name)
    if right is None:
        return "what Pillow cannot read is looked for"
    return oracles.wrong_hits(outcome.out, oracles.ranking(right, world.items, None))
