"""Draw photos of words, a class for each typeface: a set of another kind than ImageNet.

    .venv/bin/python benchmarks/few_photos/typefaces.py OUT [--classes 40] [--images 40]

Typefaces are those of the machine (fontconfig's fc-list), chosen by hashes of their names; half of
the images of each are for training. Made-up words, in any colour, bent, turned and blurred, on
clouds of colour. The numbers in benchmarks/README.md are of these Debian packages: fonts-liberation
fonts-freefont-ttf fonts-lato fonts-roboto-unhinted fonts-open-sans fonts-cantarell fonts-dejavu
fonts-linuxlibertine fonts-comfortaa fonts-lobster fonts-crosextra-carlito fonts-crosextra-caladea
fonts-hack fonts-inconsolata fonts-gfs-didot fonts-junicode fonts-vollkorn fonts-ebgaramond
fonts-urw-base35 fonts-quicksand fonts-oldstandard fonts-sil-gentium fonts-cabin fonts-dosis
fonts-play fonts-lmodern.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIDE = 256
_VOWELS, _OTHERS = "aeiou", "bcdfghklmnprstvwz"
_NO_LETTERS = ["emoji", "symbol", "dingbat", "math", "d050", "music", "awesome"]


def _typefaces(count: int) -> dict[str, str]:
    """Return files of typefaces by name."""
    wanted = ["fc-list", "--format=%{file}|%{family[0]}|%{style[0]}\n", ":lang=en"]
    listed = subprocess.run(wanted, check=True, capture_output=True, text=True).stdout
    found: dict[str, str] = {}
    for line in listed.splitlines():
        file, family, style = line.split("|")
        letters = not any(word in family.lower() for word in _NO_LETTERS)
        if letters and file.endswith((".ttf", ".otf")):
            found.setdefault(f"{family} {style}", file)
    if len(found) < count:
        raise SystemExit(f"{len(found)} typefaces are installed, {count} are needed; install more")
    chosen = sorted(found, key=lambda name: hashlib.sha256(name.encode()).hexdigest())[:count]
    return {name: found[name] for name in sorted(chosen)}


def _word(chooser: np.random.Generator) -> str:
    pairs = int(chooser.integers(2, 4))
    word = "".join(
        chooser.choice(list(_OTHERS)) + chooser.choice(list(_VOWELS)) for _ in range(pairs)
    )
    word += chooser.choice(list(_OTHERS))
    return word.capitalize() if chooser.random() < 0.5 else word


def _ground(chooser: np.random.Generator, side: int) -> tuple[Image.Image, float]:
    """Return clouds of colour and how light they are, 0 to 255."""
    cells = int(chooser.integers(3, 9))
    clouds = chooser.normal(size=(cells, cells, 3))
    clouds = (clouds - clouds.min()) / np.ptp(clouds) - 0.5
    colour, contrast = chooser.uniform(0, 255, 3), chooser.uniform(20, 140)
    pixels = np.clip(colour + clouds * contrast, 0, 255).astype(np.uint8)
    image = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
    return image, float(colour @ [0.299, 0.587, 0.114])


def _lettering(file: str, chooser: np.random.Generator, side: int) -> Image.Image:
    """Return one or two words as a mask, bent and turned."""
    mask = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(mask)
    first, size = _word(chooser), int(chooser.uniform(0.16, 0.3) * side)
    lines = [first, _word(chooser)] if chooser.random() < 0.5 else [first]
    width = pen.textlength(first, font=ImageFont.truetype(file, size))
    face = ImageFont.truetype(file, int(size * min(1.0, 0.92 * side / width)))
    top = side * (0.5 - 0.22 * len(lines)) + chooser.uniform(-0.08, 0.1) * side
    for line in lines:
        free = side - pen.textlength(line, font=face)
        pen.text((free * (0.5 + chooser.uniform(-0.1, 0.1)), top), line, fill=255, font=face)
        top += face.size * 1.25
    corners = np.array([0, 0, 0, side, side, side, side, 0])
    bent = corners + chooser.uniform(-0.06, 0.06, 8) * side
    way = Image.Resampling.BICUBIC
    mask = mask.transform((side, side), Image.Transform.QUAD, bent.tolist(), way)
    return mask.rotate(chooser.uniform(-12, 12), way)


def draw(file: str, chooser: np.random.Generator) -> Image.Image:
    """Return one photo, SIDE x SIDE."""
    image, light = _ground(chooser, 2 * SIDE)
    ink = chooser.uniform(0, 90, 3) if light > 128 else chooser.uniform(165, 255, 3)
    image.paste(tuple(int(c) for c in ink), (0, 0), _lettering(file, chooser, 2 * SIDE))
    image = image.filter(ImageFilter.GaussianBlur(chooser.uniform(0.4, 2.2)))
    pixels = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)).astype(np.float32)
    pixels += chooser.normal(size=pixels.shape) * chooser.uniform(2, 12)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def main() -> None:
    """Draw a folder of classes and its split.csv."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--classes", type=int, default=40)
    parser.add_argument("--images", type=int, default=40)
    options = parser.parse_args()
    rows = [("path", "class", "split")]
    for number, (name, file) in enumerate(_typefaces(options.classes).items()):
        folder = options.output / f"{number:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(options.images):
            chooser = np.random.default_rng([number, index])
            place = folder / f"{index:03d}.jpg"
            draw(file, chooser).save(place, quality=int(chooser.integers(70, 95)))
            split = "train" if index < options.images // 2 else "test"
            rows.append((str(place.relative_to(options.output)), name, split))
    with (options.output / "split.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)


if __name__ == "__main__":
    main()
