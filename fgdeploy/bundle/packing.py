"""A bundle as one file: `pack` writes NAME.fgdz, `unpack` verifies it and gives the folder back.

A pack is a zip of stored members, in order and without gaps. Nothing is deflated: that saves only
7 % of fp32, fp16 and int8 weights alike, and what is not compressed cannot be a bomb.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import os
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fgdeploy.bundle import ENGINES, MANIFEST, Bundle, Manifest, open_bundle, sha256
from fgdeploy.bundle.folder import LONGEST_MANIFEST
from fgdeploy.core import atomic, json_schema
from fgdeploy.core.errors import BundleError, UsageError
from fgdeploy.core.progress import Progress, no_progress

SUFFIX = ".fgdz"


_PIECE = 1 << 20  # bytes held at once
_LONGEST_LIST = 1 << 20  # bytes of a zip's own list of members, which zipfile reads at once
_BLOCK = 1 << 12  # bytes that a file may take beyond its size
_LONGEST_NAME = 255  # bytes; more than any file system of a device takes in one part
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip knows
_HEADER = struct.Struct("<4s22xHH")  # of a member: signature, lengths of name and extra field
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # flag bits: encrypted, strongly, list of members too
_DOS_FOLDER = 0x10
_NEXT = "copy it again, or pack the bundle again with: fgdeploy pack"


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
) -> Packed:
    """Verify a bundle and write it as one file; the same bundle gives the same bytes everywhere.

    engines: take the compiled engines along, which run on this kind of machine only. progress:
    called with bytes done and in all. Raises BundleError, UsageError for a target that does not
    end in .fgdz, or OSError from the disk; then nothing is left behind.
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
    names = [MANIFEST, *sorted(set(bundle.manifest.files) | _engine_files(bundle, engines))]
    _check_names(names, str(bundle.path))
    files = {name: (bundle.path / name).stat().st_size for name in names}
    _check_space(target, files.values())
    done, total = 0, sum(files.values())
    with atomic.new_file(target) as stream, zipfile.ZipFile(stream, "w") as archive:
        for name, size in files.items():
            for length in _add(archive, bundle.path / name, name, size, digests.get(name)):
                done += length
                progress(done, total)
    return Packed(target, target.stat().st_size, sha256(target), files)


def unpack(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Bundle:
    """Verify a pack down to every sha256 and give it the name `target`, or leave nothing behind.

    Nothing that it holds is trusted: names, links, sizes and contents are checked before a bundle
    appears. progress: called with bytes done and in all. Raises BundleError, UsageError for a
    target that does not end in .fgd, or OSError from the disk.
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
    with _opened(source) as (archive, stream):
        members = _members(source, archive, stream)
        _check_listed(source, members, _manifest(source, archive, members))
        sizes = [info.file_size for info in members.values()]
        _check_space(target, sizes)
        done, total = 0, sum(sizes)
        with atomic.new_folder(target, replace=overwrite) as folder:
            for name, info in members.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with open(folder / name, "xb") as file:  # 0666 and umask: never executable
                    for piece in _pieces(source, archive, info):
                        file.write(piece)
                        done += len(piece)
                        progress(done, total)
            bundle = _verified(folder, source)
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


def _check_names(names: Collection[str], where: str) -> None:
    """Refuse names that leave the bundle, and those that some file system takes for another."""
    for name in names:
        parts = name.split("/")
        harmless = name.isprintable() and "\\" not in name and ":" not in name
        if not harmless or not {"", ".", ".."}.isdisjoint(parts):
            raise BundleError(f"{where} holds {_short(name)}, which leaves the bundle; {_NEXT}")
        if len(name.encode()) > _LONGEST_NAME:
            raise BundleError(
                f"{where} holds {_short(name)}: expected names of at most {_LONGEST_NAME} bytes; "
                f"{_NEXT}"
            )
    taken = {folder for name in names for folder in _folders(name.casefold())}
    for name in names:
        if name.casefold() in taken:
            raise BundleError(
                f"{where} holds {_short(name)} twice, or as file and folder (upper and lower case "
                f"counted as one); {_NEXT}"
            )
        taken.add(name.casefold())


def _folders(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


# --- writing


def _engine_files(bundle: Bundle, wanted: bool) -> set[str]:
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


def _add(
    archive: zipfile.ZipFile, path: Path, name: str, size: int, expected: str | None
) -> Iterator[int]:
    """Write one file in pieces and yield their lengths. Raises BundleError if it changed."""
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system = 3  # Unix, on every machine
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    info.file_size = size
    digest, written = hashlib.sha256(), 0
    with open(path, "rb") as file, archive.open(info, "w") as member:
        while piece := file.read(_PIECE):
            member.write(piece)
            digest.update(piece)
            written += len(piece)
            yield len(piece)
    if written != size or expected not in (None, digest.hexdigest()):
        raise _changed(path)


# --- reading


class _Bounded(io.BufferedReader):
    """A file that refuses what only a forged zip makes zipfile ask for."""

    def read(self, size: int | None = -1, /) -> bytes:
        # Without a size, zipfile reads the end record: at most 64 KiB from the end of the file.
        if size is not None and size > _LONGEST_LIST:
            raise zipfile.BadZipFile(f"a list of members of {size} bytes")
        return super().read(_LONGEST_LIST if size is None or size < 0 else size)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence == os.SEEK_SET and offset < 0:
            raise zipfile.BadZipFile("a member before the start of the file")
        return super().seek(offset, whence)


@contextlib.contextmanager
def _zip_errors(source: Path) -> Iterator[None]:
    """Turn all that zipfile raises on a forged or damaged file into one BundleError."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        OverflowError,
        struct.error,
    ) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise BundleError(
            f"{source} is cut short, damaged or no pack ({reason}); {_NEXT}"
        ) from None


