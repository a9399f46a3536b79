"""A bundle as one file: `pack` writes NAME.fgdz, `unpack` verifies it and gives the folder back.

A pack is a zip of stored members, in order and without gaps. Nothing is deflated: that saves only
7 % of fp32, fp16 and int8 weights alike, and what is not compressed cannot be a bomb.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import stat
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fgdeploy.bundle import ENGINES, MANIFEST, Bundle, Manifest, open_bundle, sha256
from fgdeploy.bundle.folder import LONGEST_MANIFEST
from fgdeploy.bundle.pack_reading import (
    NEXT,
    check_names,
    members_of,
    opened_pack,
    pieces_of,
    short,
)
from fgdeploy.bundle.signature import SIGNATURE, check_carried
from fgdeploy.core import atomic, json_schema
from fgdeploy.core.errors import BundleError, UsageError
from fgdeploy.core.progress import Progress, no_progress

SUFFIX = ".fgdz"
Signer = Callable[[Bundle, Collection[str]], bytes]  # of a bundle and the names of its engines

_PIECE = 1 << 20  # bytes held at once
_BLOCK = 1 << 12  # bytes that a file may take beyond its size
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip knows


@dataclass(frozen=True)
class Packed:
    """A finished pack: its size in bytes, its sha256, and name -> bytes of what lies in it."""

    path: Path
    bytes: int
    sha256: str
    files: Mapping[str, int]


def pack(
    bundle_path: str | os.PathLike[str],
    target: str | os.PathLike[str],
    engines: bool = False,
    overwrite: bool = False,
    progress: Progress = no_progress,
    signer: Signer | None = None,
) -> Packed:
    """Verify a bundle and write it as one file; the same bundle gives the same bytes everywhere.

    engines: take the compiled engines along, which run on this kind of machine only. progress:
    called with bytes done and in all. signer: who signs what is packed; without one a signature
    that lies in the bundle is taken along. Raises BundleError, UsageError for a target that does
    not end in .fgdz, or OSError from the disk; then nothing is left behind.
    """
    target = Path(target)
    if target.suffix != SUFFIX:
        raise UsageError(f"-o {target}: a packed bundle's name ends in {SUFFIX}")
    _check_parent(target)
    if target.is_dir():
        raise BundleError(f"{target} is a folder; give another -o")
    if os.path.lexists(target) and not overwrite:
        raise BundleError(f"{target} is there already; pass --overwrite, or another -o")
    bundle = open_bundle(bundle_path)
    if bundle.path.resolve() in target.resolve().parents:
        raise BundleError(f"{target} lies in the bundle itself; give another -o")
    digests = _digests(bundle)
    built = engine_files(bundle, engines)
    names = [MANIFEST, *sorted(set(bundle.manifest.files) | built)]
    check_names(names, str(bundle.path))
    signature = _signature(bundle, signer, sorted(built), names, digests[MANIFEST])
    files = {name: (bundle.path / name).stat().st_size for name in names}
    _check_space(target, files.values())
    done, total = 0, sum(files.values())
    with atomic.new_file(target) as stream, zipfile.ZipFile(stream, "w") as archive:
        for name, size in files.items():
            for length in _add(archive, bundle.path / name, name, size, digests.get(name)):
                done += length
                progress(done, total)
        if signature is not None:
            archive.writestr(_member(SIGNATURE, len(signature)), signature)
            files[SIGNATURE] = len(signature)
    return Packed(target, target.stat().st_size, sha256(target), files)


def unpack(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    overwrite: bool = False,
    progress: Progress = no_progress,
    verify: str | os.PathLike[str] | None = None,
) -> Bundle:
    """Verify a pack down to every sha256 and give it the name `target`, or leave nothing behind.

    Nothing that it holds is trusted: names, links, sizes and contents are checked before a bundle
    appears. progress: called with bytes done and in all. verify: the key that it must be signed
    with, as for `open_bundle`. Raises BundleError, UsageError for a target that does not end in
    .fgd, MissingDependency, or OSError from the disk.
    """
    source, target = Path(source), Path(target)
    if target.suffix != ".fgd":
        raise UsageError(f"-o {target}: a bundle's name ends in .fgd")
    if target.is_symlink():
        raise BundleError(f"{target} is a symbolic link, which is not replaced; give another -o")
    if target.exists() and not overwrite:
        raise BundleError(f"{target} is there already; pass --overwrite, or another -o")
    if target.exists() and not (target / MANIFEST).is_file():
        raise BundleError(f"{target} is no bundle, so it is not overwritten; give another -o")
    _check_parent(target)
    with opened_pack(source) as (archive, stream):
        members = members_of(source, archive, stream)
        _check_listed(source, members, _manifest(source, archive, members))
        sizes = [info.file_size for info in members.values()]
        _check_space(target, sizes)
        done, total = 0, sum(sizes)
        with atomic.new_folder(target, replace=overwrite) as folder:
            for name, info in members.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with open(folder / name, "xb") as file:  # 0666 and umask: never executable
                    for piece in pieces_of(source, archive, info):
                        file.write(piece)
                        done += len(piece)
                        progress(done, total)
            bundle = _verified(folder, source, verify)
    return dataclasses.replace(bundle, path=target)


def _check_parent(target: Path) -> None:
    if not target.parent.is_dir():
        raise BundleError(f"no folder {target.parent} to write {target.name} into; create it first")


def _check_space(target: Path, sizes: Collection[int]) -> None:
    needed = sum(sizes) + _BLOCK * (len(sizes) + 1)
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise BundleError(
            f"{target} needs {needed / 1e6:,.1f} MB, {target.parent.absolute()} has "
            f"{free / 1e6:,.1f} MB free; free some space, or write elsewhere with -o"
        )


# --- writing


def engine_files(bundle: Bundle, wanted: bool) -> set[str]:
    """Return the names of compiled engines, `engines/FOLDER/FILE`; none unless they are wanted."""
    if not wanted:
        return set()
    home: Path = bundle.path / ENGINES
    names: set[str] = set()
    for folder in _entries(home, stat.S_ISDIR):
        names |= {f"{ENGINES}/{folder}/{name}" for name in _entries(home / folder, stat.S_ISREG)}
    if not names:
        raise BundleError(f"{bundle.path} holds no engines; leave out --engines")
    return names


def _entries(folder: Path, is_kind: Callable[[int], bool]) -> list[str]:
    if not os.path.lexists(folder):
        return []
    if folder.is_symlink() or not folder.is_dir():
        raise BundleError(f"{folder} is not a folder, or a link to one; remove it")
    # Names with a dot in front are what an interrupted build left.
    found = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    for entry in found:
        if not is_kind(entry.lstat().st_mode):
            raise BundleError(
                f"{entry} does not belong there: expected {ENGINES}/FOLDER/FILE and no links; "
                "move it away"
            )
    return [entry.name for entry in found]


def _digests(bundle: Bundle) -> dict[str, str]:
    """Return name -> sha256 of what `bundle` was verified with, the manifest included."""
    raw = (bundle.path / MANIFEST).read_bytes()
    if Manifest.from_json(json_schema.parse(raw)) != bundle.manifest:
        raise _changed(bundle.path / MANIFEST)
    listed = {name: facts["sha256"] for name, facts in bundle.manifest.files.items()}
    return {**listed, MANIFEST: hashlib.sha256(raw).hexdigest()}


def _changed(path: Path) -> BundleError:
    return BundleError(f"{path} changed while it was packed; pack it again")


def _signature(
    bundle: Bundle,
    signer: Signer | None,
    engines: Collection[str],
    names: Collection[str],
    manifest: str,
) -> bytes | None:
    """Return the signature that goes into a pack, None if it has none. Raises BundleError."""
    path: Path = bundle.path / SIGNATURE
    if signer is not None:
        return signer(bundle, engines)
    if not os.path.lexists(path):
        return None
    check_carried(path, set(names), manifest)
    return path.read_bytes()


def _add(
    archive: zipfile.ZipFile, path: Path, name: str, size: int, expected: str | None
) -> Iterator[int]:
    """Write one file in pieces and yield their lengths. Raises BundleError if it changed."""
    info = _member(name, size)
    digest, written = hashlib.sha256(), 0
    with open(path, "rb") as file, archive.open(info, "w") as member:
        while piece := file.read(_PIECE):
            member.write(piece)
            digest.update(piece)
            written += len(piece)
            yield len(piece)
    if written != size or expected not in (None, digest.hexdigest()):
        raise _changed(path)


def _member(name: str, size: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system = 3  # Unix, on every machine
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    info.file_size = size
    return info


# --- reading


def _manifest(
    source: Path, archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]
) -> Manifest:
    info = members.get(MANIFEST)
    if info is None:
        raise BundleError(f"{source} holds no {MANIFEST}, so it is no packed bundle; {NEXT}")
    if info.file_size > LONGEST_MANIFEST:
        raise BundleError(
            f"{source}: expected a {MANIFEST} of at most {LONGEST_MANIFEST} bytes, got "
            f"{info.file_size}; {NEXT}"
        )
    try:
        entry = json_schema.parse(b"".join(pieces_of(source, archive, info)))
    except ValueError as error:
        raise BundleError(f"{source}: {MANIFEST} is not JSON ({error}); {NEXT}") from None
    try:
        return Manifest.from_json(entry)
    except BundleError as error:
        raise BundleError(f"{source}: {error}") from None


def _check_listed(source: Path, members: Mapping[str, zipfile.ZipInfo], manifest: Manifest) -> None:
    """Refuse members that the manifest does not list, those that it misses, and other sizes."""
    listed = manifest.files
    for name in members:
        parts = name.split("/")
        engine = len(parts) == 3 and parts[0] == ENGINES
        if name not in listed and name not in (MANIFEST, SIGNATURE) and not engine:
            raise BundleError(
                f"{source} holds {short(name)}, which its {MANIFEST} does not list; {NEXT}"
            )
    for name, facts in listed.items():
        if name not in members:
            raise BundleError(f"{source} lacks {short(name)}; {NEXT}")
        listed_size = facts["bytes"]
        size = members[name].file_size
        if listed_size != size:
            raise BundleError(
                f"{source}: {MANIFEST} lists {short(listed_size)} bytes for {short(name)}, "
                f"got {size}; {NEXT}"
            )


def _verified(folder: Path, source: Path, verify: str | os.PathLike[str] | None) -> Bundle:
    """Open the unpacked bundle; errors speak of the pack, not of the temporary folder."""
    try:
        return open_bundle(folder, verify)
    except BundleError as error:
        raise BundleError(str(error).replace(str(folder), str(source))) from None
