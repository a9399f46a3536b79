"""What the gate of the camera costs, and which share of a picture it takes for changed.

    .venv/bin/python benchmarks/camera/gate.py [PHOTO]

PHOTO: a picture of the place; by default drawn noise of several scales. A few seconds.
"""

from __future__ import annotations

import io
import sys
import time

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from fgdeploy.camera.gate import ChangeGate, _levels, changed_share

SIZES = ((640, 360), (1280, 720), (1920, 1080), (3840, 2160))
Pixels = npt.NDArray[np.uint8]


def picture() -> Image.Image:
    """Return the place, 1280 x 720."""
    if len(sys.argv) > 1:
        return Image.open(sys.argv[1]).convert("RGB").resize((1280, 720))
    chooser = np.random.default_rng(0)
    layers = [
        np.asarray(
            Image.fromarray(chooser.integers(0, 256, (rows, rows * 16 // 9, 3), dtype=np.uint8))
            .resize((1280, 720), Image.Resampling.BICUBIC)
        ).astype(np.float64)
        for rows in (4, 18, 72, 720)
    ]  # fmt: skip
    return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8))


def noisy(place: Pixels, sigma: float, gain: float = 1.0) -> Pixels:
    """Return the place in another light, with noise of so many levels in each channel."""
    noise = np.random.default_rng(1).normal(0, sigma, place.shape)
    return (place * gain + noise).clip(0, 255).astype(np.uint8)


def with_square(place: Pixels, share: float) -> Pixels:
    """Return the place with a dark square that covers a share of it."""
    side = round((share * place.shape[0] * place.shape[1]) ** 0.5)
    found = place.copy()
    found[100 : 100 + side, 300 : 300 + side] = 20
    return found


def jpeg(place: Pixels, quality: int) -> Pixels:
    """Return the place through a JPEG."""
    stored = io.BytesIO()
    Image.fromarray(place).save(stored, "JPEG", quality=quality)
    return np.asarray(Image.open(stored))


def main() -> None:
    """Print both tables."""
    image = picture()
    place = np.asarray(image)
    cases = {
        "noise of 5 levels": noisy(place, 5),
        "noise of 15 levels": noisy(place, 15),
        "JPEG quality 30": jpeg(place, 30),
        "exposure x 0.7": noisy(place, 2, 0.7),
        "exposure x 1.2": noisy(place, 2, 1.2),
        "out of focus (blur of 4 pixels)": np.asarray(image.filter(ImageFilter.GaussianBlur(4))),
        "shaken by 4 pixels": np.roll(place, (4, 4), (0, 1)),
        "shaken by 16 pixels": np.roll(place, (16, 16), (0, 1)),
        **{f"a dark square of {s:.1%}": with_square(place, s) for s in (0.005, 0.01, 0.02, 0.05)},
        "light x 0.5": noisy(place, 2, 0.5),
    }
    print("| against the first frame | share that changed |\n|---|---|")
    for name, changed in cases.items():
        print(f"| {name} | {changed_share(_levels(place), _levels(changed)):.2%} |")
    print("\n| frame | ms, median of 200 |\n|---|---|")
    for width, height in SIZES:
        frame, gate = np.asarray(image.resize((width, height))), ChangeGate(0.02)
        times = []
        for _ in range(200):
            start = time.perf_counter()
            gate.passes(frame)
            times.append(time.perf_counter() - start)
        print(f"| {width} x {height} | {1000 * float(np.median(times)):.2f} |")


if __name__ == "__main__":
    main()
