"""The bundle `NAME.fgd/`: everything a device needs to run one model, and nothing that executes.

`manifest.json` describes the model and lists every file with its size and sha256. Opening checks
all of that before anything is used; writing happens in a temporary folder and one rename.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from fgdeploy import atomic, onnx_scan
from fgdeploy.codes import MAX_BITS, MIN_BITS, code_bytes
from fgdeploy.errors import BundleError
from fgdeploy.images import Preprocess

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
# int8-u8 and int8-fp16 hold the same INT8 numbers as int8: with unsigned activations, as ONNX
# Runtime likes them on x86, and with FP16 for the rest, as TensorRT does.
GRAPHS = {
    "fp32": "model.onnx",
    "fp16": "model.fp16.onnx",
    "int8": "model.int8.onnx",
    "int8-u8": "model.int8.u8.onnx",
    "int8-fp16": "model.int8.fp16.onnx",
}
ENGINES = "engines"  # compiled engines belong to a machine, not to the manifest


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


@dataclass(frozen=True)
class Bundle:
    """An opened, verified bundle."""

    path: Path
    manifest: Manifest

    def graph(self, precision: str = "fp32") -> Path:
        """Return the ONNX file of a precision. Raises BundleError if the bundle has none."""
        name = GRAPHS.get(precision)
        if name is None or name not in self.manifest.files:
            held = [kind for kind, file in GRAPHS.items() if file in self.manifest.files]
            made = "choose one of these, or run: fgdeploy calibrate" if name else "choose one"
            raise BundleError(
                f"{self.path.name} holds no {precision} graph, only {', '.join(held) or 'none'}; "
                f"{made}"
            )
        return self.path / name

    def record_parity(self, result: Mapping[str, Any]) -> Bundle:
        """Write `result` into the manifest as the last parity result."""
        return self._with(dataclasses.replace(self.manifest, parity=dict(result)))

    def with_files(
        self, files: Mapping[str, bytes], calibration: Mapping[str, Any] | None
    ) -> Bundle:
        """Add files, or replace those of these names, and note how they were calibrated.

        The manifest forgets them first and lists them last, so that the bundle opens whenever the
        power fails in between. Raises OSError.
        """
        listed = {name: facts for name, facts in self.manifest.files.items() if name not in files}
        bare = self._with(dataclasses.replace(self.manifest, files=listed, calibration=None))
        for name, content in files.items():
            with atomic.new_file(self.path / name) as stream:
                stream.write(content)
            listed[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        return bare._with(
            dataclasses.replace(
                bare.manifest, files=dict(sorted(listed.items())), calibration=calibration
            )
        )

    def _with(self, manifest: Manifest) -> Bundle:
        atomic.write_text(self.path / MANIFEST, _dump(manifest))
        return dataclasses.replace(self, manifest=manifest)


def open_bundle(path: str | os.PathLike[str]) -> Bundle:
    """Open a bundle and verify all of it: schema, names, sizes, sha256, no links, no external data.

    Raises BundleError with the first thing that is wrong.
    """
    folder = Path(path)
    if not folder.is_dir():
        what = "is not a bundle folder" if folder.exists() else "does not exist"
        raise BundleError(
            f"{folder} {what}; make one with: fgdeploy export --method eet -o {folder}"
        )
    _regular_file(folder, MANIFEST)
    try:
        entry = json.loads(
            (folder / MANIFEST).read_text(encoding="utf-8"), parse_constant=_no_constant
        )
    except OSError as error:
        raise BundleError(
            f"{folder / MANIFEST} is not readable ({error.strerror}); check its rights"
        ) from None
    except (ValueError, RecursionError) as error:  # both JSON and Unicode errors are ValueErrors
        raise BundleError(
            f"{folder / MANIFEST} is not JSON ({error}); export the bundle again"
        ) from None
    manifest = Manifest.from_json(entry)
    for name, facts in manifest.files.items():
        _verify_file(folder, name, facts)
    if GRAPHS["fp32"] not in manifest.files:
        raise BundleError(
            f"{folder}: {MANIFEST} lists no {GRAPHS['fp32']}; export the bundle again"
        )
    return Bundle(folder, manifest)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _verify_file(folder: Path, name: str, facts: Any) -> None:
    parts = PurePosixPath(name).parts
    # Printable, too: a name may not paint on the terminal that shows it
    plain = name.isprintable() and "\\" not in name and ":" not in name
    if not parts or name.startswith("/") or ".." in parts or not plain:
        raise BundleError(
            f"{folder / MANIFEST} lists {name!r}, which leaves the bundle; do not use this bundle"
        )
    path = _regular_file(folder, name)
    try:
        size, digest = int(facts["bytes"]), str(facts["sha256"])
    except (KeyError, TypeError, ValueError, OverflowError):
        raise BundleError(
            f"{folder / MANIFEST}: no size and sha256 for {name}; export again"
        ) from None
    actual = path.stat().st_size
    if actual != size:
        raise BundleError(
            f"{path}: expected {size} bytes, got {actual}; copy or export the bundle again"
        )
    if sha256(path) != digest:
        raise BundleError(
            f"{path}: its sha256 is not the one in {MANIFEST}; copy or export the bundle again"
        )
    if path.suffix == ".onnx":
        onnx_scan.check(path)


def _regular_file(folder: Path, name: str) -> Path:
    path = folder
    for part in PurePosixPath(name).parts:
        path = path / part
        try:
            mode = path.lstat().st_mode
        except OSError:  # not there, below a file, or a name too long for one
            raise BundleError(f"{folder} lacks {name}; copy or export the bundle again") from None
        if stat.S_ISLNK(mode):
            raise BundleError(
                f"{path} is a symbolic link, which a bundle must not hold; copy the file"
            )
    if not stat.S_ISREG(mode):
        raise BundleError(f"{path} is not a regular file; copy or export the bundle again")
    return path


def sha256(path: Path) -> str:
    """Return the hex sha256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def seal(folder: Path, manifest: Manifest) -> Bundle:
    """Write the manifest of a folder that holds all other files, with their sizes and sha256."""
    inside = (entry.relative_to(folder) for entry in folder.rglob("*") if entry.is_file())
    names = sorted(entry.as_posix() for entry in inside if entry.parts[0] != ENGINES)
    files = {
        name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size}
        for name in names
        if name != MANIFEST
    }
    sealed = dataclasses.replace(manifest, files=files)
    atomic.write_text(folder / MANIFEST, _dump(sealed))
    return Bundle(folder, sealed)


def _dump(manifest: Manifest) -> str:
    return json.dumps(manifest.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
