"""Write files and folders so that they are there whole or not at all (temp, fsync, rename)."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO


def _sync_folder(folder: Path) -> None:
    # Best effort: by now the rename is done, and some file systems cannot sync a folder.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _beside(target: Path, kind: str) -> Path:
    return target.with_name(f".{target.name[:50]}.{secrets.token_hex(4)}.{kind}")


def _named(error: OSError, target: Path) -> OSError:
    """Let an error about a temporary file, or about none, speak of the file that was asked for."""
    if error.filename is None or str(error.filename).startswith(str(target.parent / ".")):
        error.filename, error.filename2 = str(target), None
    return error


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that takes the place of `target` when the block ends without an error.

    On any error `target` stays as it was and nothing else is left behind. Raises OSError as the
    system gives it (no space, read-only, permission).
    """
    temporary = _beside(target, "tmp")
    try:
        with open(temporary, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        raise _named(error, target) from None
    finally:
        temporary.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Replace `target` by UTF-8 `text`, atomically."""
    with new_file(target) as stream:
        stream.write(text.encode("utf-8"))


def _rename_to_new(source: Path, target: Path) -> None:
    try:
        os.rename(source, target)  # fails where a folder with content stands
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise FileExistsError(errno.EEXIST, "is there already", str(target)) from None


@contextlib.contextmanager
def new_folder(target: Path, replace: bool = False) -> Iterator[Path]:
    """Give an empty folder that takes the name `target` when the block ends without an error.

    A folder that stands there is left alone (FileExistsError), or with `replace` moved aside first
    and removed last: a failure at any point leaves the old or the new one, never a mixture.
    """
    temporary = _beside(target, "tmp")
    try:
        try:
            temporary.mkdir()
        except OSError as error:
            raise _named(error, target) from None
        yield temporary
        for entry in temporary.rglob("*"):
            if entry.is_file():
                with open(entry, "rb") as stream:
                    os.fsync(stream.fileno())
        _sync_folder(temporary)
        aside = _beside(target, "old")
        if target.is_symlink() or (target.exists() and not target.is_dir()):
            raise NotADirectoryError(errno.ENOTDIR, "not a folder, so not replaced", str(target))
        try:
            if replace and target.exists():
                os.rename(target, aside)
            _rename_to_new(temporary, target)
        except BaseException:  # Ctrl-C too
            if aside.exists() and not target.exists():
                os.rename(aside, target)
            raise
        _sync_folder(target.parent)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
