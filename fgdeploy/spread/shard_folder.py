"""Finished shards of a work as files beside its target: whole, checked, and of this work alone."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fgdeploy.core import atomic
from fgdeploy.core.errors import DataError

_MAGIC = b"fgdeploy shard 1\n"
_LONGEST = 1 << 20  # bytes of the head
_SUFFIX = ".shard"


class ShardFolder:
    """NAME.shards beside a target: one file for each finished shard, with what the work is.

    about: what the work is, in words, as of its `PartFile`, which keeps other processes away.
    """

    def __init__(self, target: Path, about: Mapping[str, str]) -> None:
        self.path = target.with_name(f"{target.name}.shards")
        self._about = dict(about)

    def write(self, number: int, body: bytes) -> None:
        """Put a shard on the disk, atomically, in place of one of that number. Raises OSError."""
        self.path.mkdir(exist_ok=True)
        head = {"about": self._about, "shard": number, "sha256": hashlib.sha256(body).hexdigest()}
        with atomic.new_file(self.path / f"{number:06}{_SUFFIX}") as stream:
            stream.write(_MAGIC + json.dumps(head).encode() + b"\n" + body)

    def bodies(self) -> Iterator[bytes]:
        """Yield what was written. Raises DataError for damage, and for shards of other works."""
        for path in sorted(self.path.glob(f"*{_SUFFIX}")):
            yield self._body(path)

    def remove(self) -> None:
        """Delete it with all that is in it, as its work is done."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _body(self, path: Path) -> bytes:
        with open(path, "rb") as stream:
            magic, line = stream.read(len(_MAGIC)), stream.readline(_LONGEST)
            body = stream.read()
        head = _head(line) if magic == _MAGIC else None
        if head is None or head["sha256"] != hashlib.sha256(body).hexdigest():
            raise DataError(
                f"{path} is damaged: it is not what was written; remove it, and the same command "
                "hashes its photos again"
            )
        begun = head["about"]
        for name in {**begun, **self._about}:
            if begun.get(name) != self._about.get(name):
                raise DataError(
                    f"{path} is a shard with {name} {begun.get(name)}, and now it is "
                    f"{self._about.get(name)}; remove it, or begin anew with: --again"
                )
        return body


def _head(line: bytes) -> dict[str, Any] | None:
    """Return the head of a shard, None where it is none."""
    try:
        head = json.loads(line)
    except ValueError:
        return None
    fits = isinstance(head, dict) and isinstance(head.get("about"), dict) and "sha256" in head
    return head if fits else None
