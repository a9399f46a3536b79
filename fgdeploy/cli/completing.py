"""What the shell offers after <Tab>: bundles, indexes, methods and engines, by file names.

Nothing is opened and no model or engine imported: an answer takes as long as `--help`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

Complete = Callable[[str], list[str]]


def bundles(incomplete: str) -> list[str]:
    """Return the bundles, and the folders on the way to one, that begin so."""
    return list(_paths(incomplete, ".fgd"))


def indexes(incomplete: str) -> list[str]:
    """Return the indexes, and the folders on the way to one, that begin so."""
    return list(_paths(incomplete, ".fgi"))


def packed(incomplete: str) -> list[str]:
    """Return the packed bundles, and the folders on the way to one, that begin so."""
    return list(_paths(incomplete, ".fgdz"))


def methods(incomplete: str) -> list[str]:
    """Return the names of methods: each has a file of its own, and so has each reduction."""
    home = find_spec("fgdeploy")
    places = home.submodule_search_locations if home else None
    found = [path.stem for place in places or () for path in _declaring(Path(place) / "models")]
    return sorted(name for name in found if name.startswith(incomplete))


def backends(incomplete: str) -> list[str]:
    """Return the names of engines' backends."""
    from fgdeploy.engines.backends import BACKENDS

    return [name for name in BACKENDS if name.startswith(incomplete)]


# By what a parameter is called in help: its option, or what stands for its value.
WAYS: dict[str, Complete] = {
    "BUNDLE": bundles,
    "INDEX": indexes,
    "PACKED": packed,
    "--method": methods,
    "--backend": backends,
    "--engine": backends,
    "--reference": backends,
    "--candidate": backends,
}


def _declaring(models: Path) -> Iterator[Path]:
    """Yield the files that declare a method, or a reduction that is one by itself."""
    for room, what in (("methods", b"METHOD"), ("reduce", b"REDUCTION")):
        for path in (models / room).glob("*.py"):
            if b"\n%s = " % what in path.read_bytes():
                yield path


def _paths(incomplete: str, suffix: str) -> Iterator[str]:
    """Yield what ends in `suffix`, and folders with a slash, in the folder that is being typed."""
    folder, _, start = incomplete.rpartition("/")
    above = f"{folder}/" if incomplete.startswith("/") or folder else ""
    try:
        with os.scandir(above or ".") as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in found:
        if not entry.name.startswith(start) or (entry.name.startswith(".") and not start):
            continue
        if entry.name.endswith(suffix):
            yield above + entry.name
        elif entry.is_dir() and not entry.name.endswith((".fgd", ".fgi")):
            yield f"{above}{entry.name}/"
