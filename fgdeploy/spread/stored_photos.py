"""Photos in a store behind an address, `s3://bucket/folder` and the like: listed and read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from fgdeploy.code_table import NO_FACTS, Facts
from fgdeploy.core.errors import DataError, ImageError
from fgdeploy.core.text import counted, one_line
from fgdeploy.photos.formats import SUFFIXES, unreadable

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://[^:]*(?!.*::)")
_DENIED = ("ACCESS_DENIED", "Permission denied", "Forbidden")


def is_address(source: str) -> bool:
    """Tell whether a text is an address, as `s3://bucket/folder`, and no path."""
    return _ADDRESS.match(source) is not None


def public(address: str) -> str:
    """Return an address without what opens the door: password, key, query."""
    parts = urlsplit(address)
    user, _, host = parts.netloc.rpartition("@")
    netloc = host if ":" in user else parts.netloc
    return urlunsplit((parts.scheme, netloc, parts.path.rstrip("/"), "", ""))


def open_store(address: str) -> tuple[Any, str]:
    """Return a `pyarrow.fs.FileSystem`, and the path in it. Raises DataError.

    What pyarrow does not know is asked of fsspec.
    """
    import pyarrow
    from pyarrow import fs

    try:
        return fs.FileSystem.from_uri(address)  # type: ignore[no-any-return]
    except pyarrow.ArrowInvalid as error:
        if "Unrecognized filesystem" not in str(error):
            raise DataError(
                f"{public(address)} is no address that can be read: {one_line(str(error), 300)}; "
                "write a space as %20"
            ) from None
    except (OSError, pyarrow.ArrowException) as error:
        raise _silent(address, error) from None
    try:
        import fsspec

        store, path = fsspec.core.url_to_fs(address)
    except Exception as error:  # ImportError with what to install, ValueError for no known scheme
        raise DataError(
            f"{public(address)}: {one_line(str(error), 300)}; install what reads such addresses"
        ) from None
    return fs.PyFileSystem(fs.FSSpecHandler(store)), path


@dataclass(frozen=True)
class StoredPhotos:
    """The photos below an address, in order of their paths; an `Originals`.

    address: as it was given, with what opens it; root, paths: in the store; skipped: one line each
    on what lies there but cannot be one of them.
    """

    address: str
    root: str
    paths: Sequence[str]
    found: Sequence[Facts]
    skipped: Sequence[str] = field(default=())

    def __len__(self) -> int:
        return len(self.paths)

    def written(self, row: int) -> str:
        return address_of(self.address, self.root, self.paths[row])

    def label(self, row: int) -> str:
        return PurePosixPath(self.paths[row]).parent.name

    def key(self, row: int) -> bytes:
        return self.written(row).encode()

    def facts(self, row: int) -> Facts:
        return self.found[row]


def address_of(address: str, root: str, path: str) -> str:
    """Return the address of what lies at a path of a store, of which a root has this address."""
    inside = path[len(root.rstrip("/")) :].strip("/")
    base = public(address)
    return f"{base}/{quote(inside)}" if inside else base


def list_store(address: str, strict: bool = False) -> StoredPhotos:
    """List the photos below an address, or the one at it.

    Hidden files and files of other kinds are not meant, as in a folder. Raises DataError; if
    `strict`, ImageError for the first file of a format that is not read.
    """
    from pyarrow import fs

    store, root = open_store(address)
    try:
        top = store.get_file_info(root)
        below = fs.FileSelector(root, recursive=True, allow_not_found=True)
        infos = [top] if top.type == fs.FileType.File else store.get_file_info(below)
    except Exception as error:  # an OSError, or whatever a client of fsspec raises
        raise _silent(address, error) from None
    files = sorted(
        (one for one in infos if one.type == fs.FileType.File),
        key=lambda one: one.path.replace("/", "\0"),
    )
    meant = [one for one in files if one is top or not _is_hidden(root, one.path)]
    paths, facts, skipped = [], [], []
    for one in meant:
        suffix = PurePosixPath(one.path).suffix
        if reason := unreadable(suffix):
            skipped.append(f"{address_of(address, root, one.path)} {reason}")
        elif suffix.lower() in SUFFIXES or one is top:
            paths.append(one.path)
            facts.append(_facts(one))
    if strict and skipped:
        raise ImageError(skipped[0])
    if not paths:
        lost = f"; {counted(len(skipped), 'photo')} cannot be read: {skipped[0]}" if skipped else ""
        raise DataError(f"no images at {public(address)}{lost}; check the address")
    return StoredPhotos(address, root, paths, facts, tuple(skipped))


def _facts(info: Any) -> Facts:
    time = info.mtime_ns
    return int(info.size or 0), NO_FACTS[1] if time is None else int(time)


def _is_hidden(root: str, path: str) -> bool:
    inside = PurePosixPath(path[len(root.rstrip("/")) :].strip("/"))
    return any(part.startswith(".") for part in inside.parts)


def _silent(address: str, error: Exception) -> DataError:
    return DataError(
        f"{public(address)} cannot be listed: {one_line(str(error), 300)}; check the address, the "
        "network and the rights"
    )


class StoredFile:
    """A photo in a store as an open file, read when it is decoded.

    lost: why the store did not give it, where that says nothing about the photo.
    """

    def __init__(self, store: Any, path: str, name: str) -> None:
        self._store = store
        self._path = path
        self.name = name
        self.lost = ""

    def read(self) -> bytes:
        """Return all of it. Raises OSError."""
        try:
            with self._store.open_input_file(self._path) as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            raise OSError("no such object") from None
        except Exception as error:  # an OSError, or whatever a client of fsspec raises
            reason = one_line(str(error), 300)
            if not isinstance(error, PermissionError) and not any(w in reason for w in _DENIED):
                self.lost = reason
            raise OSError(reason) from None

    def named(self, error: ImageError) -> str:
        """Return what is wrong with the photo, with its name."""
        text = str(error)
        for word in ("the image in memory", "the open file"):
            if text.startswith(word):
                return text.replace(word, self.name, 1).replace("open it again", "check it")
        return f"{self.name}: {text}"


def stored_files(store: Any, address: str, root: str, paths: Sequence[str]) -> Iterator[StoredFile]:
    """Yield files of a store, each made when it is its turn."""
    for path in paths:
        yield StoredFile(store, path, address_of(address, root, path))
