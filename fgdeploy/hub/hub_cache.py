"""Bundles of a hub that lie on this machine: one folder for each commit, never changed.

CACHE/OWNER--NAME/COMMIT.fgd, and CACHE/OWNER--NAME/refs.json, which commit a name last was.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from fgdeploy.core import atomic, json_schema
from fgdeploy.core.errors import RemoteError
from fgdeploy.hub.hub_address import HubAddress

CACHE = "FGDEPLOY_HUB_CACHE"
_LARGEST = 1 << 20  # bytes of refs.json
_PATIENCE_S = 1800.0  # another process that fetches the same


def home() -> Path:
    """Return the folder of all of them: FGDEPLOY_HUB_CACHE, else beside the hub's own cache."""
    if named := os.environ.get(CACHE):
        return Path(named)
    above = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(os.environ.get("HF_HOME") or os.path.join(above, "huggingface")) / "fgdeploy"


class CachedRepository:
    """What is here of one repository."""

    def __init__(self, address: HubAddress) -> None:
        self.folder = home() / address.repository.replace("/", "--")
        self._name = address.revision or "main"

    def bundle(self, commit: str) -> Path:
        """Return where the bundle of a commit lies, or will lie."""
        return self.folder / f"{commit}.fgd"

    def part(self, commit: str) -> Path:
        """Return where it lies until it is whole."""
        return self.folder / f"{commit}.part"

    def remembered(self) -> str | None:
        """Return the commit that the address last was, if its bundle is here."""
        commit = self._refs().get(self._name)
        return commit if commit and self.bundle(commit).is_dir() else None

    def remember(self, commit: str) -> None:
        """Keep which commit the address is now. Raises RemoteError."""
        if self._refs().get(self._name) != commit:
            with self.writing():
                self.folder.mkdir(parents=True, exist_ok=True)
                refs = {**self._refs(), self._name: commit}
                atomic.write_text(self.folder / "refs.json", json.dumps(refs, indent=2) + "\n")

    def _refs(self) -> dict[str, str]:
        path = self.folder / "refs.json"
        try:
            if path.stat().st_size > _LARGEST:
                return {}
            entry = json_schema.parse(path.read_bytes())
        except (OSError, ValueError):  # none yet, or damaged: it is asked for and written again
            return {}
        held = entry.items() if isinstance(entry, dict) else ()
        return {
            name: commit
            for name, commit in held
            if isinstance(commit, str) and HubAddress("a/b", commit).commit
        }

    @contextlib.contextmanager
    def alone(self, commit: str) -> Iterator[None]:
        """Wait until no other process fetches the same commit. Raises RemoteError."""
        from filelock import FileLock, Timeout

        with self.writing():
            self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / f".{commit}.lock", timeout=_PATIENCE_S)
        try:
            with self.writing():
                lock.acquire()
        except Timeout:
            raise RemoteError(
                f"another process has been fetching {self.bundle(commit)} for "
                f"{_PATIENCE_S / 60:.0f} minutes; end it, and try again"
            ) from None
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Say in one line why the cache cannot be written."""
        try:
            yield
        except OSError as error:
            raise RemoteError(
                f"{error.filename or self.folder} cannot be written ({error.strerror or error}); "
                f"free space or check the rights, or name another cache in {CACHE}"
            ) from None

    def drop(self, folder: Path) -> None:
        """Remove a folder of this repository, or the link that stands in its place."""
        with self.writing():
            if folder.is_symlink():
                folder.unlink()
            elif folder.exists():
                shutil.rmtree(folder)