@contextlib.contextmanager
def _opened(source: Path) -> Iterator[tuple[zipfile.ZipFile, IO[bytes]]]:
    if not source.is_file():  # a pipe or device would never end
        what = "is not a file" if source.exists() else "does not exist"
        raise BundleError(f"{source} {what}; expected a packed bundle, from: fgdeploy pack")
    try:
        file = _Bounded(io.FileIO(source))
    except PermissionError as error:
        raise BundleError(f"{source} cannot be read ({error.strerror}); check its rights") from None
    with file as stream:
        with _zip_errors(source):
            archive = zipfile.ZipFile(stream)
        with archive:
            yield archive, stream


# What no member of a pack may be, in the order of checking.
_REFUSED: dict[str, Callable[[zipfile.ZipInfo], object]] = {
    "is a link, a folder or another special entry": lambda info: (
        info.filename.endswith("/")
        or info.external_attr & _DOS_FOLDER
        or stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG)
    ),
    "goes by two names": lambda info: info.filename != info.orig_filename,
    "is encrypted": lambda info: info.flag_bits & _ENCRYPTED,
    "is compressed": lambda info: info.compress_type != zipfile.ZIP_STORED,
    "has two sizes": lambda info: info.compress_size != info.file_size,
}


def _members(
    source: Path, archive: zipfile.ZipFile, stream: IO[bytes]
) -> dict[str, zipfile.ZipInfo]:
    """Return the members by name, all of them plain, stored files that fill the zip exactly."""
    found = archive.infolist()
    for info in found:
        for what, refused in _REFUSED.items():
            if refused(info):
                raise BundleError(
                    f"{source}: {_short(info.orig_filename)} {what}; expected plain, stored files; "
                    f"{_NEXT}"
                )
    _check_names([info.filename for info in found], str(source))
    with _zip_errors(source):
        end = 0
        for info in sorted(found, key=lambda info: info.header_offset):
            stream.seek(info.header_offset)
            _, name, extra = _HEADER.unpack(stream.read(_HEADER.size))
            if info.header_offset != end:
                raise zipfile.BadZipFile(
                    f"{info.filename} does not begin where the one before ends"
                )
            end += _HEADER.size + name + extra + info.file_size
        if end != archive.start_dir:
            raise zipfile.BadZipFile("the members are longer or shorter than declared")
    return {info.filename: info for info in found}


def _pieces(source: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the content of a member in pieces; its CRC is checked at the end."""
    with _zip_errors(source), archive.open(info) as member:
        while piece := member.read(_PIECE):
            yield piece


def _manifest(
    source: Path, archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo]
) -> Manifest:
    info = members.get(MANIFEST)
    if info is None:
        raise BundleError(f"{source} holds no {MANIFEST}, so it is no packed bundle; {_NEXT}")
    if info.file_size > LONGEST_MANIFEST:
        raise BundleError(
            f"{source}: expected a {MANIFEST} of at most {LONGEST_MANIFEST} bytes, got "
            f"{info.file_size}; {_NEXT}"
        )
    try:
        entry = json_schema.parse(b"".join(_pieces(source, archive, info)))
    except ValueError as error:
        raise BundleError(f"{source}: {MANIFEST} is not JSON ({error}); {_NEXT}") from None
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
        if name not in listed and name != MANIFEST and not engine:
            raise BundleError(
                f"{source} holds {_short(name)}, which its {MANIFEST} does not list; {_NEXT}"
            )
    for name, facts in listed.items():
        if name not in members:
            raise BundleError(f"{source} lacks {_short(name)}; {_NEXT}")
        listed_size = facts["bytes"]
        size = members[name].file_size
        if listed_size != size:
            raise BundleError(
                f"{source}: {MANIFEST} lists {_short(listed_size)} bytes for {_short(name)}, "
                f"got {size}; {_NEXT}"
            )


def _verified(folder: Path, source: Path) -> Bundle:
    """Open the unpacked bundle; errors speak of the pack, not of the temporary folder."""
    try:
        return open_bundle(folder)
    except BundleError as error:
        raise BundleError(str(error).replace(str(folder), str(source))) from None
