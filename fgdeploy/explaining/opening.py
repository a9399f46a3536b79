"""Which model looks, and in which way; and the whole of it in one call."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fgdeploy.bundle import Manifest, open_bundle
from fgdeploy.core.errors import UsageError
from fgdeploy.core.progress import Notify, silent
from fgdeploy.explaining import by_graph, by_pytorch
from fgdeploy.explaining.by_graph import GraphLooker
from fgdeploy.explaining.explanation import Explanation
from fgdeploy.explaining.looker import Looker
from fgdeploy.photos import ImageLike
from fgdeploy.photos.given import several
from fgdeploy.photos.images import name_of

WAYS = ("tokens", "maps", "rollout")


@dataclass(frozen=True)
class Opening:
    """How a model is opened. way: one of WAYS, None for what the model has.

    checkpoint: what a bundle was exported from, for what its graph does not say. backend, threads,
    fallback: of the engine that runs the graph.
    """

    way: str | None = None
    checkpoint: Path | None = None
    backend: str = "auto"
    threads: int | None = None
    fallback: bool = False

    def __post_init__(self) -> None:
        if self.way not in (None, *WAYS):
            raise UsageError(f"--as {self.way}: expected one of {', '.join(WAYS)}")

    @property
    def engine_named(self) -> bool:
        """Return whether something was said of the engine."""
        return self.backend != "auto" or self.threads is not None or self.fallback


def open_looker(model: Path, opening: Opening, notify: Notify = silent) -> Looker:
    """Open a bundle, a training's folder or a checkpoint.

    A bundle's graph looks where its outputs say all: a map or a box, and no token goes. Else its
    PyTorch model does. Raises UsageError, BundleError, CheckpointError, ExportError, EngineError or
    MissingDependency.
    """
    way, checkpoint = opening.way, opening.checkpoint
    if not (model.suffix == ".fgd" or (model / "manifest.json").is_file()):
        if checkpoint is not None:
            raise UsageError(
                f"{model} is no bundle, so --checkpoint {checkpoint} has none to go with; leave it "
                "out"
            )
        _refuse_engine(opening, model)
        return by_pytorch.of_training(model, way, notify)
    bundle = open_bundle(model)
    shown = by_graph.shows(bundle.manifest)
    enough = way == "maps" or (way is None and not tokens_go(bundle.manifest))
    if shown and enough and checkpoint is None:
        return GraphLooker(bundle, opening.backend, opening.threads, opening.fallback, notify)
    _refuse_engine(opening, model)
    return by_pytorch.of_bundle(bundle, checkpoint, way)


def tokens_go(manifest: Manifest) -> bool:
    """Return whether fewer rows enter a block than the one before it."""
    return any(
        after.tokens < before.tokens
        for before, after in itertools.pairwise(manifest.blocks)
        if after.block == before.block + 1
    )


def _refuse_engine(opening: Opening, model: Path) -> None:
    if opening.engine_named:
        raise UsageError(
            f"what was asked of {model} is told by its PyTorch model, not by an engine; leave out "
            "--backend, --threads and --fallback"
        )


def explain(
    model: str | os.PathLike[str],
    images: ImageLike | Iterable[ImageLike],
    way: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    backend: str = "auto",
) -> list[Explanation]:
    """Return what a model looked at in photos: `fgdeploy.explain("eet.fgd", "bird.jpg")`.

    model: a bundle, or a training's folder. images: one or many, as for `Hasher.encode`. way:
    `tokens`, `maps` or `rollout`; None for what the model has, rollout where it has nothing else.
    checkpoint: what the bundle was exported from, where its graph does not say. Raises ImageError
    at the first unreadable photo, and what `open_looker` raises.
    """
    opening = Opening(way, None if checkpoint is None else Path(checkpoint), backend)
    found = []
    with open_looker(Path(model), opening) as looker:
        for number, image in enumerate(several(images), start=1):
            frame = looker.preprocess.frame(image)
            name = name_of(image) if isinstance(image, (str, os.PathLike)) else f"photo {number}"
            found.append(Explanation(name, frame, looker.look(frame[None])[0]))
    return found
