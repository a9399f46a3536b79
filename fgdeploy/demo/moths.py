"""Draw fine-grained test images: procedural moths whose sub-species differ in local details only.

All sub-species share body plan and palette; pose, colour, light, background and clutter vary from
image to image, so that neither a mean image nor a colour histogram tells them apart.
"""

import csv
import itertools
from colorsys import hsv_to_rgb
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args, get_type_hints

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from fgdeploy.core.progress import Progress

_Points: TypeAlias = npt.NDArray[np.complex128]
_Colour: TypeAlias = tuple[int, int, int]

_MAX_SPECIES = 200
_MIN_SIZE = 64
_SUPERSAMPLE = 2
_GENUS = "phalora"
_STEMS = "alb brev cin dent ferr flav gris lun mar niv pall rub serr vir"
_ENDINGS = "aria ata atra ella ensis escens icola ifera iformis ina ipes ita osa ula ulenta una"


@dataclass(frozen=True)
class MothSpecies:
    """Hold the local details that set one sub-species apart; the types list all that exist.

    The spots (per wing) and the band are on the fore wing, the edge and the eye-spot on the hind
    wing, the stripes on the abdomen.
    """

    name: str
    spots: Literal[1, 2, 3, 4, 5]
    band: Literal["straight", "wavy", "zigzag"]
    band_width: Literal["thin", "thick", "double"]
    band_place: Literal["inner", "outer"]
    antenna: Literal["plain", "feathered", "clubbed"]
    hind_edge: Literal["smooth", "scalloped"]
    eye_spot: Literal["none", "ring", "filled"]
    stripes: Literal[0, 2, 4]

    @property
    def traits(self) -> tuple[int | str, ...]:
        """Return the eight traits in field order, without the name."""
        return astuple(self)[1:]


def species(count: int, seed: int = 0) -> list[MothSpecies]:
    """Return `count` sub-species (2..200) that differ in as many traits as their number allows.

    Any two differ in at least two traits, up to 24 of them in at least four. A shorter list is
    the beginning of a longer one with the same seed.
    """
    if not 2 <= count <= _MAX_SPECIES:
        raise ValueError(f"species count must be 2..{_MAX_SPECIES}, got {count}")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}")
    rng = np.random.default_rng(seed)
    names = [f"{_GENUS}_{stem}{ending}" for stem in _STEMS.split() for ending in _ENDINGS.split()]
    names = [names[index] for index in rng.permutation(len(names))]
    values = [get_args(hint) for hint in get_type_hints(MothSpecies).values()]
    plans = list(itertools.product(*values[1:]))
    order = rng.permutation(len(plans))
    sizes = [len(value) for value in values[1:]]
    table = np.stack(np.unravel_index(order, sizes), axis=1)
    least = np.full(len(plans), len(sizes))  # traits that differ from the nearest one chosen
    chosen: list[MothSpecies] = []
    for name in names[:count]:
        index = int(least.argmax())
        chosen.append(MothSpecies(name, *plans[order[index]]))
        least = np.minimum(least, (table != table[index]).sum(axis=1))
    return chosen


def draw_moth(kind: MothSpecies, rng: np.random.Generator, size: int = 256) -> Image.Image:
    """Draw one moth of sub-species `kind` as an RGB image of `size` x `size` pixels (64 or more).

    All that is not a trait comes from `rng`: rotation within 20 degrees, translation within 4 % of
    the side, scale 0.88..1.0, wing opening, colours, background, clutter, blur and light.
    """
    _check_size(size)
    side = size * _SUPERSAMPLE
    canvas = _background(rng, side)
    turn = np.exp(1j * np.deg2rad(rng.uniform(-20, 20)))
    middle = side * (0.5 + 0.5j + complex(*rng.uniform(-0.04, 0.04, 2)))
    pen = _Pen(canvas, complex(0.46 * side * rng.uniform(0.88, 1.0) * turn), middle)
    palette = _palette(rng)
    fore, hind = _wings(kind, rng)
    _drop_shadow(pen, (fore, hind), rng)
    for half in (pen, pen.mirrored()):
        _draw_hind_wing(half, hind, kind, palette)
        _draw_fore_wing(half, fore, kind, palette)
    sweep = rng.uniform(-0.05, 0.05)
    for half in (pen, pen.mirrored()):
        _draw_antenna(half, kind, palette, sweep)
    _draw_body(pen, kind, palette, rng)
    return _expose(canvas.resize((size, size), Image.Resampling.BOX), rng)


