"""The index and bundle of a camera on site, made where frames are to be enrolled into a new one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from fgdeploy.core.errors import IndexStoreError
from fgdeploy.gallery import open_or_create
from fgdeploy.hasher import Hasher
from fgdeploy.live.pair import Pair
from fgdeploy.retrieval import Index

Load = Callable[["Path | None"], Hasher]


@contextlib.contextmanager
def pair_for(path: Path, bundle: Path | None, load: Load, enrolls: bool) -> Iterator[Pair]:
    """Open an index and its bundle, for as long as the block runs.

    enrolls: an index that is not there is made, and removed again if nothing came in. load: opens a
    bundle, or of None the one that is meant then. Raises as `Pair` does.
    """
    if not enrolls:
        with Pair(path, bundle, load) as pair:
            yield pair
        return
    hasher = load(bundle)
    waiting = [hasher]  # until the pair has it
    made = False
    try:
        index, made = open_or_create(path, hasher)
        with index:
            index.remember_bundle(hasher.bundle.path)

        def first(found: Path) -> Hasher:
            return waiting.pop() if waiting else load(found)

        with Pair(path, Path(hasher.bundle.path), first) as pair:
            yield pair
    finally:
        for left in waiting:
            left.close()
        if made:
            with contextlib.suppress(IndexStoreError), Index.open(path) as index:
                index.delete_if_empty()
