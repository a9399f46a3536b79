"""Files of codes: .npz and .jsonl, their bytes damaged or their values changed."""

from __future__ import annotations

import io
import json
import os
import random
import re
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from fuzzing import oracles
from fuzzing.mutations import ODD_TEXTS, ODD_VALUES, damaged, edited
from fuzzing.running import Outcome
from fuzzing.world import BITS, CODES, INDEX, LINES, Attempt, World

NEW = "new.fgi"


def attempt(chooser: random.Random, world: World) -> Attempt:
    """Change a file of codes, and import it or search with it."""
    if chooser.random() < 0.5:
        file, ways = CODES, _ARRAYS
    else:
        file, ways = LINES, _LINES
    path = world.room / file
    way = chooser.choice(list(ways))
    path.write_bytes(ways[way](chooser, path.read_bytes()))
    what = f"{file}: {way}"
    if file == CODES and chooser.random() < 0.5:
        arguments: tuple[str, ...] = ("search", "--codes", CODES, "-i", INDEX, "--json", "-k", "5")
        return Attempt(what, arguments, lambda outcome: _searched(world, outcome))
    index = chooser.choice((NEW, INDEX))
    before = {item["id"]: dict(item) for item in world.items} if index == INDEX else {}
    read = _read_arrays if file == CODES else _read_lines
    return Attempt(
        what,
        ("index", "import", index, file),
        lambda outcome: _imported(world, index, before, read(world)),
        lambda outcome: _cut_off(world, index, before, outcome),
    )


def _cut_off(
    world: World, index: str, before: dict[int, dict[str, Any]], outcome: Outcome
) -> str | None:
    """Return what is wrong when a file ends too early and the items up to there were added."""
    if not re.search(
        r"ends after item \d+ of \d+, so it was cut off; those were added", outcome.err
    ):
        return "refused, but not as it was"
    return _imported(world, index, before, _read_lines(world, whole=False))


def _searched(world: World, outcome: Outcome) -> str | None:
    with np.load(world.room / CODES, allow_pickle=False) as held:
        codes = [bytes(code) for code in held["codes"]]
        names = [str(path) for path in held["paths"]]
    lines = outcome.out.splitlines()
    if len(lines) != len(codes):
        return f"{len(lines)} answers for {len(codes)} codes"
    for line, code, name in zip(lines, codes, names, strict=True):
        if wrong := oracles.wrong_hits(line, oracles.ranking(code, world.items, 5)):
            return f"{name}: {wrong}"
    return None


Rows = list[tuple[Any, ...]]


def _imported(
    world: World, index: str, before: dict[int, dict[str, Any]], rows: Rows
) -> str | None:
    """Return what is wrong in the index: paths, codes and labels are those of the file."""
    held = oracles.stored(world.room / index)
    got = {(item["path"], item["code"].hex(), item["label"]) for item in held.values()}
    # A line without a path says nothing of it
    rows = [(before[n]["path"] if p is None and n in before else p, c, t, n) for p, c, t, n in rows]
    paths, ids = {row[0] for row in rows}, {row[3] for row in rows}
    wanted = {row[:3] for row in rows} | {
        (item["path"], item["code"], item["label"])
        for number, item in before.items()
        if item["path"] not in paths and number not in ids
    }
    if got != wanted:
        more, fewer = sorted(got - wanted, key=str), sorted(wanted - got, key=str)
        return f"items {more[:3]}, expected {fewer[:3]}"
    return None


def _read_arrays(world: World) -> Rows:
    with np.load(world.room / CODES, allow_pickle=False) as held:
        if int(held["bits"]) != BITS or str(held["fingerprint"]) == "":
            return [("of other bits", "", "", 0)]
        columns = zip(held["paths"], held["codes"], held["labels"], strict=True)
        return [
            (_absolute(world, path), bytes(code).hex(), label or None, None)
            for path, code, label in ((str(p), c, str(one)) for p, c, one in columns)
        ]


def _read_lines(world: World, whole: bool = True) -> Rows:
    head, *lines = (world.room / LINES).read_bytes().decode().rstrip("\n").split("\n")
    assert not whole or json.loads(head)["items"] == len(lines), "other items than line 1 says"
    found = (json.loads(line) for line in lines)
    return [(one.get("path"), one["code"].lower(), one.get("label"), one["id"]) for one in found]


def _absolute(world: World, path: str) -> str:
    """Return a path as `index add` keeps it where the photo is there, else as it is."""
    whole = os.path.abspath(world.room / path)
    return whole if "://" not in path and os.path.exists(whole) else path


# .npz


def _rewritten(
    chooser: random.Random, whole: bytes, change: Callable[[dict[str, Any]], None]
) -> bytes:
    with np.load(io.BytesIO(whole), allow_pickle=False) as held:
        arrays = {name: held[name] for name in held.files}
    change(arrays)
    target = io.BytesIO()
    np.savez(target, **arrays)
    return target.getvalue()


def _array(chooser: random.Random, whole: bytes) -> bytes:
    def change(arrays: dict[str, Any]) -> None:
        name = chooser.choice(sorted(arrays))
        arrays[name] = chooser.choice(_ARRAY_CHANGES)(chooser, arrays[name])

    return _rewritten(chooser, whole, change)


