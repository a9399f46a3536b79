"""What people state in a bundle's card, and the card as a whole, with the bundle's files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fgdeploy.bundle import MANIFEST, Bundle, card
from fgdeploy.bundle.card import Card, Stated
from fgdeploy.core.errors import UsageError
from fgdeploy.core.text import counted, shown

UNKNOWN = "unknown"


def restate(bundle: Bundle, model: Mapping[str, str], data: Mapping[str, str]) -> Bundle:
    """Change what the card states of the model and of its data, by the names of `Stated`.

    An empty text takes a statement back. The fingerprint and all graphs stay as they are. Raises
    UsageError for what is no text for a card, BundleError for a damaged card, and OSError.
    """
    held = card.read(bundle)
    fresh = dataclasses.replace(
        held, model=_changed(held.model, model, ""), data=_changed(held.data, data, "data ")
    )
    return bundle.with_file(card.FILE, fresh.to_bytes())


def _changed(held: Stated, given: Mapping[str, str], of: str) -> Stated:
    for name, text in given.items():
        if not text:
            continue
        try:
            card.check_stated(text, f"{of}{name}")
        except ValueError:
            raise UsageError(
                f"{of}{name} {shown(repr(text))}: expected printable text of up to {card.LONGEST} "
                "characters"
            ) from None
    return dataclasses.replace(held, **{name: text or None for name, text in given.items()})


def title(bundle: Bundle, found: Card) -> str:
    """Return the model's name: as it was stated, else what it is."""
    manifest = bundle.manifest
    return found.model.name or f"{manifest.method} on {manifest.backbone}, {manifest.bits} bits"


def whole_card(bundle: Bundle, found: Card) -> dict[str, Any]:
    """Return the card as JSON-LD with all files of the bundle, their sizes and sha256."""
    files = [
        {
            "@type": "cr:FileObject",
            "@id": name,
            "name": name,
            "contentSize": f"{facts['bytes']} B",
            "encodingFormat": _FORMATS.get(name.rpartition(".")[2], "application/octet-stream"),
            "sha256": facts["sha256"],
        }
        for name, facts in bundle.manifest.files.items()
        if name != MANIFEST
    ]
    return {**found.to_json(), "name": title(bundle, found), "distribution": files}


_FORMATS = {"json": "application/json", "onnx": "application/onnx"}


def lines(bundle: Bundle, found: Card) -> list[tuple[str, str]]:
    """Return the card as rows of names and values; what nobody stated is unknown."""
    model, weights = found.model, found.weights
    began = ", ".join(filter(None, (weights.name, weights.license, weights.url)))
    rows = [
        ("name", title(bundle, found)),
        ("description", model.description),
        ("licence", model.license),
        ("creator", model.creator),
        ("address", model.url),
        ("release", model.version),
        ("cite as", model.cite_as),
        ("weights began as", began or None),
        ("trained on", _data(found)),
        ("licence of the data", found.data.license),
        ("training", _training(found.training)),
    ]
    return [(name, UNKNOWN if value is None else value) for name, value in rows]


def _data(found: Card) -> str | None:
    data, listed = found.data, found.listed
    counts = None
    if listed is not None:
        splits = ", ".join(f"{split} {count:,}" for split, count in listed.photos.items())
        counts = (
            f"{counted(sum(listed.photos.values()), 'photo')} of "
            f"{counted(listed.classes, 'class')} ({splits}; list {listed.sha256[:12]})"
        )
    return ", ".join(filter(None, (data.name, data.description, data.url, counts))) or None


def _training(facts: Mapping[str, Any]) -> str | None:
    words = [f"{name} {value}" for name, value in facts.items() if isinstance(value, (str, int))]
    return ", ".join(words) or None
