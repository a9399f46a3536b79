"""Compiled models for several batch sizes in one file.

The first line is JSON, `{"openvino_blobs": 1, "blobs": [{"batch", "bytes", "sha256"}, ...]}`; the
blobs follow in its order. Each size is read alone, as a process mostly uses one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgdeploy.core.errors import EngineError

_VERSION = 1
_LONGEST_HEADER = 1 << 20  # bytes; a real one has about two hundred


def write(target: Path, blobs: Iterable[tuple[int, bytes]]) -> None:
    """Write (batch size, blob) pairs."""
    kept = list(blobs)
    entries = [
        {"batch": batch, "bytes": len(blob), "sha256": hashlib.sha256(blob).hexdigest()}
        for batch, blob in kept
    ]
    header = json.dumps({"openvino_blobs": _VERSION, "blobs": entries})
    with target.open("wb") as stream:
        stream.write(header.encode() + b"\n")
        for _, blob in kept:
            stream.write(blob)


class Blobs:
    """The blobs of a file by batch size. Raises EngineError for a file that `write` did not make.

    sizes: the batch sizes, sorted.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()  # sizes are read later, wherever the process then is
        with path.open("rb") as stream:
            line = stream.readline(_LONGEST_HEADER)
        self._places: dict[int, tuple[int, int, str]] = {}
        place = len(line)
        try:
            header = json.loads(line)
            if header["openvino_blobs"] != _VERSION:
                raise ValueError
            for entry in header["blobs"]:
                batch, size, digest = (
                    _whole(entry["batch"]),
                    _whole(entry["bytes"]),
                    entry["sha256"],
                )
                self._places[batch] = (place, size, digest)
                place += size
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._damaged() from None
        if not self._places or place != path.stat().st_size:
            raise self._damaged()
        self.sizes = tuple(sorted(self._places))

    def read(self, batch: int) -> npt.NDArray[np.uint8]:
        """Return the blob of a batch size. Raises EngineError if it is not what was written."""
        place, size, digest = self._places[batch]
        blob = np.empty(size, np.uint8)
        with self._path.open("rb") as stream:
            stream.seek(place)
            count = stream.readinto(blob.data)
        if count != size or hashlib.sha256(blob.data).hexdigest() != digest:
            raise self._damaged()
        return blob

    def _damaged(self) -> EngineError:
        return EngineError(
            f"openvino cannot load {self._path}: expected the compiled models that fgdeploy wrote, "
            "got something else; build the engine again; see: fgdeploy doctor"
        )


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(value)
    return value
