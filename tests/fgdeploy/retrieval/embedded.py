"""What tests of embeddings share: items with rows, and answers from a plain reference."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fgdeploy.core.errors import IndexStoreError
from fgdeploy.retrieval import Index, Item
from fgdeploy.retrieval.store.int8_rows import quantised, restored

WIDTH = 12
FloatRows = npt.NDArray[np.float32]


def embedded_item(number: int, version: int = 0, number_is_id: bool = False) -> Item:
    """Return an item whose code and content tell its number and version; few codes, many ties."""
    digest = hashlib.blake2b(f"{number} {version}".encode(), digest_size=32).digest()
    code = bytes(byte & 3 for byte in digest[:4])
    path, label = f"kept://{number}", "owl" if number % 2 else None
    return Item(path, code, label, digest.hex(), number if number_is_id else None)


def row_of(number: int, version: int = 0) -> FloatRows:
    """Return the embedding (WIDTH,) of an item; every fifth has the one of the item before."""
    if number % 5 == 4:
        number -= 1
    chooser = np.random.default_rng([number, version])
    return np.asarray(chooser.standard_normal(WIDTH), np.float32)


def add_embedded(index: Index, numbers: Sequence[int], version: int = 0) -> None:
    """Add items with their embeddings, of one batch."""
    rows = np.array([row_of(number, version) for number in numbers], np.float32)
    index.add(
        [embedded_item(number, version) for number in numbers],
        embeddings=rows.reshape(len(numbers), WIDTH),
    )


def files_in(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir() if entry.name.startswith("embeddings-"))


def kept_rows(index: Index, rows: dict[str, FloatRows]) -> dict[str, npt.NDArray[np.float64]]:
    """Return rows by path as the index keeps them, float64."""
    form = index.embeddings.form
    assert form is not None
    if form.kind == "float":
        return {path: row.astype(np.float64) for path, row in rows.items()}
    return {path: restored(*quantised(row[None]))[0] for path, row in rows.items()}


def reference(
    index: Index, query: FloatRows, code: bytes, rows: dict[str, FloatRows], k: int, pool: int
) -> list[tuple[int, int]]:
    """Return (id, distance) of the best k, from a plain loop over all items in float64."""
    kept, value = kept_rows(index, rows), int.from_bytes(code, "big")
    items = sorted(
        ((int.from_bytes(item.code, "big") ^ value).bit_count(), item.id or 0, item.path or "")
        for item in index.items()
    )

    def cosine_distance(path: str) -> float:
        one, other = (np.asarray(v, np.float64) for v in (query, kept[path]))
        lengths = [math.sqrt(np.sum(v * v)) for v in (one, other)]
        one, other = (v / (n or 1) for v, n in zip((one, other), lengths, strict=True))
        return 1 - float(np.sum(one * other))

    ranked = sorted((cosine_distance(path), d, number) for d, number, path in items[:pool])
    return [(number, d) for _, d, number in ranked[:k]]


def ranks_right(index: Index, rows: dict[str, FloatRows]) -> None:
    """Compare re-ranked answers with the reference, for several k and pools."""
    chooser = np.random.default_rng(len(rows))
    queries = chooser.standard_normal((3, WIDTH)).astype(np.float32)
    codes = chooser.integers(0, 4, (3, 4), np.uint8)
    if rows:
        queries[0] = next(iter(rows.values()))
    for k, pool in ((1, None), (4, None), (5, 5), (7, 30), (200, None)):
        found = index.search(codes, k, embeddings=queries, pool=pool)
        for query, code, hits in zip(queries, codes, found, strict=True):
            expected = reference(index, query, code.tobytes(), rows, k, pool or 10 * k)
            assert [(hit.id, hit.distance) for hit in hits] == expected
            assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))


def answers_without(index: Index) -> str:
    """Return what a search by embedding is refused with, sure that plain search goes on."""
    code = np.zeros((1, 4), np.uint8)
    assert len(index.search(code, 1000)[0]) == len(index)
    try:
        index.search(code, 5, embeddings=np.ones((1, WIDTH), np.float32))
    except IndexStoreError as error:
        assert "\n" not in str(error)
        return str(error)
    return ""


def flip(path: Path, at: int) -> None:
    """Change a byte of a file; from its end where `at` is negative."""
    whole = bytearray(path.read_bytes())
    whole[at] ^= 0x10
    path.write_bytes(whole)


def first_file(path: Path) -> Path:
    return path / files_in(path)[0]
