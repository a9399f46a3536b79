"""Records of unfinished work beside the file that it will make: kept whatever ends the process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from fgdeploy.core.closing import Closing
from fgdeploy.core.errors import DataError

_MAGIC = b"fgdeploy part 1\n"
_HEAD = struct.Struct("<II")  # bytes of the record, and their CRC-32
_MOST = 1 << 20  # bytes of a record
_SYNC_S = 10.0


class PartFile(Closing):
    """NAME.part beside a target: records of bytes, appended and checksummed, of one process.

    about: what the work is, in words; a file that was begun with other words is not gone on with.
    A record that was cut off at the end, as by a kill or a power cut, never was. again: drop what
    an earlier run left. Raises DataError for the work of others, another process that is at it, or
    damage; OSError.
    """

    def __init__(self, target: Path, about: Mapping[str, str], again: bool = False) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._about = dict(about)
        self._handle = self._locked()
        try:
            self._begin(again)
        except BaseException:
            self.close()
            raise
        self._synced = time.monotonic()

    def close(self) -> None:
        """Let another process have it; the records stay."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def records(self) -> Iterator[bytes]:
        """Yield what was appended, from the first on; to be read to its end before any `append`."""
        place = self._first
        while (found := self._record(place)) is not None:
            place += _HEAD.size + len(found)
            yield found
        os.ftruncate(self._handle, place)
        os.lseek(self._handle, place, os.SEEK_SET)

    def append(self, record: bytes) -> None:
        """Add a record of 1 byte to 1 MiB. Raises OSError, DataError where the file is gone."""
        if not 0 < len(record) <= _MOST:
            raise ValueError(f"a record of {len(record)} bytes")
        try:
            _write(self._handle, _HEAD.pack(len(record), zlib.crc32(record)) + record)
            if time.monotonic() - self._synced > _SYNC_S:
                os.fsync(self._handle)
                self._synced = time.monotonic()
                self._check_place()
        except OSError as error:
            error.filename = str(self.path)
            raise

    def remove(self) -> None:
        """Delete it, as its work is done."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        self.close()

    def _locked(self) -> int:
        """Open the file, made where it is not there, and lock it."""
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._is_at_its_place(handle):
                    return handle
            except BlockingIOError:
                os.close(handle)
                raise DataError(
                    f"{self.path}: another process is at this work; wait for it, or write to "
                    "another file"
                ) from None
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)  # its owner ended and removed it in between

    def _is_at_its_place(self, handle: int) -> bool:
        try:
            return os.path.samestat(os.fstat(handle), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _check_place(self) -> None:
        if not self._is_at_its_place(self._handle):
            raise DataError(
                f"{self.path} is gone: it, or its folder, was removed or replaced while this "
                "command ran; run it again"
            )

    def _begin(self, again: bool) -> None:
        """Find where the records start; write the head where there is none."""
        head = os.pread(self._handle, len(_MAGIC), 0)
        if not _MAGIC.startswith(head):
            raise DataError(f"{self.path} is no part file of fgdeploy; rename or remove it")
        about = None if again or len(head) < len(_MAGIC) else self._record(len(_MAGIC))
        if about is None:
            about = json.dumps(self._about).encode()
            os.ftruncate(self._handle, 0)
            os.lseek(self._handle, 0, os.SEEK_SET)
            _write(self._handle, _MAGIC + _HEAD.pack(len(about), zlib.crc32(about)) + about)
        self._first = len(_MAGIC) + _HEAD.size + len(about)
        self._compare(about)

    def _compare(self, about: bytes) -> None:
        try:
            begun = dict(json.loads(about))
        except ValueError:
            raise self._damaged(len(_MAGIC)) from None
        for name in {**begun, **self._about}:
            if begun.get(name) != self._about.get(name):
                raise DataError(
                    f"{self.path} was begun with {name} {begun.get(name)}, and now it is "
                    f"{self._about.get(name)}; run the command that began it, or drop it with: "
                    "--again"
                )

    def _record(self, place: int) -> bytes | None:
        """Return the record at a place, None where none was finished. Raises DataError."""
        end = os.fstat(self._handle).st_size
        head = os.pread(self._handle, _HEAD.size, place)
        if len(head) < _HEAD.size:
            return None
        length, checksum = _HEAD.unpack(head)
        last = place + _HEAD.size + length
        if 0 < length <= _MOST and last <= end:
            record = os.pread(self._handle, length, place + _HEAD.size)
            if zlib.crc32(record) == checksum:
                return record
        if (0 < length <= _MOST and last >= end) or self._is_empty(place):
            return None
        raise self._damaged(place)

    def _is_empty(self, place: int) -> bool:
        """Tell whether only zeros follow, as after a power cut."""
        while piece := os.pread(self._handle, _MOST, place):
            if piece.strip(b"\0"):
                return False
            place += len(piece)
        return True

    def _damaged(self, place: int) -> DataError:
        return DataError(f"{self.path} is damaged at byte {place}; begin anew with: --again")


def _write(handle: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(handle, view) :]
