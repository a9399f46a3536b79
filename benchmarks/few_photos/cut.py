"""Cut a labelled set to a few classes and a few training photos of each, by hashes of names.

    .venv/bin/python benchmarks/few_photos/cut.py DATA/split.csv OUT.csv --classes 40 --photos 20

The classes whose names have the least sha256 stay, and of each the training photos whose paths
(as the CSV has them) have the least; all test photos of these classes stay. birds-40x20.txt lists
the training photos of the cut that benchmarks/README.md tells of.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from pathlib import Path


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def cut(rows: list[dict[str, str]], classes: int, photos: int) -> list[dict[str, str]]:
    """Return the rows (path, class, split) that stay."""
    chosen = sorted({row["class"] for row in rows}, key=_hashed)[:classes]
    kept: list[dict[str, str]] = []
    for name in chosen:
        own = [row for row in rows if row["class"] == name]
        known = sorted((r for r in own if r["split"] == "train"), key=lambda r: _hashed(r["path"]))
        kept += known[:photos] + [row for row in own if row["split"] == "test"]
    return kept


def main() -> None:
    """Write the CSV of a cut; its paths are absolute."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--classes", type=int, default=40)
    parser.add_argument("--photos", type=int, default=20)
    options = parser.parse_args()
    with options.data.open(encoding="utf-8", newline="") as stream:
        kept = cut(list(csv.DictReader(stream)), options.classes, options.photos)
    with options.output.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "class", "split"))
        for row in kept:
            path = (options.data.parent / row["path"]).resolve()
            writer.writerow((path, row["class"], row["split"]))
    print(f"{sum(row['split'] == 'train' for row in kept)} training photos of {len(kept)} photos")


if __name__ == "__main__":
    main()
