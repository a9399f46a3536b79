"""The bundle `NAME.fgd/`: everything a device needs to run one model, and nothing that executes.

`manifest.json` describes the model and lists every file with its size and sha256. Opening checks
all of that before anything is used; writing happens in a temporary folder and one rename.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import reprlib
import stat
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fgdeploy.bundle import onnx_scan, trust
from fgdeploy.bundle.fingerprint import GRAPH_NOTE
from fgdeploy.bundle.manifest import MANIFEST, Manifest
from fgdeploy.bundle.recognising import what_it_is
from fgdeploy.bundle.signature import SIGNATURE
from fgdeploy.core import atomic, json_schema, machine
from fgdeploy.core.errors import BundleError, UsageError

# int8-u8 and int8-fp16 hold the same INT8 numbers as int8: with unsigned activations, as ONNX
# Runtime likes them on x86, and with FP16 for the rest, as TensorRT does.
# fp8 is made when asked for.
GRAPHS = {
    "fp32": "model.onnx",
    "fp16": "model.fp16.onnx",
    "int8": "model.int8.onnx",
    "int8-u8": "model.int8.u8.onnx",
    "int8-fp16": "model.int8.fp16.onnx",
    "fp8": "model.fp8.onnx",
}
LONGEST_MANIFEST = 1 << 24  # bytes
ENGINES = "engines"  # compiled engines belong to a machine, not to the manifest


@dataclass(frozen=True)
class Bundle:
    """An opened, verified bundle.

    owner: the key that its signature was checked with, None where none was asked for; signed: the
    names of all files under it.
    """

    path: Path
    manifest: Manifest
    owner: Path | None = None
    signed: frozenset[str] = frozenset()

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
        return self._replaced(files, None, calibration)

    def with_file(self, name: str, content: bytes) -> Bundle:
        """Add or replace a file that no calibration is about, in the same way."""
        held = self.manifest.calibration
        return self._replaced({name: content}, held, held)

    def _replaced(
        self,
        files: Mapping[str, bytes],
        meanwhile: Mapping[str, Any] | None,
        calibration: Mapping[str, Any] | None,
    ) -> Bundle:
        listed = {name: facts for name, facts in self.manifest.files.items() if name not in files}
        bare = self._with(dataclasses.replace(self.manifest, files=listed, calibration=meanwhile))
        for name, content in files.items():
            with atomic.new_file(self.path / name) as stream:
                stream.write(content)
            listed[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        return bare._with(
            dataclasses.replace(
                bare.manifest, files=dict(sorted(listed.items())), calibration=calibration
            )
        )

    def check_open_to_changes(self) -> None:
        """Raise BundleError if this was opened as its owner's, whose signature would not hold."""
        if self.owner is not None:
            raise BundleError(
                f"{self.path} is signed, and a change would break that; change it where no key is "
                "demanded, and sign it again with: fgdeploy sign"
            )

    def _with(self, manifest: Manifest) -> Bundle:
        self.check_open_to_changes()
        atomic.write_text(self.path / MANIFEST, _dump(manifest))
        return dataclasses.replace(self, manifest=manifest)


def open_bundle(
    path: str | os.PathLike[str], verify: str | os.PathLike[str] | None = None
) -> Bundle:
    """Open a bundle and verify all of it: schema, names, sizes, sha256, no links, no external data.

    verify: the public key, or authorities' certificates, that it must be signed with, by default
    the one that FGDEPLOY_TRUSTED_KEY names, if it is set. Raises BundleError with the first thing
    that is wrong, UsageError for what is no path, MissingDependency.
    """
    folder = _folder(path)
    manifest = read_manifest(_regular_file(folder, MANIFEST))
    owner, signed = trust.demanded(verify), frozenset[str]()
    if owner is not None:
        signed = trust.verify(folder, manifest, owner)
    check_files(folder, manifest)
    return Bundle(folder, manifest, owner, signed)


def check_files(folder: Path, manifest: Manifest) -> None:
    """Check every file that a manifest lists. Raises BundleError with the first that is wrong."""
    # In threads, since hashing is half of the time until an engine is loaded
    with ThreadPoolExecutor(machine.cores(), thread_name_prefix="verify") as pool:
        checks = [pool.submit(_verify, folder, name, manifest) for name in manifest.files]
        for check in checks:
            check.result()
    if GRAPHS["fp32"] not in manifest.files:
        raise BundleError(
            f"{folder}: {MANIFEST} lists no {GRAPHS['fp32']}; export the bundle again"
        )


