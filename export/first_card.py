"""The card that an export writes: what settings, weights and a training's folder say by themselves.

Paths stay at home: of the list of photos the card has its sha256 and what it counts.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import timm

from fgdeploy import photos
from fgdeploy.bundle import card, open_bundle
from fgdeploy.bundle.card import Card, Stated, TrainingList
from fgdeploy.bundle.folder import sha256
from fgdeploy.core.errors import BundleError, FgdeployError
from fgdeploy.core.progress import Notify
from fgdeploy.export.export_settings import ExportSettings
from fgdeploy.models.assembly import Assembly
from fgdeploy.models.weights import trained


def first_card(settings: ExportSettings, assembly: Assembly, fingerprint: str) -> Card:
    """Return what is known of a model when it is exported."""
    if settings.checkpoint is None:
        known = _published(assembly.source.backbone) if settings.weights == "pretrained" else None
        return Card(fingerprint, weights=known or Stated())
    weights = trained.locate(settings.checkpoint)
    config = trained.load_config(weights)
    if config is None:
        return Card(fingerprint)
    began = config.training.get("start") == "pretrained"
    return Card(
        fingerprint,
        weights=(_published(config.backbone) if began else None) or Stated(),
        listed=_listed(weights.parent / photos.SPLIT_FILE),
        training=config.training,
    )


def _published(backbone: str) -> Stated | None:
    """Return what timm says of its pretrained weights, None where it knows none."""
    found = timm.models.get_pretrained_cfg(backbone, allow_unregistered=True)
    if found is None or not found.has_weights:
        return None
    tagged = f"{backbone}.{found.tag}" if found.tag and "." not in backbone else backbone
    hub = found.hf_hub_id
    return Stated(
        name=tagged,
        license=found.license,
        url=f"https://huggingface.co/{hub}" if isinstance(hub, str) and hub else None,
        description=found.description,
    )


def _listed(path: Path) -> TrainingList | None:
    """Return what a training's list of photos counts, None where it is gone or no list any more."""
    try:
        listing = photos.read_csv(path)
        return TrainingList(
            dict(sorted(Counter(photo.split or "all" for photo in listing).items())),
            len({photo.label for photo in listing}),
            sha256(path),
            path.stat().st_size,
        )
    except (FgdeployError, OSError):
        return None


def carried(fresh: Card, target: Path, notify: Notify) -> Card:
    """Return a card with what was stated in the bundle that lies at `target`, of the same model.

    Says so where a person's words are of another model, or cannot be read, and so are left out.
    """
    if not (target / card.FILE).is_file():
        return fresh
    try:
        old = card.read(open_bundle(target))
    except BundleError as error:
        notify(f"what was stated in the card of {target.name} is not brought along: {error}")
        return fresh
    if (old.model, old.data) == (Stated(), Stated()):
        return fresh
    if old.fingerprint != fresh.fingerprint:
        notify(
            f"what was stated in the card of {target.name} was of another model and is not "
            "brought along; state it again with: fgdeploy card"
        )
        return fresh
    return dataclasses.replace(fresh, model=old.model, data=old.data)
