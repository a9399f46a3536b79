"""Does the distance that `fgdeploy index threshold` finds hold for photos it has not seen?

    .venv/bin/python benchmarks/retrieval/threshold.py DATA/split.csv MODEL.fgd [MODEL.fgd ...]

Some classes, drawn by a seed, are unknown: the index holds the training photos of the others. The
threshold is found from that index alone. Test photos are queries: of known classes, of which the
share beyond the threshold is wrongly called unknown, and of unknown ones, of which the share within
is wrongly called known. "expected" is what the index says of itself, "true" what the test photos
say; means over DRAWS draws.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from fgdeploy.gallery.threshold import Threshold, ThresholdSettings, measure
from fgdeploy.hasher import HashRun, hash_all, load
from fgdeploy.photos import of_split, read
from fgdeploy.retrieval import Index, Item

ACCEPT, DRAWS, UNKNOWN = (0.8, 0.9, 0.95, 0.99), 5, 0.3  # the last: share of classes
_HEAD = ("model", "--accept", "bits", "known called unknown: expected", "true")
_HEAD += ("unknown called known: expected", "true", "nearest is right: expected", "true")


def measured(run: HashRun, queries: HashRun, seed: int, folder: Path) -> list[list[float]]:
    """Return for each ACCEPT: bits, and shares expected and true."""
    names = sorted({str(photo.label) for photo in run.photos})
    chooser = np.random.default_rng(seed)
    unknown = set(chooser.choice(names, round(UNKNOWN * len(names)), replace=False).tolist())
    with Index.create(folder / f"{seed}.fgi", "ab" * 32, run.outputs.hash.shape[1]) as index:
        index.add(
            Item(str(photo.path), code.tobytes(), photo.label)
            for photo, code in zip(run.photos, run.outputs.code, strict=True)
            if photo.label not in unknown
        )
        hits = index.search(queries.outputs.code, 1)
        found = [measure(index, ThresholdSettings(accept)) for accept in ACCEPT]
    distances = np.array([hit.distance for (hit,) in hits])
    known = np.array([photo.label not in unknown for photo in queries.photos])
    right = [hit.label == photo.label for (hit,), photo in zip(hits, queries.photos, strict=True)]
    first = float(np.array(right)[known].mean())
    return [_row(one, distances[known], distances[~known], first) for one in found]


def _row(one: Threshold, known: np.ndarray, unknown: np.ndarray, first: float) -> list[float]:
    rejected, accepted = float((known > one.bits).mean()), float((unknown <= one.bits).mean())
    expected = one.false_reject, one.false_accept, one.first_right
    return [one.bits, expected[0], rejected, expected[1], accepted, expected[2], first]


def main() -> None:
    """Hash, fill indexes, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path, nargs="+")
    options = parser.parse_args()
    photos = read(options.data)
    print(f"| {' | '.join(_HEAD)} |\n{'|---' * len(_HEAD)}|", flush=True)
    for model in options.models:
        with load(model) as hasher, tempfile.TemporaryDirectory() as name:
            train, test = (hash_all(hasher, of_split(photos, one)) for one in ("train", "test"))
            rows = [measured(train, test, seed, Path(name)) for seed in range(DRAWS)]
            for accept, (bits, *shares) in zip(ACCEPT, np.mean(rows, axis=0), strict=True):
                cells = [f"{model.name}, {hasher.bits} bits", f"{accept:g}", f"{bits:.1f}"]
                print(f"| {' | '.join([*cells, *(f'{x:.1%}' for x in shares)])} |", flush=True)


if __name__ == "__main__":
    main()
