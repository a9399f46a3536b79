"""Items whose photo is gone: deleted, not on a disk that is not mounted."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fgdeploy.core.errors import DataError
from fgdeploy.core.text import counted
from fgdeploy.retrieval import Index, Item
from fgdeploy.retrieval.store.ids import id_of


@dataclass(frozen=True)
class Gone:
    """Items without a photo. unsure: those whose whole folder is gone, or a link's target."""

    items: Sequence[Item]
    unsure: Sequence[Item]


def gone(index: Index, where: str | None = None) -> Gone:
    """Return the items whose photo is not at its path any more, in order of id.

    A photo counts as deleted where another photo of the index is left in its folder, in the nearest
    folder above that is still there, or, where its own folder was emptied, in the one above, on the
    same disk. Without one its disk may not be mounted. URIs and items without a path are passed
    over, as are photos that cannot be looked at (no permission).
    """
    missing: list[Item] = []
    vouching: set[tuple[str, int]] = set()  # folders, and disks on which a photo below them is
    for item in index.items(where):
        if item.path is None or "://" in item.path:
            continue
        try:
            disk = os.stat(item.path).st_dev
        except (FileNotFoundError, NotADirectoryError):
            missing.append(item)
        except (OSError, ValueError):
            continue
        else:
            for folder in _above(item.path):
                if (folder, disk) in vouching:
                    break
                vouching.add((folder, disk))
    return Gone(missing, [item for item in missing if not _is_deleted(item.path or "", vouching)])


def prune(index: Index, found: Gone, missing_folders: bool = False) -> int:
    """Remove items whose photo is gone, all or none; returns how many.

    missing_folders: also where whole folders are missing. Raises DataError without it.
    """
    if found.unsure and not missing_folders:
        raise DataError(
            f"whole folders are gone, with {len(found.unsure)} of "
            f"{counted(len(found.items), 'missing photo')}, such as {found.unsure[0].path}; "
            "nothing was removed; mount the disk if it is not, or say --missing-folders"
        )
    return index.remove([id_of(item.id) for item in found.items])


def _above(path: str) -> Iterable[str]:
    return map(str, Path(os.path.abspath(path)).parents)


def _is_deleted(path: str, vouching: set[tuple[str, int]]) -> bool:
    if os.path.lexists(path):
        return False  # a link is there, and what it points to may come back
    first, *others = _above(path)
    nearest = next(folder for folder in (first, *others) if os.path.isdir(folder))
    disk = os.stat(nearest).st_dev
    near = [nearest, *others[:1]] if nearest == first else [nearest]
    return any((folder, disk) in vouching for folder in near)
