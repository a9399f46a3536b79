"""`manifest.json`: what a bundle says of its model and of every file in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fgdeploy.core.codes import MAX_BITS, MIN_BITS, code_bytes
from fgdeploy.core.errors import BundleError
from fgdeploy.photos import Preprocess

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class StageInfo:
    """One pruning stage: after `block` (1-based) `tokens_in` patch tokens become `keep`."""

    block: int
    tokens_in: int
    keep: int


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says. Sizes in pixels, MACs in multiply-accumulates per image.

    head: kind (trained, itq, lsh) and how it was made. macs: dense, published, exported.
    fingerprint: equal for equal codes; an index refuses codes of another fingerprint.
    files: name -> {"sha256", "bytes"}. parity: the last proof, and thresholds the limits it met.
    """

    method: str
    backbone: str
    image_size: int
    patch_size: int
    depth: int
    width: int
    prefix_tokens: int
    bits: int
    stages: tuple[StageInfo, ...]
    head: Mapping[str, Any]
    preprocess: Preprocess
    graph: Mapping[str, Any]
    macs: Mapping[str, int]
    weights: Mapping[str, Any]
    fingerprint: str
    created_by: str
    thresholds: Mapping[str, float] = field(default_factory=dict)
    parity: Mapping[str, Any] | None = None
    calibration: Mapping[str, Any] | None = None
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def _check(self) -> None:
        """Raise ValueError or TypeError for values that no model can have."""
        for name in ("image_size", "patch_size", "depth", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, not above zero")
        if not MIN_BITS <= self.bits <= MAX_BITS:
            raise ValueError(f"bits is {self.bits}, not {MIN_BITS}..{MAX_BITS}")
        if self.preprocess.size != self.image_size:
            raise ValueError(
                f"preprocess gives {self.preprocess.size} pixels, image_size is {self.image_size}"
            )
        for name in ("parity", "calibration"):
            if not isinstance(getattr(self, name), (dict, type(None))):
                raise TypeError(f"{name} is {type(getattr(self, name)).__name__}, not dict")
        for name in ("macs", "thresholds"):
            for key, value in getattr(self, name).items():
                if not isinstance(value, (int, float)):
                    raise TypeError(f"{name}[{key!r}] is {type(value).__name__}, not a number")

    @property
    def patches(self) -> int:
        """Return the number of patch tokens that enter the first block."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def code_bytes(self) -> int:
        """Return the bytes of one packed code."""
        return code_bytes(self.bits)

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as JSON-ready values, schema version first."""
        entry = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        entry["stages"] = [dataclasses.asdict(stage) for stage in self.stages]
        entry["preprocess"] = self.preprocess.to_json()
        entry["grid"] = [self.image_size // self.patch_size] * 2
        return {"schema_version": SCHEMA_VERSION, **entry}

    @classmethod
    def from_json(cls, entry: Any) -> Manifest:
        """Read what `to_json` wrote. Raises BundleError for anything else."""
        if not isinstance(entry, dict):
            raise BundleError(f"{MANIFEST}: expected a JSON object, got {type(entry).__name__}")
        version = entry.get("schema_version")
        if version != SCHEMA_VERSION or isinstance(version, bool):
            raise BundleError(
                f"{MANIFEST}: schema version {version!r} is not known here (expected "
                f"{SCHEMA_VERSION}); export again, or install the fgdeploy that wrote it"
            )
        try:
            values = {f.name: entry[f.name] for f in dataclasses.fields(cls)}
            for name, kind in _TYPES.items():
                if not isinstance(values[name], kind) or isinstance(values[name], bool):
                    raise TypeError(f"{name} is {type(values[name]).__name__}, not {kind.__name__}")
            values["stages"] = tuple(
                StageInfo(int(stage["block"]), int(stage["tokens_in"]), int(stage["keep"]))
                for stage in values["stages"]
            )
            values["preprocess"] = Preprocess.from_json(values["preprocess"])
            manifest = cls(**values)
            manifest._check()
            return manifest
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = f"no entry {error}" if isinstance(error, KeyError) else str(error)
            raise BundleError(f"{MANIFEST} is damaged: {reason}; export the bundle again") from None


_TYPES: dict[str, type] = {
    **dict.fromkeys(("method", "backbone", "fingerprint", "created_by"), str),
    **dict.fromkeys(("image_size", "patch_size", "depth", "width", "prefix_tokens", "bits"), int),
    **dict.fromkeys(
        ("head", "preprocess", "graph", "macs", "weights", "thresholds", "files"), dict
    ),
    "stages": list,
}
