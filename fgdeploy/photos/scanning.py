"""The photos below a folder, and what lies there that is meant as a photo but cannot be one."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from fgdeploy.core.text import is_utf8
from fgdeploy.photos.formats import SUFFIXES, unreadable

_NOT_UTF8 = "{!a}: the name is not UTF-8, so it cannot be written down; rename it"


@dataclass
class Scan:
    """Names of image files in order of their paths, and one line each on what was left out."""

    names: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def found(self) -> list[Path]:
        """Return the image files."""
        return [Path(name) for name in self.names]


def scan(folder: Path) -> Scan:
    """List the image files below a folder. Hidden ones and files of other kinds are not meant.

    Left out and named: folders that cannot be listed, images of formats that are not read, links
    to nothing or to a folder that is listed anyway, names that are not UTF-8.
    """
    result = Scan()
    seen: dict[tuple[int, int], Path] = {}
    waiting, links = [folder], list[Path]()  # a folder is listed where it lies, if it does
    while waiting or links:
        here = waiting.pop() if waiting else links.pop(0)
        try:
            facts = os.stat(here)
            first = seen.setdefault((facts.st_dev, facts.st_ino), here)
            if first is not here:
                result.skipped.append(f"{here}: a link to {first}, which is listed already")
                continue
            with os.scandir(here) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            result.skipped.append(f"{here}: the folder cannot be read ({error.strerror})")
            continue
        for entry in inside:
            if not entry.name.startswith("."):
                path = here / entry.name
                if not (os.path.isdir(path) if entry.is_symlink() else entry.is_dir()):
                    _sort_out(path, entry.is_symlink(), result)
                elif is_utf8(entry.name):
                    (links if entry.is_symlink() else waiting).append(path)
                else:
                    result.skipped.append(_NOT_UTF8.format(str(path)))
    result.names.sort(key=lambda name: name.replace(os.sep, "\0"))  # as paths, part by part
    return result


def _sort_out(path: Path, is_link: bool, result: Scan) -> None:
    """Note in `result` what is no folder."""
    reason = unreadable(path.suffix)
    if is_link and not os.path.exists(path):
        result.skipped.append(f"{path}: a link to nothing ({os.readlink(path)})")
    elif path.suffix.lower() in SUFFIXES or reason:
        if not is_utf8(path.name):
            result.skipped.append(_NOT_UTF8.format(str(path)))
        elif not os.path.isfile(path):  # opening a pipe would wait for ever
            result.skipped.append(f"{path}: neither a file nor a folder")
        elif reason:
            result.skipped.append(f"{path} {reason}")
        else:
            result.names.append(str(path))
