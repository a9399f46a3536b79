"""Changes to the manifest of a bundle on disk, its digest made to match or left as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fgdeploy import bundle
from fgdeploy.bundle.manifest import digest


def edit(folder: Path, change: Callable[[dict[str, Any]], Any], sign: bool = True) -> None:
    """Change the manifest of a bundle as a person, or a person of ill will, would.

    sign: make the digest agree with what the manifest now says, as one of ill will would.
    """
    path = folder / "manifest.json"
    entry = json.loads(path.read_text(encoding="utf-8"))
    change(entry)
    path.write_text(signed(entry) if sign else json.dumps(entry), encoding="utf-8")


def signed(entry: dict[str, Any]) -> str:
    """Return a manifest's JSON with a digest that agrees with it."""
    if "digest" in entry:
        entry = {**entry, "digest": digest(entry)}
    return json.dumps(entry)


def put(folder: Path, key: str, value: Any, sign: bool = True) -> None:
    """Set one entry."""
    edit(folder, lambda entry: entry.__setitem__(key, value), sign)


def relist(folder: Path, name: str) -> None:
    """Make the manifest agree with what the file now holds."""
    path = folder / name
    list_file(folder, name, {"bytes": path.stat().st_size, "sha256": bundle.sha256(path)})


def list_file(folder: Path, name: str, facts: Any) -> None:
    """Say something else of a file, or list one more."""
    edit(folder, lambda entry: entry["files"].__setitem__(name, facts))
