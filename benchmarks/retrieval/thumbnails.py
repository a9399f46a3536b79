"""What a thumbnail keeps of a photo's code, and what thumbnails cost an index.

    .venv/bin/python benchmarks/retrieval/thumbnails.py DATA MODEL.fgd [--items 50000]

First table: bits of the codes that agree between a photo and its thumbnail, for some short sides
and JPEG qualities, all written anew. "as kept" is what `index add --keep-thumbnails` keeps: a small
photo stays as it is. Second table: an index of random items without thumbnails and with some of
10 KB each: seconds to add, to open and search with a filter first, to read all items, bytes.
Files are warm.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from fgdeploy.hasher import load
from fgdeploy.photos import decode, read, thumbnail
from fgdeploy.retrieval import Index, Item

SIDES, QUALITIES = (128, 160, 192, 224, 256), (75, 85, 90, 95)
_BYTES, _BATCH = 10_000, 1000


def agreement(data: Path, model: Path, photos: int) -> None:
    """Print the first table."""
    listed = read(data)
    paths = [listed[int(n)].path for n in np.linspace(0, len(listed) - 1, photos)]
    pictures = [decode(path) for path in paths]
    plain = [Image.fromarray(np.asarray(picture)) for picture in pictures]
    print("| short side | quality | bytes | bits that agree | same code |")
    print("|---|---|---|---|---|")
    with load(model) as hasher:
        expected = np.unpackbits(hasher.encode(paths), axis=1)

        def row(name: str, jpegs: list[bytes]) -> None:
            same = np.unpackbits(hasher.encode(jpegs), axis=1) == expected
            size, whole = np.mean([len(jpeg) for jpeg in jpegs]), same.all(axis=1).mean()
            print(f"| {name} | {size:,.0f} | {same.mean():.2%} | {whole:.0%} |", flush=True)

        for side in SIDES:
            for quality in QUALITIES:
                jpegs = [thumbnail(image, side=side, quality=quality) for image in plain]
                row(f"{side} | {quality}", jpegs)
        row("as kept |", [thumbnail(path.read_bytes()) for path in paths])


def cost(items: int) -> None:
    """Print the second table."""
    chooser = np.random.default_rng(0)
    print("\n| thumbnails | add s | first filter s | read all s | database MB |")
    print("|---|---|---|---|---|")
    for kept in (False, True):
        with tempfile.TemporaryDirectory() as name:
            path = Path(name, "g.fgi")
            with Index.create(path, "ab" * 32, 64) as index:
                if kept:
                    index.thumbnails.keep()
                started = time.perf_counter()
                for start in range(0, items, _BATCH):
                    codes = chooser.integers(0, 256, (_BATCH, 8), np.uint8)
                    given = [
                        Item(f"/photos/{start + n}.jpg", code.tobytes(), f"class {n % 100}")
                        for n, code in enumerate(codes)
                    ]
                    noise = chooser.bytes(_BYTES)
                    pictures = [b"\xff\xd8\xff" + noise] * _BATCH if kept else None
                    index.add(given, thumbnails=pictures)
                added = time.perf_counter() - started
            with Index.open(path) as index:
                started = time.perf_counter()
                index.search(codes[:1], where="label = 'class 3'")
                filtered = time.perf_counter() - started
                started = time.perf_counter()
                assert sum(1 for _ in index.items()) == items
                every = time.perf_counter() - started
                size = index.stats().database_bytes / 1e6
        which = "yes" if kept else "no"
        print(f"| {which} | {added:.1f} | {filtered:.2f} | {every:.2f} | {size:,.0f} |")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--photos", type=int, default=120)
    parser.add_argument("--items", type=int, default=50_000)
    given = parser.parse_args()
    agreement(given.data, given.model, given.photos)
    cost(given.items)


if __name__ == "__main__":
    main()
