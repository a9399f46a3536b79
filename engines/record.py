"""`engine.json`: what a compiled engine was built from, with and for, asked before it is loaded.

No engine library can say beforehand whether an engine fits a machine; this record can.
"""

from __future__ import annotations

import dataclasses
import json
import math
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgdeploy.bundle import ENGINES, Bundle, sha256
from fgdeploy.core import atomic, json_schema
from fgdeploy.core.errors import EngineError
from fgdeploy.engines import bill_of_materials, contest, engine_layers
from fgdeploy.engines.build_settings import MAX_BATCH

SCHEMA_VERSION = 1
RECORD = "engine.json"
FOLDER = ENGINES
_LARGEST_RECORD = 1 << 20  # bytes; a real one has about thirty thousand


@dataclass(frozen=True)
class Record:
    """What `engine.json` says.

    file: the engine file's plain name; graph: the key of the bundle's graph it was made from;
    device: {"kind": "cpu", "name", "arch", "features"}, {"kind": "cuda", "name",
    "compute_capability", "driver"}, or, built elsewhere, {"kind": "cuda", "name": None,
    "compute_capabilities"}; batches: sizes built for, the largest the most; build_s: seconds;
    peak_host_mib: of the whole process that built it. parity: with "passed", and speed:
    {"1": {"p50_ms", "p95_ms", "images_per_s"}, ..., "peak_mib"}, once they were measured. compared:
    with what it was timed beside (`contest.Contest`), None where it was not. layers: what it
    computes (`engine_layers.Layers`), None where the backend does not tell. sbom: what it was built
    with (`bill_of_materials`), None in records from before.
    """

    backend: str
    precision: str
    file: str
    sha256: str
    bytes: int
    graph: str
    graph_sha256: str
    backend_version: str
    device: Mapping[str, Any]
    batches: tuple[int, ...]
    flags: Mapping[str, Any]
    build_s: float
    peak_host_mib: float
    created_by: str
    parity: Mapping[str, Any] | None = None
    speed: Mapping[str, Any] | None = None
    compared: Mapping[str, Any] | None = None
    layers: Mapping[str, Any] | None = None
    sbom: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """Return BACKEND:PRECISION."""
        return f"{self.backend}:{self.precision}"

    @property
    def held_to(self) -> str:
        """Return the limits of its proof with their reason, "" where the record has none."""
        words = (self.parity or {}).get("held_to")
        return words if isinstance(words, str) and words.isprintable() else ""

    @property
    def p50_ms(self) -> float | None:
        """Return the median time of one frame, or None where nobody measured it."""
        return None if self.speed is None or "1" not in self.speed else self.speed["1"]["p50_ms"]

    @property
    def failed(self) -> bool:
        """Return whether this engine was held against a reference and broke a limit."""
        return self.parity is not None and not self.parity["passed"]

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON-ready values, schema version first."""
        entry = {**dataclasses.asdict(self), "batches": list(self.batches)}
        return {"schema_version": SCHEMA_VERSION, **entry}

    @classmethod
    def from_json(cls, entry: Any) -> Record:
        """Read what `to_json` wrote. Raises EngineError for anything else."""
        if not isinstance(entry, dict):
            raise EngineError(f"{RECORD} is no JSON object; build the engine again")
        try:
            json_schema.sane(entry)
        except ValueError as error:
            raise EngineError(f"{RECORD} is damaged: {error}; build the engine again") from None
        version = entry.get("schema_version")
        if version != SCHEMA_VERSION or isinstance(version, bool):
            raise EngineError(
                f"{RECORD}: schema version {json_schema.said(version)} is not known here (expected "
                f"{SCHEMA_VERSION}); build the engine again, or install the fgdeploy that wrote it"
            )
        try:
            # Which earlier records do not have
            entry = {"compared": None, "layers": None, "sbom": None, **entry}
            values = {field.name: entry[field.name] for field in dataclasses.fields(cls)}
            for name, check in _CHECKS.items():
                if not check(values[name]):
                    raise ValueError(f"{name} is {json_schema.said(values[name])}")
            values["batches"] = tuple(values["batches"])
            return cls(**values)
        except (KeyError, ValueError) as error:
            reason = f"no entry {error}" if isinstance(error, KeyError) else str(error)
            raise EngineError(f"{RECORD} is damaged: {reason}; build the engine again") from None

    def write(self, folder: Path) -> None:
        """Write `engine.json` into the engine's folder, atomically."""
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
        atomic.write_text(folder / RECORD, text + "\n")


def read(folder: Path) -> Record:
    """Return the record in an engine's folder. Raises EngineError with what is wrong with it."""
    path = folder / RECORD
    try:
        _regular(path, _LARGEST_RECORD)
        entry = json_schema.parse(path.read_bytes())
        return Record.from_json(entry)
    except OSError as error:
        reason = f"{RECORD} is not readable ({error.strerror}); build the engine again"
    except ValueError as error:
        reason = f"{RECORD} is not JSON ({error}); build the engine again"
    except EngineError as error:
        reason = str(error)
    raise EngineError(f"{folder}: {reason}")