def _folder(path: str | os.PathLike[str]) -> Path:
    name = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(name, str) or not name:
        raise UsageError(
            f"expected the path of a bundle such as 'eet.fgd', got {reprlib.repr(path)}; name one"
        )
    if name.startswith("hf:/"):
        address = "hf://" + name[4:].lstrip("/")
        raise BundleError(
            f"{address} lies on a hub; fetch it first: fgdeploy pull {address} -o eet.fgd"
        )
    folder = Path(name)
    if folder.is_dir() and os.path.lexists(folder / MANIFEST):
        return folder
    if (words := what_it_is(folder)) is not None:
        raise BundleError(words)
    if folder.is_dir():
        return folder  # a bundle that lacks its manifest, which is said with the rest
    what = "is not a bundle folder" if folder.exists() else "does not exist"
    raise BundleError(f"{folder} {what}; make one with: fgdeploy export -o {folder}")


def read_manifest(path: Path) -> Manifest:
    """Return what a `manifest.json` says, its files not verified. Raises BundleError."""
    try:
        if path.stat().st_size > LONGEST_MANIFEST:
            raise ValueError(f"more than {LONGEST_MANIFEST} bytes")
        entry = json_schema.parse(path.read_bytes())
    except OSError as error:
        raise BundleError(f"{path} is not readable ({error.strerror}); check its rights") from None
    except ValueError as error:
        raise BundleError(f"{path} is not JSON ({error}); export the bundle again") from None
    try:
        return Manifest.from_json(entry)
    except BundleError as error:
        raise BundleError(str(error).replace(MANIFEST, str(path), 1)) from None


def _check_graph(path: Path, manifest: Manifest) -> None:
    """Look into an ONNX file: whole, without external data, and of the model it is listed for."""
    if path.suffix != ".onnx":
        return
    of = onnx_scan.check(path).get(GRAPH_NOTE, manifest.fingerprint)
    if of != manifest.fingerprint:
        raise BundleError(
            f"{path} is the graph of another model (fingerprint {of[:12]}, the manifest has "
            f"{manifest.fingerprint[:12]}); copy or export the bundle again"
        )


def _verify(folder: Path, name: str, manifest: Manifest) -> None:
    _verify_file(folder, name, manifest.files[name])
    _check_graph(folder / name, manifest)


def _verify_file(folder: Path, name: str, facts: Mapping[str, Any]) -> None:
    parts = PurePosixPath(name).parts
    # Printable, too: a name may not paint on the terminal that shows it
    plain = name.isprintable() and "\\" not in name and ":" not in name
    if not parts or name.startswith("/") or ".." in parts or not plain:
        raise BundleError(
            f"{folder / MANIFEST} lists {name!r}, which leaves the bundle; do not use this bundle"
        )
    path = _regular_file(folder, name)
    size, digest = facts["bytes"], facts["sha256"]
    actual = path.stat().st_size
    if actual != size:
        raise BundleError(
            f"{path}: expected {size} bytes, got {actual}; copy or export the bundle again"
        )
    if sha256(path) != digest:
        raise BundleError(
            f"{path}: its sha256 is not the one in {MANIFEST}; copy or export the bundle again"
        )


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


def check_new(target: Path, overwrite: bool) -> None:
    """Raise UsageError or BundleError where no new bundle can be written to `target`.

    overwrite: whether a bundle there may be replaced; what is no bundle never is.
    """
    if target.suffix != ".fgd":
        raise UsageError(f"-o {target}: a bundle's name ends in .fgd")
    if target.exists() and not overwrite:
        raise BundleError(f"{target} is there already; pass --overwrite, or another -o")
    if target.exists() and not (target / MANIFEST).is_file():
        raise BundleError(f"{target} is no bundle, so it is not overwritten; give another -o")
    if not target.parent.is_dir():
        raise BundleError(f"no folder {target.parent} to write {target.name} into; create it first")


def seal(folder: Path, manifest: Manifest) -> Bundle:
    """Write the manifest of a folder that holds all other files, with their sizes and sha256."""
    inside = (entry.relative_to(folder) for entry in folder.rglob("*") if entry.is_file())
    names = sorted(entry.as_posix() for entry in inside if entry.parts[0] != ENGINES)
    files = {
        name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size}
        for name in names
        if name not in (MANIFEST, SIGNATURE)
    }
    sealed = dataclasses.replace(manifest, files=files)
    atomic.write_text(folder / MANIFEST, _dump(sealed))
    return Bundle(folder, sealed)


def _dump(manifest: Manifest) -> str:
    text = json.dumps(manifest.to_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    Manifest.from_json(json_schema.parse(text.encode()))  # nothing is written that does not open
    return text
