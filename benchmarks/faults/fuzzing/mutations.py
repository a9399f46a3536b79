"""Small damages: to bytes, to JSON values, to texts and numbers that a user may give."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

Way = Callable[[random.Random, bytes, bytes], bytes]


def _span(chooser: random.Random, whole: bytes) -> tuple[int, int]:
    start = chooser.randrange(len(whole) or 1)
    return start, min(len(whole), start + chooser.choice((1, 2, 7, 64, 1000)))


def _flip(chooser: random.Random, whole: bytes, other: bytes) -> bytes:
    hurt = bytearray(whole)
    for _ in range(chooser.choice((1, 1, 1, 5))):
        hurt[chooser.randrange(len(hurt))] ^= 1 << chooser.randrange(8)
    return bytes(hurt)


def _set(chooser: random.Random, whole: bytes, other: bytes) -> bytes:
    start, stop = _span(chooser, whole)
    return whole[:start] + chooser.randbytes(stop - start) + whole[stop:]


def _zero(chooser: random.Random, whole: bytes, other: bytes) -> bytes:
    start, stop = _span(chooser, whole)
    return whole[:start] + bytes(stop - start) + whole[stop:]


def _drop(chooser: random.Random, whole: bytes, other: bytes) -> bytes:
    start, stop = _span(chooser, whole)
    return whole[:start] + whole[stop:]


def _repeat(chooser: random.Random, whole: bytes, other: bytes) -> bytes:
    start, stop = _span(chooser, whole)
    return whole[:stop] + whole[start:]


def _insert(chooser: random.Random, whole: bytes, other: bytes) -> bytes:
    place = chooser.randrange(len(whole) + 1)
    junk = chooser.choice((b"\0", b"\n", b'"', b"\xff", b"\xef\xbb\xbf", chooser.randbytes(9)))
    return whole[:place] + junk + whole[place:]


def _splice(chooser: random.Random, whole: bytes, other: bytes) -> bytes:
    place = chooser.randrange(len(whole) + 1)
    return whole[:place] + other[place:]


WAYS: dict[str, Way] = {
    "bits flipped": _flip,
    "bytes set": _set,
    "bytes zeroed": _zero,
    "bytes dropped": _drop,
    "bytes repeated": _repeat,
    "bytes inserted": _insert,
    "cut off": lambda chooser, whole, other: whole[: chooser.randrange(len(whole) or 1)],
    "its start cut off": lambda chooser, whole, other: whole[chooser.randrange(len(whole) or 1) :],
    "made longer": lambda chooser, whole, other: whole + chooser.randbytes(chooser.choice((1, 99))),
    "continued by another": _splice,
    "emptied": lambda chooser, whole, other: b"",
}


def damaged(chooser: random.Random, whole: bytes, other: bytes = b"") -> tuple[str, bytes]:
    """Return what was done to bytes, and the bytes, which differ from `whole`.

    other: a file of the same kind.
    """
    while True:
        way = chooser.choice(list(WAYS))
        if (hurt := WAYS[way](chooser, whole, other)) != whole:
            return way, hurt


ODD_TEXTS = (
    "", " ", "\0", "\n", "a\nb", "\x1b[31mred", "\r", "'", '"', "`", ";", ",", "%s", "{}", "../..",
    "é" * 3, "\u202e", "\ufeff", "\U0001f989", "e\u0301", "x" * 300, "x" * 70_000, "NUL", "-", "--",
    "-1", "a:b", "*",
)  # fmt: skip
LONE_SURROGATE = "\ud800"
ODD_NUMBERS = (
    "0", "-0", "-1", "1", "2", "3.5", "1e3", "1e400", "nan", "-nan", "inf", "-inf", "0x10", "1_000",
    "٣", "²", "+1", " 1", "2147483648", "-2147483649", "9223372036854775807", "9223372036854775808",
    "-9223372036854775809", "18446744073709551616", "9" * 30, "9" * 5000, "1" + "0" * 400,
    "0" * 5000 + "1", "", "one", "1,2", "1 2", "None", "true",
)  # fmt: skip
ODD_VALUES = (
    None, True, False, 0, 1, -1, 0.5, -0.0, 1e308, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, [],
    {}, [[]], [None], {"": None}, {"a": {"b": [1, "c"]}}, [1, 2, 3], float("nan"), float("inf"),
    LONE_SURROGATE, *ODD_TEXTS,
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values below a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, one in inside:
        found.append((*path, key))
        if isinstance(one, (dict, list)):
            found += places(one, (*path, key))
    return found


def edited(chooser: random.Random, value: Any) -> tuple[str, Any]:
    """Return what was done to a JSON object or list, and a changed copy of it."""
    value, told = copy.deepcopy(value), []
    for _ in range(chooser.choice((1, 1, 1, 2, 3))):
        path = chooser.choice(places(value) or [()])
        if not path:
            break
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        change = chooser.choice(list(_CHANGES))
        _CHANGES[change](chooser, holder, path[-1], value)
        told.append(f"{'.'.join(map(str, path))} {change}")
    return ", ".join(told), value


def _nudge(chooser: random.Random, holder: Any, key: Any, whole: Any) -> None:
    old = holder[key]
    if isinstance(old, (int, float)):
        holder[key] = chooser.choice((old + 1, old - 1, -old, old * 2, float(old), str(old)))
    elif isinstance(old, str):
        holder[key] = chooser.choice((old[:-1], old + "x", old.upper(), old[::-1], f" {old}"))
    else:
        holder[key] = [old]


def _put(chooser: random.Random, holder: Any, key: Any, whole: Any) -> None:
    holder[key] = chooser.choice(ODD_VALUES)


def _remove(chooser: random.Random, holder: Any, key: Any, whole: Any) -> None:
    del holder[key]


def _exchange(chooser: random.Random, holder: Any, key: Any, whole: Any) -> None:
    place = chooser.choice(places(whole))
    for step in place[:-1]:
        whole = whole[step]
    holder[key] = copy.deepcopy(whole[place[-1]])


def _add(chooser: random.Random, holder: Any, key: Any, whole: Any) -> None:
    if isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    else:
        holder[chooser.choice(("extra", "", "x" * 300, "../x", "a\nb", f"{key}x"))] = holder[key]


def _nest(chooser: random.Random, holder: Any, key: Any, whole: Any) -> None:
    for _ in range(chooser.choice((3, 300))):
        holder[key] = {"deep": holder[key]}


_CHANGES: dict[str, Callable[[random.Random, Any, Any, Any], None]] = {
    "nudged": _nudge,
    "made odd": _put,
    "removed": _remove,
    "exchanged": _exchange,
    "added to": _add,
    "nested": _nest,
}
