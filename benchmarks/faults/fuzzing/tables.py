"""Lists of photos as CSV: quotes, separators, NUL, encodings, ragged rows, huge cells."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fuzzing import oracles
from fuzzing.mutations import ODD_TEXTS, damaged
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
    return Attempt(f"list: {way}", command, lambda outcome: judge(world, content))


def _right(world: World, content: bytes) -> dict[str, str] | str:
    """Return photo -> label of a strict reading, or why there is none."""
    try:
        found = rows(content)
    except NotCsvError as error:
        return f"a list that is not right is taken: {error}"
    labels: dict[str, str] = {}
    for row in found:
        path = os.path.normpath(row["path"])
        if labels.setdefault(path, row["class"].strip()) != row["class"].strip():
            return f"{path} has two labels"
        if path not in world.codes[world.fingerprint]:
            return f"{row['path']!r} is taken"
    return labels


def _hashed(world: World, content: bytes) -> str | None:
    if isinstance(right := _right(world, content), str):
        return right
    with np.load(world.room / "new.npz", allow_pickle=False) as held:
        paths = [os.path.normpath(str(path)) for path in held["paths"]]
        labels = [str(label) for label in held["labels"]]
        codes = [bytes(code) for code in held["codes"]]
    if dict(zip(paths, labels, strict=True)) != right:
        return f"rows {dict(zip(paths, labels, strict=True))}, expected {right}"
    truth = world.codes[world.fingerprint]
    return None if codes == [truth[path] for path in paths] else "other codes"


def _added(world: World, content: bytes) -> str | None:
    if isinstance(right := _right(world, content), str):
        return right
    found = {item["path"]: item for item in oracles.stored(world.room / "new.fgi").values()}
    got = {os.path.relpath(path, world.room): item["label"] or "" for path, item in found.items()}
    if got != right:
        return f"rows {got}, expected {right}"
    return None


def _relabelled(world: World, content: bytes) -> str | None:
    """Return what is wrong in the index, whose photos may have new labels by --labels."""
    if isinstance(right := _right(world, content), str):
        return right
    for item in oracles.stored(world.room / INDEX).values():
        name = os.path.relpath(item["path"], world.room)
        if name in world.photos and item["label"] != (
            right.get(name, Path(name).parent.name) or None
        ):
            return f"{name} has the label {item['label']!r}, expected {right.get(name)!r}"
    return oracles.wrong_index(world, [])


_USES: tuple[tuple[tuple[str, ...], Callable[[World, bytes], str | None]], ...] = (
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
