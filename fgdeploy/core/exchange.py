"""Two folders change places in one step, so that neither name is ever without one.

Linux's renameat2 with RENAME_EXCHANGE (man 2 rename): ext4, xfs, btrfs, tmpfs, f2fs and overlayfs
have it; vfat, NFS and some network and FUSE file systems do not.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import tempfile
from pathlib import Path

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def exchange(one: Path, other: Path) -> None:
    """Exchange what lies at two paths of one file system, and sync their folders. Raises OSError.

    Either both have changed places or nothing has.
    """
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        raise OSError(errno.ENOSYS, "the system has no renameat2", str(one)) from None
    names = os.fsencode(one), os.fsencode(other)
    if call(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(one), None, str(other))
    for folder in {one.parent, other.parent}:
        with contextlib.suppress(OSError):  # some file systems cannot sync a folder
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def can_exchange(folder: Path) -> bool:
    """Return whether two folders inside this one can change places. Raises OSError."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".exchange-") as name:
        one, other = Path(name, "one"), Path(name, "other")
        one.mkdir()
        other.mkdir()
        try:
            exchange(one, other)
        except OSError:
            return False
        return True
