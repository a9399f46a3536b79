"""The hash head of an export: the trained one in the checkpoint, or one fitted on photos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from fgdeploy import photos
from fgdeploy.core.errors import CheckpointError, DataError, UsageError
from fgdeploy.core.progress import Notify, Progress, no_progress, silent
from fgdeploy.core.text import counted
from fgdeploy.evaluation.targets import TARGETS_FILE, Targets
from fgdeploy.export import class_names
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.models.assembly import Assembly
from fgdeploy.models.embedder import Embedder
from fgdeploy.models.encoder import Encoder
from fgdeploy.models.heads import class_head as class_heads
from fgdeploy.models.heads.base import Head, NoHead
from fgdeploy.models.heads.projection import (
    ProjectionHead,
    fit_itq,
    normalise,
    random_hyperplanes,
)
from fgdeploy.models.network import Network
from fgdeploy.models.weights import trained
from fgdeploy.photos import Photo

DEFAULT_BITS = 64
_BATCH = 32


def choose(
    settings: ExportSettings,
    assembly: Assembly,
    encoder: Encoder,
    notify: Notify = silent,
    progress: Progress = no_progress,
) -> Head:
    """Return the head that `settings` ask for: trained, itq, lsh, or the first that is possible.

    progress: (done, total) photos while a head is fitted. Raises UsageError, CheckpointError,
    DataError or ImageError.
    """
    held = _trained(settings, assembly, encoder.width)
    kind = settings.head
    if kind == "trained" and held is None:
        raise CheckpointError(
            "the trained head needs a --checkpoint with head_hash.weight; "
            "use --head itq --fit-data FOLDER or --head lsh instead"
        )
    if kind == "itq" and settings.fit_data is None:
        raise UsageError("--head itq is fitted on photos; name a folder or CSV with --fit-data")
    if kind == "auto" and held is None:
        kind = "lsh" if settings.fit_data is None else "itq"
        hint = "; --head itq --fit-data FOLDER ranks better" if kind == "lsh" else ""
        notify(f"hash head {kind} (no trained one{hint})")
    if held is not None and kind in ("auto", "trained"):
        return held
    return _fitted(settings, assembly, encoder, kind, progress)


def class_head(assembly: Assembly, width: int) -> nn.Linear | None:
    """Return the class head that lies with the weights, None where none fits an embedding."""
    return class_heads.class_head(assembly.source.tensors() or {}, width)


def names(settings: ExportSettings, assembly: Assembly, head: Head, width: int) -> tuple[str, ...]:
    """Return the names of the classes: the training's, or those that are given for a class head.

    Raises UsageError, CheckpointError or DataError.
    """
    given = settings.class_names
    if assembly.config is not None:
        if given is not None:
            raise UsageError(
                f"--class-names {given}: {assembly.source.name} was trained with "
                f"{counted(len(assembly.config.classes), 'class')} by name; leave it out"
            )
        return assembly.config.classes
    if given is None:
        return ()
    held = None if head.classes else class_head(assembly, width)
    count = held.out_features if held is not None else head.classes
    if not count:
        raise CheckpointError(
            f"--class-names {given}: {assembly.source.name} has no class head; leave it out"
        )
    return class_names.read(given, count)


def _trained(settings: ExportSettings, assembly: Assembly, width: int) -> Head | None:
    """Return the trained head of the checkpoint, None without one or where another is asked for."""
    state = assembly.source.state
    if state is None or settings.head in ("itq", "lsh"):
        return None
    name = assembly.source.name
    return assembly.method.head.from_state(state, width, settings.bits, name)


def _fitted(
    settings: ExportSettings,
    assembly: Assembly,
    encoder: Encoder,
    kind: str,
    progress: Progress,
) -> ProjectionHead:
    bits = DEFAULT_BITS if settings.bits is None else settings.bits
    facts: dict[str, Any] = {"kind": kind, "seed": settings.seed}
    classes = _classes(settings, assembly, encoder.width)
    if classes is not None:
        facts["classes"] = classes.out_features
    rows = None
    if settings.fit_data is not None:
        rows, skipped = _embeddings(settings, assembly, encoder, progress)
        facts |= {"photos": len(rows), "skipped": skipped}
    if kind == "itq":
        assert rows is not None
        return ProjectionHead(fit_itq(rows, bits, settings.seed), facts, classes)
    mean = None if rows is None else normalise(rows).mean(axis=0)
    planes = random_hyperplanes(encoder.width, bits, settings.seed, mean)
    return ProjectionHead(planes, facts, classes)


def _classes(settings: ExportSettings, assembly: Assembly, width: int) -> nn.Linear | None:
    """Return the class head that logits are asked of. Raises CheckpointError without one."""
    if not settings.logits:
        return None
    head = class_head(assembly, width)
    if head is None:
        raise CheckpointError(
            f"--logits needs a class head, and {assembly.source.name} has none on an embedding of "
            f"{width} values (head.weight); leave --logits out"
        )
    return head


def _embeddings(
    settings: ExportSettings, assembly: Assembly, encoder: Encoder, progress: Progress
) -> tuple[npt.NDArray[np.float32], int]:
    """Return embeddings (N, D) of the photos to fit on, and how many could not be read."""
    assert settings.fit_data is not None
    found: Sequence[Photo] = photos.read(settings.fit_data, columns=settings.columns)
    if any(photo.split for photo in found):
        found = photos.of_split(found, "train")  # never fit on what will be queries
    chosen = photos.spread(found, settings.fit_images, settings.seed)
    skipped: list[str] = []
    embedder = Embedder(assembly.preprocess, batch=_BATCH, skipped=skipped)
    network = Network(encoder, NoHead()).deployed()
    rows = embedder.embeddings(network, chosen, progress)
    if not len(rows):
        raise DataError(f"none of the {counted(len(chosen), 'photo')} of --fit-data can be read")
    return rows, len(skipped)


def targets(settings: ExportSettings, assembly: Assembly, head: Head) -> Targets | None:
    """Return the target codes that a training left beside its weights, for its trained head."""
    config = assembly.config
    if config is None or isinstance(head, ProjectionHead) or settings.checkpoint is None:
        return None
    weights = trained.locate(settings.checkpoint)
    path = weights.parent / TARGETS_FILE
    if not path.is_file():
        return None
    found = Targets.load(path)
    if found.bits != config.bits or tuple(found.classes.tolist()) != config.classes:
        raise CheckpointError(
            f"{path} is of other classes or bits than {weights.name}; copy both from one run, or "
            "move it away"
        )
    return found
