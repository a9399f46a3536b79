"""Which bundle built an index, wherever both lie now: by a path it remembers or by fingerprint."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from fgdeploy.bundle import MANIFEST
from fgdeploy.core.errors import IndexStoreError, UsageError
from fgdeploy.core.text import counted
from fgdeploy.gallery.searchable import Searchable
from fgdeploy.gallery.several import members_of
from fgdeploy.retrieval import Index

_SHOWN = 4  # names in a message


def bundle_of(index: Searchable) -> Path | None:
    """Return the bundle that built an index, None if none is found.

    That is the one at the path that the index remembers, else the only one of its fingerprint
    beside it, where it used to lie, or in the working folder; of several indexes as one the first
    that leads to one. Its files are not verified here. Raises UsageError that lists them if there
    are several.
    """
    for member in members_of(index).values():
        if (remembered := member.bundle) and _fingerprint(remembered) == index.fingerprint:
            return remembered
    for member in members_of(index).values():
        if found := _lying_near(member):
            return found
    return None


def _lying_near(index: Searchable) -> Path | None:
    beside = [Path(index.path).absolute().parent] if isinstance(index, Index) else []
    folders = [*beside, Path()] + ([index.bundle.parent] if index.bundle else [])
    found = {path.resolve(): path for path in _bundles(folders, index.fingerprint)}
    if len(found) > 1:
        raise UsageError(
            f"{counted(len(found), 'bundle')} ({_names(found.values())}) are of the model of "
            f"{index.name}; name one with --bundle"
        )
    return next(iter(found.values()), None)


def index_of(indexes: Sequence[Path], bundles: Iterable[Path]) -> Path | None:
    """Return the only one of the indexes that one of the bundles built, None if not just one."""
    models = {_fingerprint(bundle) for bundle in bundles}
    found = [path for path in indexes if _model(path) in models]
    return found[0] if len(found) == 1 else None


def _bundles(folders: Iterable[Path], fingerprint: str) -> list[Path]:
    paths = (path for folder in folders for path in sorted(folder.glob("*.fgd")))
    return [path for path in paths if _fingerprint(path) == fingerprint]


def _fingerprint(bundle: Path) -> str | None:
    """Return what a bundle says its fingerprint is; whoever opens it verifies that."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        manifest = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
        if isinstance(manifest, dict) and isinstance(found := manifest.get("fingerprint"), str):
            return found
    return None


def _model(path: Path) -> str:
    """Return the fingerprint of the model of an index, "" where it cannot be opened."""
    with contextlib.suppress(IndexStoreError), Index.open(path) as index:
        return index.fingerprint
    return ""


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(sorted(map(str, paths))[:_SHOWN])