def write_moths(
    folder: Path,
    species_count: int = 8,
    images_per_species: int = 20,
    size: int = 256,
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Write a labelled folder of moths and return the path of its `split.csv`.

    Images go to `folder/<NN_name>/<NNNN>.jpg`, `size` pixels square; the table has the columns
    `path,class,split`: the first half of each class is `train`, the rest `test`. An image depends
    only on (seed, species index, image index). `progress` is told (images done, images in all).
    """
    if images_per_species < 2:
        raise ValueError(f"images per species must be 2 or more, got {images_per_species}")
    _check_size(size)
    kinds = species(species_count, seed)
    digits = max(2, len(str(species_count - 1)))
    rows: list[tuple[str, str, str]] = []
    for number, kind in enumerate(kinds):
        label = f"{number:0{digits}d}_{kind.name}"
        (folder / label).mkdir(parents=True, exist_ok=True)
        for index in range(images_per_species):
            image = draw_moth(kind, np.random.default_rng([seed, number, index]), size)
            path = f"{label}/{index:04d}.jpg"
            image.save(folder / path, quality=92)
            rows.append((path, label, "train" if index < images_per_species // 2 else "test"))
            if progress is not None:
                progress(len(rows), species_count * images_per_species)
    table = folder / "split.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows([("path", "class", "split"), *rows])
    return table


def _check_size(size: int) -> None:
    if size < _MIN_SIZE:
        raise ValueError(f"image size must be {_MIN_SIZE} pixels or more, got {size}")


@dataclass(frozen=True)
class _Pen:
    """Draw in moth units: complex points, x right, y down, thorax near 0, wings reach about 1."""

    canvas: Image.Image
    scale: complex
    origin: complex
    flip: bool = False

    def mirrored(self) -> "_Pen":
        return replace(self, flip=not self.flip)

    def place(self, points: _Points) -> list[float]:
        """Return canvas coordinates x0, y0, x1, y1, ..."""
        moved = (-np.conj(points) if self.flip else points) * self.scale + self.origin
        flat: list[float] = np.ascontiguousarray(moved).view(np.float64).tolist()
        return flat

    def polygon(self, points: _Points, fill: _Colour | int) -> None:
        ImageDraw.Draw(self.canvas).polygon(self.place(points), fill=fill)

    def line(self, points: _Points, fill: _Colour, width: float) -> None:
        thick = max(2, round(width * abs(self.scale)))
        ImageDraw.Draw(self.canvas).line(self.place(points), fill=fill, width=thick, joint="curve")

    def disc(self, centre: complex, radius: float, fill: _Colour) -> None:
        place, reach = self.place(np.array([centre])), radius * abs(self.scale)
        ImageDraw.Draw(self.canvas).circle((place[0], place[1]), reach, fill=fill)


@dataclass(frozen=True)
class _Wing:
    """Map (u, v) to a point: u runs from hinge to outer edge, v from leading to trailing edge."""

    hinge: complex
    frame: _Points  # from the hinge: leading edge middle and end, trailing edge the same, bulge
    scallop: float
    freckles: npt.NDArray[np.float64]

    def at(self, u: npt.ArrayLike, v: npt.ArrayLike) -> _Points:
        u, v = np.asarray(u, np.float64), np.asarray(v, np.float64)
        near, far = 2 * u * (1 - u), u * u
        lead = near * self.frame[0] + far * self.frame[1]
        trail = near * self.frame[2] + far * self.frame[3]
        notch = self.scallop * u**10 * (1 - np.abs(np.sin(6 * np.pi * v)))
        edge = self.frame[4] * (far * np.sin(np.pi * v) - notch)
        return np.asarray(self.hinge + (1 - v) * lead + v * trail + edge)

    def strip(self, inner: npt.ArrayLike, outer: npt.ArrayLike) -> _Points:
        """Return the outline of the strip across the wing between two values (or curves) of u."""
        v, rise = np.linspace(0, 1, 49), np.linspace(0, 1, 13)
        low, high = np.broadcast_to(inner, v.shape), np.broadcast_to(outer, v.shape)
        lead = self.at(low[0] + (high[0] - low[0]) * rise, 0.0)
        trail = self.at(high[-1] + (low[-1] - high[-1]) * rise, 1.0)
        return np.concatenate((lead, self.at(high, v), trail, self.at(low, v)[::-1]))


class _Palette(NamedTuple):
    ground: _Colour
    shade: _Colour
    dark: _Colour
    pale: _Colour


def _hsv(hue: float, saturation: float, value: float) -> _Colour:
    red, green, blue = hsv_to_rgb(hue % 1.0, min(saturation, 1.0), min(value, 1.0))
    return round(255 * red), round(255 * green), round(255 * blue)


def _palette(rng: np.random.Generator) -> _Palette:
    hue, grey, light = rng.uniform(-0.04, 0.2), rng.uniform(0.1, 0.5), rng.uniform(0.62, 0.9)
    other = hue + rng.uniform(-0.06, 0.06)  # of the markings
    return _Palette(
        ground=_hsv(hue, grey, light),
        shade=_hsv(hue, grey + 0.08, light * 0.8),
        dark=_hsv(other, grey + 0.15, light * 0.2),
        pale=_hsv(other, grey * 0.2, 1.0),
    )


def _wings(kind: MothSpecies, rng: np.random.Generator) -> tuple[_Wing, _Wing]:
    opening = np.exp(1j * np.deg2rad(rng.uniform(-4, 8)))
    reach, freckles = rng.uniform(0.95, 1.05), rng.random((2, 40, 2))
    fore = [0.42 - 0.34j, 0.86 * reach - 0.36j, 0.26 + 0.18j, 0.66 * reach + 0.2j, 0.09 + 0.03j]
    hind = [0.3 - 0.18j, 0.66 * reach + 0.1j, 0.04 + 0.32j, 0.14 + 0.66j, 0.17 + 0.15j]
    scallop = 0.8 if kind.hind_edge == "scalloped" else 0.0
    return (
        _Wing(0.06 - 0.16j, np.array(fore) * opening, 0.0, freckles[0]),
        _Wing(0.05 - 0.05j, np.array(hind) * np.sqrt(opening), scallop, freckles[1]),
    )


def _draw_wing(pen: _Pen, wing: _Wing, palette: _Palette) -> None:
    pen.polygon(wing.strip(0.0, 1.0), palette.dark)
    pen.polygon(wing.strip(0.0, 0.975), palette.ground)
    pen.polygon(wing.strip(0.0, 0.2), palette.shade)
    for v in (0.18, 0.36, 0.54, 0.72, 0.88):
        pen.line(wing.at(np.linspace(0.15, 0.97, 8), v), palette.shade, 0.006)
    along, across = np.sqrt(wing.freckles[:, 0]), wing.freckles[:, 1]
    for point in wing.at(0.08 + 0.84 * along, 0.06 + 0.88 * across):
        pen.disc(complex(point), 0.011, palette.shade)


def _draw_fore_wing(pen: _Pen, wing: _Wing, kind: MothSpecies, palette: _Palette) -> None:
    _draw_wing(pen, wing, palette)
    v = np.linspace(0, 1, 49)
    curve = np.full_like(v, 0.34 if kind.band_place == "inner" else 0.62)
    if kind.band == "wavy":
        curve += 0.06 * np.sin(5 * np.pi * v)
    elif kind.band == "zigzag":
        curve += 0.075 * (2 * np.abs(2 * (3 * v % 1.0) - 1) - 1)
    half = 0.075 if kind.band_width == "thick" else 0.024
    for offset in (-0.06, 0.06) if kind.band_width == "double" else (0.0,):
        pen.polygon(wing.strip(curve + offset - half, curve + offset + half), palette.dark)
    for place in 0.49 + 0.19 * (np.arange(kind.spots) - (kind.spots - 1) / 2):
        centre = complex(wing.at(0.84, place))
        pen.disc(centre, 0.068, palette.dark)
        pen.disc(centre, 0.054, palette.pale)


def _draw_hind_wing(pen: _Pen, wing: _Wing, kind: MothSpecies, palette: _Palette) -> None:
    _draw_wing(pen, wing, palette)
    if kind.eye_spot != "none":
        centre, filled = complex(wing.at(0.62, 0.55)), kind.eye_spot == "filled"
        pen.disc(centre, 0.16, palette.dark)
        pen.disc(centre, 0.115, palette.pale if filled else palette.ground)
        pen.disc(centre, 0.07, palette.dark if filled else palette.ground)


def _draw_antenna(pen: _Pen, kind: MothSpecies, palette: _Palette, sweep: float) -> None:
    t = np.linspace(0, 1, 15)
    bend, tip = 0.08 - 0.62j, 0.36 - 0.72j + sweep * (1 + 1j)
    stem = (1 - t) ** 2 * (0.035 - 0.3j) + 2 * t * (1 - t) * bend + t**2 * tip
    pen.line(stem, palette.dark, 0.026)
    if kind.antenna == "clubbed":
        pen.disc(complex(stem[-1]), 0.075, palette.dark)
        pen.disc(complex(stem[-2]), 0.055, palette.dark)
    elif kind.antenna == "feathered":
        step = np.gradient(stem)
        barb = 0.13 * (1.15 - t) * step / np.abs(step)
        for lean in (np.exp(1j), np.exp(-1j)):
            for root, end in zip(stem[2:], (stem + barb * lean)[2:], strict=True):
                pen.line(np.array([root, end]), palette.dark, 0.016)


def _draw_body(pen: _Pen, kind: MothSpecies, palette: _Palette, rng: np.random.Generator) -> None:
    t = np.linspace(0, 1, 49)
    half = 0.085 * np.sqrt(1 - t**2.6) * (0.85 + 0.5 * t * (1 - t))
    left, right = 0.56j * t - half, 0.56j * t + half
    pen.polygon(np.concatenate((left, right[::-1])), palette.shade)
    for index in range(kind.stripes):
        ring = slice(first := round(17 + 23 * (index + 0.5) / kind.stripes), first + 4)
        pen.polygon(np.concatenate((left[ring], right[ring][::-1])), palette.pale)
    angle, fur = np.linspace(0, 2 * np.pi, 72), 1 + 0.09 * rng.standard_normal(72)
    thorax = fur * (0.125 * np.cos(angle) + 0.17j * np.sin(angle))
    pen.polygon(thorax - 0.11j, palette.shade)
    pen.polygon(0.62 * thorax - 0.12j, palette.ground)
    pen.disc(-0.29j, 0.068, palette.shade)
    for eye in (-0.056 - 0.315j, 0.056 - 0.315j):
        pen.disc(eye, 0.03, (24, 20, 18))


def _drop_shadow(pen: _Pen, wings: tuple[_Wing, _Wing], rng: np.random.Generator) -> None:
    side, strength = pen.canvas.width, int(rng.integers(70, 150))
    offset = complex(*rng.uniform(-0.03, 0.03, 2)) * side
    small = _Pen(Image.new("L", (side // 4, side // 4)), pen.scale / 4, (pen.origin + offset) / 4)
    for half, wing in itertools.product((small, small.mirrored()), wings):
        half.polygon(wing.strip(0.0, 1.0), strength)
    mask = small.canvas.filter(ImageFilter.GaussianBlur(side / 128)).resize((side, side))
    pen.canvas.paste((14, 12, 10), (0, 0, side, side), mask)


def _background(rng: np.random.Generator, side: int) -> Image.Image:
    hue, grey, light = rng.uniform(0, 1), rng.uniform(0.05, 0.35), rng.uniform(0.2, 0.9)
    grain = int(rng.choice([12, 32, 80])), int(rng.choice([12, 32, 80]))
    coarse = Image.fromarray(rng.uniform(-1, 1, (5, 5)).astype(np.float32))
    tone = 1 + rng.uniform(0.05, 0.2) * np.asarray(coarse.resize(grain, Image.Resampling.BICUBIC))
    tone = tone + rng.uniform(0.03, 0.12) * rng.uniform(-1, 1, tone.shape)
    pixels = np.clip(tone[..., None] * np.array(_hsv(hue, grey, light)), 0, 255).astype(np.uint8)
    canvas = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
    for _ in range(int(rng.integers(4, 12))):
        along = side * rng.uniform(0.04, 0.16) * np.exp(1j * rng.uniform(0, 2 * np.pi))
        pen = _Pen(canvas, complex(along), complex(*rng.uniform(0, side, 2)))
        _draw_clutter(pen, hue + rng.uniform(-0.25, 0.25), rng)
    return canvas


def _draw_clutter(pen: _Pen, hue: float, rng: np.random.Generator) -> None:
    grey, light = rng.uniform(0.1, 0.5), rng.uniform(0.2, 0.95)
    fill, rim = _hsv(hue, grey, light), _hsv(hue, grey, light * 0.7)
    form = ("leaf", "twig", "pebble")[rng.integers(3)]
    if form == "leaf":
        t = np.linspace(-1, 1, 17)
        belly = 0.45j * (1 - t**2) * (1 - 0.3 * t)
        pen.polygon(np.concatenate((t - belly, (t + belly)[::-1])), fill)
        pen.line(np.array([-1.3 + 0j, 0.9]), rim, 0.05)
        for x in (-0.5, -0.1, 0.3):
            pen.line(np.array([x + 0.3 - 0.3j, x, x + 0.3 + 0.3j]), rim, 0.02)
    elif form == "twig":
        knots = np.linspace(-2, 2, 6) + 1j * rng.uniform(-0.15, 0.15, 6)
        pen.line(np.array([knots[2], knots[2] + 0.7 + 0.6j]), rim, 0.07)
        pen.line(knots, rim, 0.12)
        pen.line(knots - 0.02j, fill, 0.06)
    else:
        angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
        stone = rng.uniform(0.4, 0.55, 14) * np.exp(1j * angle)
        pen.polygon(stone, rim)
        pen.polygon(0.82 * stone - 0.04 - 0.04j, fill)


def _expose(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.0, 0.9) * image.width / 256))
    ramp = np.linspace(-0.5, 0.5, image.width, dtype=np.float32)
    tilt = rng.uniform(-0.15, 0.15, 2).astype(np.float32)
    light = rng.uniform(0.88, 1.08) + tilt[0] * ramp[:, None] + tilt[1] * ramp
    cast = rng.uniform(0.88, 1.12, 3).astype(np.float32)
    noise = rng.uniform(1, 6) * rng.standard_normal(image.size, dtype=np.float32)
    pixels = np.asarray(image, np.float32) * (light[..., None] * cast) + noise[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
