"""What a pack holds, read so that a forged or damaged zip is refused in one line."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import struct
import zipfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO

from fgdeploy.core.errors import BundleError

_PIECE = 1 << 20  # bytes held at once
_LONGEST_LIST = 1 << 20  # bytes of a zip's own list of members, which zipfile reads at once
_LONGEST_NAME = 255  # bytes; more than any file system of a device takes in one part
_HEADER = struct.Struct("<4s22xHH")  # of a member: signature, lengths of name and extra field
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # flag bits: encrypted, strongly, list of members too
_DOS_FOLDER = 0x10
NEXT = "copy it again, or pack the bundle again with: fgdeploy pack"


def check_names(names: Collection[str], where: str) -> None:
    """Refuse names that leave the bundle, and those that some file system takes for another."""
    for name in names:
        parts = name.split("/")
        harmless = name.isprintable() and "\\" not in name and ":" not in name
        if not harmless or not {"", ".", ".."}.isdisjoint(parts):
            raise BundleError(f"{where} holds {short(name)}, which leaves the bundle; {NEXT}")
        if len(name.encode()) > _LONGEST_NAME:
            raise BundleError(
                f"{where} holds {short(name)}: expected names of at most {_LONGEST_NAME} bytes; "
                f"{NEXT}"
            )
    taken = {folder for name in names for folder in _folders(name.casefold())}
    for name in names:
        if name.casefold() in taken:
            raise BundleError(
                f"{where} holds {short(name)} twice, or as file and folder (upper and lower case "
                f"counted as one); {NEXT}"
            )
        taken.add(name.casefold())


def _folders(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def short(value: object) -> str:
    """Return a value in at most eighty characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


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
        raise BundleError(f"{source} is cut short, damaged or no pack ({reason}); {NEXT}") from None


@contextlib.contextmanager
def opened_pack(source: Path) -> Iterator[tuple[zipfile.ZipFile, IO[bytes]]]:
    """Open a pack as a zip and as the file behind it. Raises BundleError."""
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


def members_of(
    source: Path, archive: zipfile.ZipFile, stream: IO[bytes]
) -> dict[str, zipfile.ZipInfo]:
    """Return the members by name, all of them plain, stored files that fill the zip exactly."""
    found = archive.infolist()
    for info in found:
        for what, refused in _REFUSED.items():
            if refused(info):
                raise BundleError(
                    f"{source}: {short(info.orig_filename)} {what}; expected plain, stored files; "
                    f"{NEXT}"
                )
    check_names([info.filename for info in found], str(source))
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


def pieces_of(source: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the content of a member in pieces; its CRC is checked at the end."""
    with _zip_errors(source), archive.open(info) as member:
        while piece := member.read(_PIECE):
            yield piece