def verify(folder: Path, record: Record) -> Path:
    """Return the engine file once its kind, size and sha256 are right. Raises EngineError."""
    path = folder / record.file
    try:
        size = _regular(path)
        if size != record.bytes:
            raise EngineError(f"expected {record.bytes} bytes, got {size}")
        if sha256(path) != record.sha256:
            raise EngineError(f"its sha256 is not the one in {RECORD}")
    except (OSError, EngineError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise EngineError(
            f"{path} is a corrupt or cut engine: {reason}; "
            + rebuild(record.backend, record.precision)
        ) from None
    return path


def rebuild(backend: str, precision: str) -> str:
    """Return the words that tell how to build an engine again."""
    flag = "" if precision == "fp32" else f" --{precision}"
    return f"rebuild with: fgdeploy build-engine --backend {backend}{flag}"


@dataclass(frozen=True)
class Built:
    """An engine in a bundle: its folder, and its record or, in words, why there is none."""

    folder: Path
    record: Record | None
    problem: str = ""


def find(bundle: Bundle) -> list[Built]:
    """Return the engines of a bundle by name of their folders, broken ones with their problem."""
    parent = bundle.path / FOLDER
    if parent.is_symlink():
        return [Built(parent, None, f"{parent} is a symbolic link, which a bundle must not hold")]
    if not parent.is_dir():
        return []
    return [_look(entry) for entry in sorted(parent.iterdir()) if not entry.name.startswith(".")]


def _look(folder: Path) -> Built:
    if folder.is_symlink() or not folder.is_dir():
        return Built(folder, None, f"{folder} is no engine's folder; remove it")
    try:
        return Built(folder, read(folder))
    except EngineError as error:
        return Built(folder, None, str(error))


def _regular(path: Path, most: float = math.inf) -> int:
    """Return a regular file's size. Raises EngineError for links and the like, and OSError."""
    facts = path.lstat()
    if not stat.S_ISREG(facts.st_mode) or facts.st_size > most:
        raise EngineError(f"{path.name} is a link, no regular file, or far too large")
    return facts.st_size


def _text(value: Any) -> bool:
    # Printable: a record may not paint on the terminal that shows it
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= 200


def _name(value: Any) -> bool:
    return _text(value) and not set(value) & set("/\\:") and value not in (".", "..")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 53


def _number(value: Any) -> bool:
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return real and 0 <= value < 1 << 53


def _hash(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _device(value: Any) -> bool:
    kinds: dict[str, dict[str, Any]] = {
        "cpu": {"name": _text, "arch": _text, "features": _texts},
        "cuda": {"name": _text, "compute_capability": _capability, "driver": _text},
        "ahead": {"name": lambda name: name is None, "compute_capabilities": _capabilities},
    }
    if not isinstance(value, dict):
        return False
    kind = "ahead" if "compute_capabilities" in value else value.get("kind")
    checks = kinds.get(kind, {}) if isinstance(kind, str) else {}
    real = value.get("kind") in ("cpu", "cuda") and set(value) == {"kind", *checks}
    return bool(checks) and real and all(check(value[name]) for name, check in checks.items())


def _capability(value: Any) -> bool:
    parts = value.split(".") if _text(value) else []
    return len(parts) == 2 and all(part.isascii() and part.isdigit() for part in parts)


def _capabilities(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_capability, value))


def _batches(value: Any) -> bool:
    sizes = isinstance(value, list) and bool(value) and all(map(_whole, value))
    return sizes and value[-1] == max(value) <= MAX_BATCH


def _parity(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and isinstance(value.get("passed"), bool))


def _speed(value: Any) -> bool:
    def timing(entry: Any) -> bool:
        return isinstance(entry, dict) and {"p50_ms", "p95_ms", "images_per_s"} <= set(entry)

    if value is None:
        return True
    if not isinstance(value, dict):
        return False
    runs = [entry for name, entry in value.items() if name != "peak_mib"]
    numbers = [number for entry in runs if timing(entry) for number in entry.values()]
    return all(map(timing, runs)) and all(map(_number, numbers))


_CHECKS: dict[str, Any] = {
    **dict.fromkeys(("backend", "precision", "graph", "backend_version", "created_by"), _text),
    **dict.fromkeys(("sha256", "graph_sha256"), _hash),
    **dict.fromkeys(("build_s", "peak_host_mib"), _number),
    "file": _name,
    "bytes": _whole,
    "device": _device,
    "batches": _batches,
    "flags": lambda value: isinstance(value, dict),
    "parity": _parity,
    "speed": _speed,
    "compared": lambda value: value is None or contest.is_valid(value),
    "layers": lambda value: value is None or engine_layers.is_valid(value),
    "sbom": lambda value: value is None or bill_of_materials.is_valid(value),
}
