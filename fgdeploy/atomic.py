"""Write files and folders so that they are there whole or not at all (temp, fsync, rename)."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[IO[bytes]]:
    """Open a binary file that takes the place of `target` when the block ends without an error.

    On any error `target` stays as it was and nothing else is left behind. Raises OSError as the
    system gives it (no space, read-only, permission).
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Replace `target` by UTF-8 `text`, atomically."""
    with new_file(target) as stream:
        stream.write(text.encode("utf-8"))


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder that takes the place of `target` when the block ends without an error.

    What stood at `target` is moved aside first and removed last, so a failure at any point leaves
    either the old or the new folder there, never a mixture.
    """
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        for entry in temporary.rglob("*"):
            if entry.is_file():
                with open(entry, "rb") as stream:
                    os.fsync(stream.fileno())
        _sync_folder(temporary)
        aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
        if target.exists():
            os.rename(target, aside)
        try:
            os.rename(temporary, target)
        except OSError:
            if aside.exists():
                os.rename(aside, target)
            raise
        _sync_folder(target.parent)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
