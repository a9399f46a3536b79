"""What a training script kept of its settings beside the tensors, by an allow-list of plain values.

Nothing of a file runs. torch's own reader of weights makes the records; paths and NumPy numbers,
which scripts keep by accident, are read by the stand-ins below in place of their own types. A file
that names any other type is refused as a whole (`weights.checkpoint`).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np

# Where scripts keep them, as torch.save({"model": ..., "args": args}).
_PLACES = ("args", "config")
_DEEPEST = 8  # lists in lists; a file may even hold a list that holds itself
_NUMBERS = frozenset("?bBhHiIlLqQefd")


class _PathText(str):
    """A path as text: made from the parts that a pickle holds, never a path of this machine."""

    def __new__(cls, *parts: Any) -> _PathText:
        texts = [part for part in parts if isinstance(part, str)]
        return super().__new__(cls, "/".join(texts).replace("//", "/"))


class _Kind:
    """The type of a NumPy number, by its letters."""

    def __init__(self, letters: Any = "", *rest: Any) -> None:
        self.letters = letters if isinstance(letters, str) else ""

    def __setstate__(self, state: Any) -> None:
        """Keep nothing: byte order and fields are not needed for a number."""


def _number(kind: Any = None, raw: Any = b"") -> Any:
    """Return the number that NumPy wrote as bytes, None for anything else."""
    try:
        letters = np.dtype(kind.letters)
        if letters.char not in _NUMBERS or not isinstance(raw, bytes):
            return None
        return np.frombuffer(raw, letters)[0].item()
    except (AttributeError, IndexError, TypeError, ValueError):
        return None


# What torch's reader takes in place of the types of these names.
STAND_INS: tuple[Any, ...] = (
    argparse.Namespace,
    *(
        (_PathText, f"{module}.{name}")
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path")
    ),
    (_Kind, "numpy.dtype"),
    *((_number, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
)


def of(content: Any) -> dict[str, Any]:
    """Return the arguments in what a file holds, values that are not plain left out.

    Plain are None, bool, int, float, str and lists, tuples and dicts of them.
    """
    for place in _PLACES:
        held = content.get(place) if isinstance(content, Mapping) else None
        found = _plain(vars(held) if isinstance(held, argparse.Namespace) else held)
        if isinstance(found, dict):
            return found
    return {}


def _plain(value: Any, depth: int = 0) -> Any:
    """Return a plain value, made of builtin types alone; Ellipsis for what is none."""
    for kind in (str, float):
        if isinstance(value, kind):
            return kind(value)
    if value is None or type(value) in (bool, int):
        return value
    if depth > _DEEPEST:
        return ...
    if isinstance(value, (list, tuple)):
        items = [_plain(each, depth + 1) for each in value]
        return ... if any(each is ... for each in items) else items
    if isinstance(value, Mapping):
        pairs = {key: _plain(each, depth + 1) for key, each in value.items() if type(key) is str}
        return {key: each for key, each in pairs.items() if each is not ...}
    return ...
