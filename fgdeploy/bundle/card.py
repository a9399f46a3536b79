"""`card.json` in a bundle: licences, authors and data of its model, for people.

JSON-LD. The data that it was trained on has the terms of Croissant 1.0 (MLCommons), the rest those
of schema.org. Croissant demands a licence, an address and a date of every data set; nobody may have
said them, so the card does not claim to conform to it.
"""

from __future__ import annotations

import dataclasses
import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fgdeploy.bundle.folder import Bundle
from fgdeploy.core import json_schema
from fgdeploy.core.errors import BundleError
from fgdeploy.core.json_schema import NAME, anything, list_of, map_of, one_of, table, whole

FILE = "card.json"
SCHEMA_VERSION = 1
LONGEST = 4000  # characters of what a user states
_MOST_BYTES = 1 << 20
_CONTEXT = {
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    **{name: f"cr:{name}" for name in ("citeAs", "column", "extract", "field", "fileObject")},
    **{name: f"cr:{name}" for name in ("recordSet", "source")},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
}
_WRITTEN = {"cite_as": "citeAs"}  # how a field is called in the file


@dataclass(frozen=True)
class Stated:
    """What people state of a model, its data or its weights; None is unknown.

    license: an SPDX name such as Apache-2.0, or an address. cite_as: how to cite it, as BibTeX.
    """

    name: str | None = None
    description: str | None = None
    license: str | None = None
    url: str | None = None
    version: str | None = None
    creator: str | None = None
    cite_as: str | None = None

    def to_json(self) -> dict[str, str]:
        """Return what is known, by schema.org's names."""
        held = dataclasses.asdict(self).items()
        return {_WRITTEN.get(name, name): value for name, value in held if value is not None}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Stated:
        """Read what `to_json` wrote; it was checked."""
        names = [one.name for one in dataclasses.fields(cls)]
        return cls(**{name: entry.get(_WRITTEN.get(name, name)) for name in names})


@dataclass(frozen=True)
class TrainingList:
    """The list of photos that a model was trained on and tested with, which stays at home.

    photos: how many by split; classes: how many there are; sha256 and bytes: of the CSV.
    """

    photos: Mapping[str, int]
    classes: int
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Card:
    """A bundle's card. fingerprint: of the model that it is of.

    model and data: what people state of them; weights: what is known of those that it started from.
    listed: the training's photos; training: its facts, such as recipe, epochs and scores.
    """

    fingerprint: str
    model: Stated = Stated()
    data: Stated = Stated()
    weights: Stated = Stated()
    listed: TrainingList | None = None
    training: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the card as JSON-LD."""
        entry: dict[str, Any] = {
            "@context": _CONTEXT,
            "schema_version": SCHEMA_VERSION,
            "@type": "CreativeWork",
            "identifier": self.fingerprint,
            **self.model.to_json(),
            "training": dict(self.training),
        }
        if known := self.weights.to_json():
            entry["isBasedOn"] = {"@type": "CreativeWork", **known}
        if (known := self.data.to_json()) or self.listed is not None:
            entry["trainingData"] = {"@type": "sc:Dataset", **known, **_listed_json(self.listed)}
        return entry

    def to_bytes(self) -> bytes:
        """Return the file's content. Raises BundleError for what could not be read again."""
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        parse(text.encode("utf-8", "surrogatepass"), "the card")
        return text.encode()


def _listed_json(listed: TrainingList | None) -> dict[str, Any]:
    if listed is None:
        return {}
    columns = ("path", "class", "split")
    return {
        "photos": dict(listed.photos),
        "classes": listed.classes,
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "split.csv",
                "name": "split.csv",
                "description": "The list of photos; it is not part of the bundle.",
                "contentSize": f"{listed.bytes} B",
                "encodingFormat": "text/csv",
                "sha256": listed.sha256,
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "photos",
                "name": "photos",
                "field": [
                    {
                        "@type": "cr:Field",
                        "@id": f"photos/{column}",
                        "name": column,
                        "dataType": "sc:Text",
                        "source": {
                            "fileObject": {"@id": "split.csv"},
                            "extract": {"column": column},
                        },
                    }
                    for column in columns
                ],
            }
        ],
    }


def read(bundle: Bundle) -> Card:
    """Return a bundle's card; of a bundle without one, as before there were cards, an empty one.

    Raises BundleError if it is damaged, or of another model.
    """
    path = bundle.path / FILE
    fingerprint = bundle.manifest.fingerprint
    try:
        facts = path.lstat()
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > _MOST_BYTES:
            raise BundleError(f"{path} is no regular file, or far too large; export again")
        found = parse(path.read_bytes(), str(path))
    except FileNotFoundError:
        return Card(fingerprint)
    if found.fingerprint != fingerprint:
        raise BundleError(
            f"{path} is the card of another model (fingerprint {found.fingerprint[:12]}, the "
            f"manifest has {fingerprint[:12]}); copy or export the bundle again"
        )
    return found


def parse(content: bytes, name: str) -> Card:
    """Return what a card's file says. name: of it, in messages. Raises BundleError."""
    try:
        entry = json_schema.parse(content)
        json_schema.sane(entry)
        _SCHEMA(entry, "")
        data = entry.get("trainingData", {})
        if "distribution" in data:
            _LISTED(data, "trainingData")
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise BundleError(
            f"{name} is damaged ({reason}); copy or export the bundle again"
        ) from None
    listed = None
    if "distribution" in data:
        file = data["distribution"][0]
        size = int(file["contentSize"].removesuffix(" B"))
        listed = TrainingList(data["photos"], data["classes"], file["sha256"], size)
    return Card(
        entry["identifier"],
        Stated.from_json(entry),
        Stated.from_json(data),
        Stated.from_json(entry.get("isBasedOn", {})),
        listed,
        entry["training"],
    )


def check_stated(value: Any, place: str) -> None:
    """Expect a text that a person states: printable but for line ends, LONGEST characters."""
    NAME(value, place)
    if len(value) > LONGEST or not value.replace("\n", "").isprintable():
        raise ValueError(f"{place}: expected printable text of up to {LONGEST} characters")


def _size(value: Any, place: str) -> None:
    NAME(value, place)
    digits = value.removesuffix(" B")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 16):
        raise ValueError(f"{place} is {json_schema.said(value)}, expected bytes such as '120 B'")


_STATED = {_WRITTEN.get(one.name, one.name): check_stated for one in dataclasses.fields(Stated)}
_FILE = table({"sha256": json_schema.sha256, "contentSize": _size})
_LISTED = table(
    {
        "photos": map_of(whole(0)),
        "classes": whole(0),
        "distribution": list_of(_FILE, 1, 1),
    }
)
_SCHEMA = table(
    {
        "schema_version": one_of(SCHEMA_VERSION),
        "identifier": json_schema.sha256,
        "training": map_of(anything),
    },
    {**_STATED, "isBasedOn": table({}, _STATED), "trainingData": table({}, _STATED)},
)
