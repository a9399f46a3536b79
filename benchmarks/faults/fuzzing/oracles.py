"""What is right, found without the code that is tried: rankings, files of codes, indexes."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fuzzing.running import Outcome
from fuzzing.world import INDEX, QUERY, World


def distances(code: bytes, items: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the Hamming distance from a code to each item."""
    query = int.from_bytes(code, "big")
    return [(query ^ int(item["code"], 16)).bit_count() for item in items]


def ranking(
    code: bytes, items: Sequence[Mapping[str, Any]], k: int | None, radius: int | None = None
) -> list[tuple[int, int]]:
    """Return (distance, id) of the nearest items, equal ones in the order of their ids."""
    every = sorted((d, item["id"]) for d, item in zip(distances(code, items), items, strict=True))
    if radius is not None:
        every = [one for one in every if one[0] <= radius]
    return every if radius is not None else every[: 10 if k is None else k]


def wrong_hits(line: str, right: Sequence[tuple[int, int]]) -> str | None:
    """Return what differs between one line of `search --json` and a ranking."""
    hits = json.loads(line)["hits"]
    got = [(hit["distance"], hit["id"]) for hit in hits]
    if got != list(right):
        return f"hits {got[:5]}, expected {list(right)[:5]}"
    if [hit["rank"] for hit in hits] != list(range(1, len(hits) + 1)):
        return "ranks are not 1, 2, 3"
    return None


def stored(index: Path) -> dict[int, dict[str, Any]]:
    """Return id -> columns of all items, read from the database itself."""
    connection = sqlite3.connect(f"file:{index / 'index.sqlite'}?mode=ro", uri=True)
    try:
        connection.row_factory = sqlite3.Row
        return {row["id"]: dict(row) for row in connection.execute("SELECT * FROM items")}
    finally:
        connection.close()


def wrong_codes(
    world: World, file: Path, wanted: Sequence[str], more: Sequence[str] = ()
) -> str | None:
    """Return what is wrong in a file that `hash` wrote of the `wanted` photos; `more` may be any.

    So may the codes of another fingerprint.
    """
    with np.load(file, allow_pickle=False) as held:
        found = {
            os.path.normpath(str(path)): bytes(code)
            for path, code in zip(held["paths"], held["codes"], strict=True)
        }
        labels = {
            os.path.normpath(str(path)): str(label)
            for path, label in zip(held["paths"], held["labels"], strict=True)
        }
        fingerprint = str(held["fingerprint"])
    truth = world.codes.get(fingerprint)
    if set(found) - set(more) != set(wanted):
        return f"photos {sorted(found)[:5]}, expected {sorted(wanted)[:5]}"
    for path, code in found.items():
        if path in more:
            continue
        if truth is not None and truth.get(path) != code:
            return f"{path}: code {code.hex()}, expected {truth.get(path, b'').hex() or 'none'}"
        if labels[path] != Path(path).absolute().parent.name:
            return f"{path}: label {labels[path]!r}"
    return None


def wrong_search(world: World, outcome: Outcome) -> str | None:
    """Return what is wrong with `search query.png --json` in the undamaged index."""
    right = ranking(world.codes[world.fingerprint][QUERY], world.items, None)
    return wrong_hits(outcome.out, right)


def wrong_index(world: World, added: Sequence[str]) -> str | None:
    """Return what is wrong in the index after photos were added: theirs, or any other item."""
    found = stored(world.room / INDEX)
    paths = {item["path"]: item for item in found.values()}
    for item in world.items:
        if (there := found.get(item["id"])) is None or there["code"].hex() != item["code"]:
            return f"item {item['id']} is gone or changed"
    for name in added:
        there = paths.get(os.path.join(world.room, name))
        if there is None or there["code"] != world.codes[world.fingerprint][name]:
            return f"{name} is not in the index, or with another code"
    return None
