"""Lists of photos as CSV: quotes, separators, NUL, encodings, ragged rows, huge cells."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fuzzing import oracles
from fuzzing.mutations import ODD_TEXTS, damaged
from fuzzing.running import Outcome
from fuzzing.strict_csv import NotCsvError, rows
from fuzzing.world import BUNDLE, INDEX, PHOTOS, Attempt, World

NAME = "list.csv"
Rows = list[list[str]]


def attempt(chooser: random.Random, world: World) -> Attempt:
    """Write a list with faults, and hash or store the photos that it names."""
    listed = [["path", "class", "split"]]
    for name in world.photos:
        listed.append([name, Path(name).parent.name, chooser.choice(("train", "test"))])
    way = chooser.choice(list(_WAYS))
    content = _WAYS[way](chooser, listed)
    (world.room / NAME).write_bytes(content)
    command, judge = chooser.choice(_USES)

    def right(outcome: Outcome) -> str | None:
        pairs = _right(world, content, outcome)
        return pairs if isinstance(pairs, str) else judge(world, pairs)

    return Attempt(f"list: {way}", command, right)


Pairs = list[tuple[str, str]]  # photo, label


def _right(world: World, content: bytes, outcome: Outcome) -> Pairs | str:
    """Return the pairs of a strict reading, or why the list may not be taken like this."""
    try:
        found = rows(content)
    except NotCsvError as error:
        return f"a list that is not right is taken: {error}"
    places = (os.path.join(world.room, row["path"]) for row in found)
    names = (os.path.relpath(place, world.room) for place in places)
    pairs = [(name, row["class"].strip()) for name, row in zip(names, found, strict=True)]
    for (path, label), row in zip(pairs, found, strict=True):
        if path not in world.codes[world.fingerprint]:
            return f"{row['path']!r} is taken"
        if dict(pairs)[path] != label and Path(path).name not in outcome.err:
            return f"{path} has two labels, which nobody says"
    return pairs


def _hashed(world: World, pairs: Pairs) -> str | None:
    with np.load(world.room / "new.npz", allow_pickle=False) as held:
        paths = [os.path.relpath(str(path), world.room) for path in held["paths"]]
        got = list(zip(paths, map(str, held["labels"]), strict=True))
        codes = [bytes(code) for code in held["codes"]]
    if got != pairs:
        return f"rows {got}, expected {pairs}"
    truth = world.codes[world.fingerprint]
    return None if codes == [truth[path] for path in paths] else "other codes"


def _added(world: World, pairs: Pairs) -> str | None:
    found = oracles.stored(world.room / "new.fgi").values()
    got = {os.path.relpath(item["path"], world.room): item["label"] or "" for item in found}
    return None if got == dict(pairs) else f"rows {got}, expected {dict(pairs)}"


def _relabelled(world: World, pairs: Pairs) -> str | None:
    """Return what is wrong in the index, whose photos may have new labels by --labels."""
    for item in oracles.stored(world.room / INDEX).values():
        name = os.path.relpath(item["path"], world.room)
        label = dict(pairs).get(name, Path(name).parent.name) or None
        if name in world.photos and item["label"] != label:
            return f"{name} has the label {item['label']!r}, expected {label!r}"
    return oracles.wrong_index(world, [])


_USES: tuple[tuple[tuple[str, ...], Callable[[World, Pairs], str | None]], ...] = (
    (("hash", NAME, "-b", BUNDLE, "-o", "new.npz"), _hashed),
    (("hash", NAME, "-b", BUNDLE, "-o", "new.npz"), _hashed),
    (("index", "add", "new.fgi", NAME, "-b", BUNDLE), _added),
    (("index", "add", INDEX, PHOTOS, "--labels", NAME, "-b", BUNDLE), _relabelled),
)


def _text(listed: Rows, mark: str = ",", end: str = "\n") -> str:
    return "".join(mark.join(row) + end for row in listed)


def _bytes(chooser: random.Random, listed: Rows) -> bytes:
    return damaged(chooser, _text(listed).encode(), b'path,class\n"photos')[1]


def _stray(chooser: random.Random, listed: Rows) -> bytes:
    text = _text(listed)
    for _ in range(chooser.choice((1, 1, 2, 3))):
        place = chooser.randrange(len(text) + 1)
        text = (
            text[:place]
            + chooser.choice('"",;\t\n\r\0\'\\ \ufeff\u2028\x0b\x1c\x85')
            + text[place:]
        )
    return text.encode()


def _odd_cell(chooser: random.Random, listed: Rows) -> bytes:
    row = chooser.choice(listed)
    place = chooser.randrange(len(row))
    odd = chooser.choice((*ODD_TEXTS, "x" * 200_000, "../room/" + row[place], "./" + row[place]))
    row[place] = chooser.choice((odd, f'"{odd}"', row[place] + odd, f'"{row[place]}{odd}"'))
    return _text(listed).encode(errors="surrogatepass")


def _ragged(chooser: random.Random, listed: Rows) -> bytes:
    row = chooser.choice(listed)
    for _ in range(chooser.choice((1, 1, 2))):
        chooser.choice(
            (row.pop, lambda: row.append(chooser.choice(("", "x"))), lambda: row.insert(0, ""))
        )()
        if not row:
            break
    return _text(listed).encode()


def _encoded(chooser: random.Random, listed: Rows) -> bytes:
    listed[chooser.randrange(1, len(listed))][1] = "Grünspecht"
    return _text(listed).encode(
        chooser.choice(("utf-16", "utf-8-sig", "latin-1", "utf-32", "utf-16-le", "cp037", "utf-7"))
    )


def _separated(chooser: random.Random, listed: Rows) -> bytes:
    for row in listed if chooser.random() < 0.5 else [chooser.choice(listed)]:
        row[:] = [chooser.choice((cell, f'"{cell}"', f" {cell}", f"{cell} ")) for cell in row]
    return _text(
        listed,
        chooser.choice((",", ";", "\t", "|", " ", ", ", ",,")),
        chooser.choice(("\n", "\r\n", "\r", "\n\n")),
    ).encode()


def _doubled(chooser: random.Random, listed: Rows) -> bytes:
    row = list(chooser.choice(listed))
    if chooser.random() < 0.5:
        row[chooser.randrange(3)] = chooser.choice(("owl", "test", "photos/owl/0.png"))
    listed.insert(chooser.randrange(len(listed) + 1), row)
    return _text(listed).encode()


def _headed(chooser: random.Random, listed: Rows) -> bytes:
    names = [
        "path",
        "class",
        "split",
        "PATH",
        " Class ",
        "label",
        "file",
        "",
        "path",
        "class",
        "id",
        "pa\0th",
    ]
    width = chooser.choice((1, 2, 3, 3, 3, 4))
    listed[0] = chooser.sample(names, width)
    for row in listed[1:]:
        row[:] = (row * 2)[:width]
    return _text(listed).encode()


_WAYS: dict[str, Callable[[random.Random, Rows], bytes]] = {
    "bytes": _bytes,
    "stray characters": _stray,
    "an odd cell": _odd_cell,
    "ragged": _ragged,
    "encoded": _encoded,
    "separated": _separated,
    "a row twice": _doubled,
    "another header": _headed,
}
