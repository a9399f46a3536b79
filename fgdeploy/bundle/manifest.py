"""`manifest.json`: what a bundle says of its model and of every file in it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fgdeploy.bundle import manifest_schema, schema_one
from fgdeploy.bundle.fingerprint import fingerprint
from fgdeploy.core import json_schema
from fgdeploy.core.codes import code_bytes
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

    options: the method's; deciding: what of them decides a code. grid: patches in rows and
    columns. blocks: rows through the blocks, in the order they run. outputs: all that the graph
    gives. head: kind (trained, itq, lsh) and how it was made. classes: their names by number, where
    the model has them. graph: among others `pins` and `half`, which nodes keep float32 and which
    may leave it. macs: dense, published, exported. fingerprint: equal for equal codes, computed
    again on opening (`bundle.fingerprint`); an index refuses codes of another fingerprint. files:
    name -> {"sha256", "bytes"}. parity: the last proof, and limits those that it met.
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
    deciding: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Output] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    parity: Mapping[str, Any] | None = None
    calibration: Mapping[str, Any] | None = None
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def _check(self) -> None:
        """Raise ValueError for entries that do not go together."""
        if self.preprocess.size != self.image_size:
            raise ValueError(
                f"preprocess gives {self.preprocess.size} pixels, image_size is {self.image_size}"
            )
        expected = {"code": (self.code_bytes,), "hash": (self.bits,)}
        for name, shape in expected.items():
            if name in self.outputs and self.outputs[name].shape != shape:
                raise ValueError(
                    f"output {name} has the shape {list(self.outputs[name].shape)}, expected "
                    f"{list(shape)} of {self.bits} bits"
                )
        logits = self.outputs.get("logits")
        if logits and (len(logits.shape) != 1 or len(self.classes) not in (0, *logits.shape)):
            raise ValueError(
                f"output logits has the shape {list(logits.shape)}, expected one number for each "
                f"class, and a name for each or none; it names {len(self.classes)}"
            )
        covered = fingerprint(
            self.method, self.backbone, self.deciding, self.preprocess, self.weights["sha256"]
        )
        if self.fingerprint != covered:
            raise ValueError(
                "its fingerprint is not that of its method, backbone, options, preprocessing and "
                "weights, so one of them was changed"
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
        try:
            json_schema.map_of(json_schema.anything)(entry, "")
            json_schema.sane(entry)
        except ValueError as error:
            raise _damaged(error) from None
        version = entry.get("schema_version")
        if version not in (1, SCHEMA_VERSION) or isinstance(version, bool):
            raise BundleError(
                f"{MANIFEST}: schema version {json_schema.said(version)} is not known here "
                f"(expected {SCHEMA_VERSION}); export again, or install the fgdeploy that wrote it"
            )
        try:
            if version == 1:
                entry = schema_one.upgrade(entry)
            else:
                _check_digest(entry)
            if "deciding" not in entry:
                entry = {**entry, "deciding": schema_one.deciding(entry)}
            manifest_schema.SCHEMA(entry, "")
            manifest = cls._parse(entry)
            manifest._check()
        except ValueError as error:
            raise _damaged(error) from None
        return manifest

    @classmethod
    def _parse(cls, entry: Mapping[str, Any]) -> Manifest:
        values = {f.name: entry[f.name] for f in dataclasses.fields(cls)}
        rows = [f.name for f in dataclasses.fields(BlockRows)]
        values["grid"] = tuple(values["grid"])
        values["blocks"] = tuple(
            BlockRows(**{name: run[name] for name in rows}) for run in values["blocks"]
        )
        values["outputs"] = {
            name: Output(one["type"], tuple(one["shape"]))
            for name, one in values["outputs"].items()
        }
        values["classes"] = tuple(values["classes"])
        values["preprocess"] = Preprocess.from_json(values["preprocess"])
        return cls(**values)


def _damaged(error: ValueError) -> BundleError:
    return BundleError(f"{MANIFEST} is damaged: {error}; export the bundle again")


def digest(entry: Mapping[str, Any]) -> str:
    """Return the sha256 of a manifest's entries but `digest`, which vouches for all others."""
    rest = {name: value for name, value in entry.items() if name != "digest"}
    text = json.dumps(rest, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_digest(entry: Mapping[str, Any]) -> None:
    if "digest" not in entry:
        raise ValueError("no entry 'digest'")
    if entry["digest"] != digest(entry):
        raise ValueError("its digest is not that of its entries, so it was changed or cut")
