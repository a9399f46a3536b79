"""A hash of all that decides the outcome of a training, so that only the same run goes on."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fgdeploy.bundle import sha256
from fgdeploy.models.assembly import Assembly
from fgdeploy.models.methods.base import Recipe
from fgdeploy.models.weights import trained
from fgdeploy.photos.boxes import Box
from fgdeploy.training.division import Division
from fgdeploy.training.precision import Precision
from fgdeploy.training.train_settings import TrainSettings

# Not among the facts of runs before there were any.
_LATER = frozenset(
    [
        "by_epoch",
        "drop_last",
        "eps",
        "boxes",
        "first_lr",
        "last_lr",
        "sized",
        "settled",
        "frozen",
    ]
)


def of(
    settings: TrainSettings,
    recipe: Recipe,
    chosen: Assembly,
    precision: Precision,
    division: Division,
    boxes: Sequence[Box | None] | None,
) -> str:
    """Return the sha256 of settings as resolved, weights and photos.

    recipe: as the user's numbers leave it; what the set decides follows from the photos.
    """
    named = {f.name: getattr(recipe, f.name) for f in dataclasses.fields(recipe)}
    del named["passes"]
    values = [value for name, value in named.items() if value or name not in _LATER]
    facts: list[Any] = [_named(value) if callable(value) else value for value in values]
    facts += [chosen.method.name, settings.recipe, settings.bits, settings.seed]
    facts += [sorted(settings.without), chosen.options, precision.name]
    facts += [chosen.source.backbone, chosen.preprocess]
    for given in (settings.weights, settings.teacher):
        path = trained.locate(Path(given)) if given is not None else None
        facts.append(sha256(path) if path is not None and path.is_file() else given)
    if settings.weights_key is not None:  # not among the facts of runs before there was one
        facts.append(settings.weights_key)
    if recipe.sized:  # a number given is not the same as one that the set decides
        facts.append([settings.epochs, settings.lr, settings.warmup])
    if settings.renames:
        facts.append(settings.renames)
    facts += [] if boxes is None else [boxes]
    listed = hashlib.sha256(repr(facts).encode())
    for split, which in (("train", division.train), ("test", division.test)):
        for photo in which:
            size = photo.path.stat().st_size
            listed.update(f"\n{split} {photo.path.name} {photo.label} {size}".encode())
    return listed.hexdigest()


def _named(value: Callable[..., Any]) -> str:
    """Return what a class or function is called; its code is not looked at."""
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"
