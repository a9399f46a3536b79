"""A frame with what was seen in it: the region in it, and below the verdict and some facts."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from fgdeploy.core.text import one_line

LARGEST = 1280  # pixels of the longer side of an annotated frame
_ORANGE, _DARK, _WHITE = (230, 159, 0), (16, 16, 16), (255, 255, 255)
_LONGEST = 400  # characters that are looked at at all
Box = tuple[int, int, int, int]
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Note:
    """What to write on a frame: the verdict in large letters, facts in small ones below.

    box: left, top, right, bottom of the region in pixels of the frame, or None.
    """

    title: str
    facts: Sequence[str] = ()
    box: Box | None = None


def annotated(pixels: npt.NDArray[np.uint8], color: str, note: Note) -> Image.Image:
    """Return a frame (H, W, 3) or (H, W) as a picture with its note below, both sides even.

    color: `rgb` or `bgr`. It is scaled down to LARGEST pixels. Any text will do: what the letters
    cannot show stands as an escape, what is too long ends in an ellipsis.
    """
    frame = _image(pixels, color)
    scale = min(1.0, LARGEST / max(frame.size))
    width, height = (max(2, round(side * scale) // 2 * 2) for side in frame.size)
    across, down = width / frame.width, height / frame.height
    rows = _rows(height, note)
    below = sum(letters + letters // 2 for _, letters, _ in rows)
    picture = Image.new("RGB", (width, height + below // 2 * 2 + 2), _DARK)
    picture.paste(frame.resize((width, height), Image.Resampling.BILINEAR))
    pen = ImageDraw.Draw(picture)
    if note.box is not None:
        left, top, right, bottom = note.box
        left, top = int(left * across), int(top * down)
        right, bottom = (int(right * across) - 1, int(bottom * down) - 1)
        sides = (left, top, max(left, right), max(top, bottom))
        for colour, line in ((_DARK, 4), (_ORANGE, 2)):
            pen.rectangle(sides, outline=colour, width=line)
    place, edge = height, max(4, height // 72)
    for text, letters, colour in rows:
        font = _font(letters)
        pen.text((edge, place), _fitting(text, font, letters, width - 2 * edge), colour, font)
        place += letters + letters // 2
    return picture


def _rows(height: int, note: Note) -> list[tuple[str, int, tuple[int, int, int]]]:
    """Return the lines below a frame: text, size of its letters in pixels, colour."""
    large, small = max(10, height // 20), max(8, height // 36)
    return [(note.title, large, _ORANGE), *((fact, small, _WHITE) for fact in note.facts)]


def _image(pixels: npt.NDArray[np.uint8], color: str) -> Image.Image:
    if pixels.ndim == 3 and color == "bgr":
        pixels = pixels[..., ::-1]
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")


@functools.lru_cache(maxsize=16)
def _font(letters: int) -> _Font:
    return ImageFont.load_default(letters)


@functools.lru_cache(maxsize=256)
def _fitting(text: str, font: _Font, letters: int, width: int) -> str:
    """Return a text as the font can show it, cut to a width in pixels."""
    line = one_line(text.encode("utf-8", "backslashreplace").decode(), _LONGEST)
    shown = "".join(c if _has(font, letters, c) else _escaped(c) for c in line)
    if font.getlength(shown) <= width:
        return shown
    low, high = 0, len(shown)
    while low < high:  # the most characters that fit, by halving
        middle = (low + high + 1) // 2
        fits = font.getlength(f"{shown[:middle]}...") <= width
        low, high = (middle, high) if fits else (low, middle - 1)
    return f"{shown[:low]}..."


def _escaped(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode()


@functools.lru_cache(maxsize=4096)
def _has(font: _Font, letters: int, character: str) -> bool:
    """Tell whether a font has letters for a character: for others it draws its sign for that."""
    if character.isascii():
        return True
    try:
        drawn, missing = (bytes(font.getmask(one)) for one in (character, "\U0010ffff"))
    except UnicodeError:  # a font of Pillow's own, without FreeType
        return False
    return drawn != missing
