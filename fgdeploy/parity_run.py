"""Open two engines by name and hold one against the other on the same frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fgdeploy.bundle import Bundle
from fgdeploy.engines import Engine, Outputs, available, open_engine
from fgdeploy.errors import DataError, EngineError, MissingDependency
from fgdeploy.parity import Parity, compare
from fgdeploy.photos import Photo, batches

BATCH = 8


def open_by_name(bundle: Bundle, name: str, checkpoint: Path | None = None) -> Engine:
    """Open `backend[:precision]`, or `pytorch` rebuilt from `checkpoint`.

    Raises what `open_engine` raises, and for pytorch what `export.exporter.rebuild` raises.
    """
    backend, _, precision = name.partition(":")
    if backend != "pytorch":
        return open_engine(bundle, backend, precision or "fp32")
    try:
        from fgdeploy.export.exporter import rebuild
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "torch", "export", "the pytorch reference") from None
    return rebuild(bundle, checkpoint)


def choose_candidate(reference: str) -> str:
    """Return the first other backend that is installed. Raises EngineError if there is none."""
    other = [name for name in available() if name != reference.partition(":")[0]]
    if not other:
        raise EngineError(
            'there is no second engine to compare with; run: pip install "fgdeploy[cpu]", '
            "or name one with --candidate"
        )
    return f"{other[0]}:fp32"


def compare_engines(
    bundle: Bundle,
    reference: Engine,
    candidate: Engine,
    photos: Sequence[Photo],
    strict: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Parity, list[str]]:
    """Compare two engines on the same photos; also returns why photos were skipped.

    Each frame is decoded once and goes to both. Raises ImageError if `strict`, DataError if no
    photo can be read.
    """
    left: list[Outputs] = []
    right: list[Outputs] = []
    labels: list[str | None] = []
    skipped: list[str] = []
    make = bundle.manifest.preprocess
    for group, frames in batches(photos, make, BATCH, skipped, strict, progress):
        left.append(reference.run(frames))
        right.append(candidate.run(frames))
        labels.extend(photo.label for photo in group)
    if not photos:
        raise DataError("there are no photos to compare; check the list")
    if not left:
        raise DataError(f"none of {len(photos)} photos can be read; the first: {skipped[0]}")
    return (
        compare(
            np.concatenate([part.hash for part in left]),
            np.concatenate([part.code for part in left]),
            np.concatenate([part.hash for part in right]),
            np.concatenate([part.code for part in right]),
            labels,
        ),
        skipped,
    )
