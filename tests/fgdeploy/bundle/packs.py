"""What tests of packs share: looks at folders, an engine, and a zip that `pack` would not write."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def contents(folder: Path) -> dict[str, bytes]:
    return {
        entry.relative_to(folder).as_posix(): entry.read_bytes()
        for entry in folder.rglob("*")
        if entry.is_file()
    }


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def add_engine(bundle: Path) -> None:
    home = bundle / "engines" / "openvino-int8-x86_64"
    home.mkdir(parents=True)
    (home / "engine.bin").write_bytes(bytes(range(256)))
    (home / "engine.json").write_text("{}")


def forge(target: Path, members: Mapping[str, bytes], **changes: Any) -> Path:
    """Write a zip as `pack` does, with changes to the ZipInfo of its last member."""
    with zipfile.ZipFile(target, "w") as archive:
        for position, (name, data) in enumerate(members.items(), 1):
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            if position == len(members):
                for key, value in changes.items():
                    setattr(info, key, value)
            archive.writestr(info, data)
    return target