_ARRAY_CHANGES: tuple[Callable[[random.Random, Any], Any], ...] = (
    lambda chooser, array: array[:-1] if array.ndim else array.reshape(1),
    lambda chooser, array: array[:0] if array.ndim else array.reshape(1)[:0],
    lambda chooser, array: array[None],
    lambda chooser, array: array.reshape(-1)[:1].reshape(()),
    lambda chooser, array: array.astype("S64" if array.dtype.kind == "U" else np.float64),
    lambda chooser, array: array.astype(object),
    lambda chooser, array: array.astype(">U64" if array.dtype.kind == "U" else ">u2"),
    lambda chooser, array: array[..., ::-1] if array.ndim else array,
    lambda chooser, array: np.concatenate([array, array]) if array.ndim else array,
    lambda chooser, array: np.zeros(
        array.shape, chooser.choice(("u1", "i8", "f4", "?", "U3", "M8[s]", "V4", "c16"))
    ),
    lambda chooser, array: np.full(array.shape, chooser.choice((0, 255, -1, 2**62, np.nan))),
    lambda chooser, array: np.full(
        array.shape, chooser.choice((*ODD_TEXTS[:-1], "\udcff", "a.jpg"))
    ),
)


def _cell(chooser: random.Random, whole: bytes) -> bytes:
    def change(arrays: dict[str, Any]) -> None:
        if chooser.random() < 0.3:
            arrays["codes"][chooser.randrange(len(arrays["codes"])), -1] ^= chooser.choice(
                (1, 8, 16)
            )
            return
        name = chooser.choice(("paths", "labels"))
        texts = [str(text) for text in arrays[name]]
        texts[chooser.randrange(len(texts))] = chooser.choice((*ODD_TEXTS, "\udcff", texts[0]))
        arrays[name] = np.array(texts)

    return _rewritten(chooser, whole, change)


def _member(chooser: random.Random, whole: bytes) -> bytes:
    """Drop, add, rename, compress or double a member of the zip."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive, zipfile.ZipFile(target, "w") as new:
        names = archive.namelist()
        hurt, way = (
            chooser.choice(names),
            chooser.choice(("drop", "rename", "deflate", "junk", "double")),
        )
        for name in names:
            content = archive.read(name)
            if name != hurt:
                new.writestr(name, content)
            elif way == "rename":
                new.writestr(chooser.choice(("x.npy", name[:-4], "../x.npy")), content)
            elif way == "deflate":
                new.writestr(name, content, zipfile.ZIP_DEFLATED)
            elif way == "junk":
                new.writestr(
                    name, chooser.choice((b"", b"\x93NUMPY", damaged(chooser, content)[1]))
                )
            elif way == "double":
                new.writestr(name, content)
                new.writestr(name, damaged(chooser, content)[1])
    return target.getvalue()


def _renamed(chooser: random.Random, whole: bytes) -> bytes:
    """Be another kind of file than the name says."""
    array = io.BytesIO()
    np.save(array, np.arange(9))
    return chooser.choice(
        (array.getvalue(), b"{}", b"[]\n", b"PK\x05\x06" + bytes(18), b"\x80\x04N.")
    )


_ARRAYS: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "bytes": lambda chooser, whole: damaged(chooser, whole)[1],
    "an array": _array,
    "a cell": _cell,
    "a member": _member,
    "another kind of file": _renamed,
}


# .jsonl


def _value(chooser: random.Random, whole: bytes) -> bytes:
    lines = whole.splitlines()
    place = chooser.randrange(len(lines)) if chooser.random() < 0.7 else 0
    lines[place] = json.dumps(edited(chooser, json.loads(lines[place]))[1]).encode()
    return b"\n".join(lines) + b"\n"


def _field(chooser: random.Random, whole: bytes) -> bytes:
    lines = whole.splitlines()
    place = chooser.randrange(1, len(lines))
    item = json.loads(lines[place])
    item[chooser.choice(("id", "code", "path", "label", "sha256", "time", "json"))] = (
        chooser.choice(
            (
                *ODD_VALUES,
                "2026-01-01",
                "0001-01-01T00:00:00+23:59",
                "9999-12-31T23:59:59-12:00",
                "FFFFF0",
                item["id"] + 1,
                "[" * 9000,
            )
        )
    )
    lines[place] = json.dumps(item).encode()
    return b"\n".join(lines) + b"\n"


def _line(chooser: random.Random, whole: bytes) -> bytes:
    lines = whole.splitlines(keepends=True)
    place = chooser.randrange(len(lines))
    changes: tuple[Callable[[], Any], ...] = (
        lambda: lines.pop(place),
        lambda: lines.insert(place, chooser.choice(lines)),
        lambda: lines.insert(
            place,
            chooser.choice((b"\n", b"null\n", b"{}\n", b"[1]\n", b"\xff\n", b" " * 99 + b"\n")),
        ),
        lambda: chooser.shuffle(lines),
        lambda: lines.__setitem__(place, lines[place].rstrip() + b" " + lines[place]),
        lambda: lines.__setitem__(place, lines[place].replace(b"\n", b"\r\n")),
    )
    chooser.choice(changes)()
    return b"".join(lines)


_LINES: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "bytes": lambda chooser, whole: damaged(chooser, whole)[1],
    "a value": _value,
    "a field": _field,
    "a line": _line,
}
