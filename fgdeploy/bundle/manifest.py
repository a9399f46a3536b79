"""`manifest.json`: what a bundle says of its model and of every file in it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fgdeploy.bundle import schema_one
from fgdeploy.core.codes import MAX_BITS, MIN_BITS, code_bytes
from fgdeploy.core.errors import BundleError
from fgdeploy.photos import Preprocess

SCHEMA_VERSION = 2
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class BlockRows:
    """One run of a block: its number from 1, and the rows of queries, keys, proj and MLP.

    tokens: rows that enter the block. A method that looks twice runs a block twice.
    """

    block: int
    tokens: int
    query: int
    keyval: int
    proj: int
    mlp: int

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if type(value) is not int or not 0 < value < 1 << 31:
                raise ValueError(f"{name} of a block is {value!r}, not a number above zero")


@dataclass(frozen=True)
class Output:
    """An output of the graph: its type (`float32`, `uint8`) and its shape behind the batch."""

    type: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if type(self.type) is not str:
            raise TypeError(f"the type of an output is {type(self.type).__name__}, not str")
        if not all(type(side) is int and 0 < side < 1 << 31 for side in self.shape):
            raise ValueError(f"the shape of an output is {list(self.shape)}")


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says. Sizes in pixels, MACs in multiply-accumulates per image.

    options: the method's. grid: patches in rows and columns. blocks: rows through the blocks, in
    the order they run. outputs: all that the graph gives. head: kind (trained, itq, lsh) and how
    it was made. classes: their names by number, where the model has them. graph: among others
    `pins` and `half`, which nodes keep float32 and which may leave it. macs: dense, published,
    exported. fingerprint: equal for equal codes; an index refuses codes of another fingerprint.
    files: name -> {"sha256", "bytes"}. parity: the last proof, and limits those that it met.
    """

    method: str
    backbone: str
    image_size: int
    patch_size: int
    grid: tuple[int, int]
    depth: int
    width: int
    prefix_tokens: int
    bits: int
    blocks: tuple[BlockRows, ...]
    head: Mapping[str, Any]
    preprocess: Preprocess
    graph: Mapping[str, Any]
    macs: Mapping[str, int]
    weights: Mapping[str, Any]
    fingerprint: str
    created_by: str
    options: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Output] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
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
        for name in ("macs", "limits"):
            for key, value in getattr(self, name).items():
                if not isinstance(value, (int, float)):
                    raise TypeError(f"{name}[{key!r}] is {type(value).__name__}, not a number")
        expected = {"code": (self.code_bytes,), "hash": (self.bits,)}
        for name, shape in expected.items():
            if name in self.outputs and self.outputs[name].shape != shape:
                raise ValueError(
                    f"output {name} has the shape {list(self.outputs[name].shape)}, expected "
                    f"{list(shape)} of {self.bits} bits"
                )

    @property
    def patches(self) -> int:
        """Return the number of patch tokens that enter the first block."""
        return self.grid[0] * self.grid[1]

    @property
    def code_bytes(self) -> int:
        """Return the bytes of one packed code."""
        return code_bytes(self.bits)

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as JSON-ready values, schema version first, digest last."""
        entry = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        entry["blocks"] = [dataclasses.asdict(rows) for rows in self.blocks]
        entry["outputs"] = {
            name: {"type": one.type, "shape": list(one.shape)} for name, one in self.outputs.items()
        }
        entry["grid"], entry["classes"] = list(self.grid), list(self.classes)
        entry["preprocess"] = self.preprocess.to_json()
        whole = {"schema_version": SCHEMA_VERSION, **entry}
        return {**whole, "digest": digest(whole)}

    @classmethod
    def from_json(cls, entry: Any) -> Manifest:
        """Read what `to_json` wrote, now or by schema 1. Raises BundleError for anything else."""
        if not isinstance(entry, dict):
            raise BundleError(f"{MANIFEST}: expected a JSON object, got {type(entry).__name__}")
        version = entry.get("schema_version")
        if version not in (1, SCHEMA_VERSION) or isinstance(version, bool):
            raise BundleError(
                f"{MANIFEST}: schema version {version!r} is not known here (expected "
                f"{SCHEMA_VERSION}); export again, or install the fgdeploy that wrote it"
            )
        try:
            if version == 1:
                entry = schema_one.upgrade(entry)
            else:
                _check_digest(entry)
            return cls._parse(entry)
        except (
            KeyError,
            TypeError,
            ValueError,
            OverflowError,
            AttributeError,
            RecursionError,  # nested so deeply that no digest can be made of it
        ) as error:
            reason = f"no entry {error}" if isinstance(error, KeyError) else str(error)
            raise BundleError(f"{MANIFEST} is damaged: {reason}; export the bundle again") from None

    @classmethod
    def _parse(cls, entry: Mapping[str, Any]) -> Manifest:
        values = {f.name: entry[f.name] for f in dataclasses.fields(cls)}
        for name, kind in _TYPES.items():
            if not isinstance(values[name], kind) or isinstance(values[name], bool):
                raise TypeError(f"{name} is {type(values[name]).__name__}, not {kind.__name__}")
        rows, columns = values["grid"]
        if type(rows) is not int or type(columns) is not int or min(rows, columns) < 1:
            raise ValueError(f"grid is {values['grid']}, not two numbers above zero")
        values["grid"] = (rows, columns)
        values["blocks"] = tuple(BlockRows(**rows) for rows in values["blocks"])
        values["outputs"] = {
            str(name): Output(one["type"], tuple(one["shape"]))
            for name, one in values["outputs"].items()
        }
        values["classes"] = tuple(str(name) for name in values["classes"])
        values["preprocess"] = Preprocess.from_json(values["preprocess"])
        manifest = cls(**values)
        manifest._check()
        return manifest


_TYPES: dict[str, type] = {
    **dict.fromkeys(("method", "backbone", "fingerprint", "created_by"), str),
    **dict.fromkeys(("image_size", "patch_size", "depth", "width", "prefix_tokens", "bits"), int),
    **dict.fromkeys(
        ("head", "preprocess", "graph", "macs", "weights", "limits", "files", "options", "outputs"),
        dict,
    ),
    **dict.fromkeys(("blocks", "grid", "classes"), list),
}


def digest(entry: Mapping[str, Any]) -> str:
    """Return the sha256 of a manifest's entries but `digest`, which vouches for all others."""
    rest = {name: value for name, value in entry.items() if name != "digest"}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_digest(entry: Mapping[str, Any]) -> None:
    if entry["digest"] != digest(entry):
        raise ValueError("its digest is not that of its entries, so it was changed or cut")
