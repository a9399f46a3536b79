"""A JSON value with one value in it replaced by another kind, for every value and every kind."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

NESTED: list[Any] = []
for _ in range(600):
    NESTED = [NESTED]
ODD = (None, [], {}, "", "x", -1, 0, 1e308, float("inf"), 10**30, True, "\ud800", NESTED)
PYTHON_WORDS = r"NoneType|\b(dict|int|str|bool|float)\b"  # what no message for people has


def mutants(entry: Any) -> Iterator[Any]:
    """Yield copies of `entry`, a value of JSON, each with one value replaced."""
    for way in list(_places(entry)):
        for odd in ODD:
            changed = copy.deepcopy(entry)
            inner = changed
            for step in way[:-1]:
                inner = inner[step]
            inner[way[-1]] = odd
            yield changed


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to each value in a JSON value, containers too."""
    steps = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in steps:
        yield (*path, name)
        if isinstance(inner, (dict, list)):
            yield from _places(inner, (*path, name))
