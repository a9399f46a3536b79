"""Bundles: each file damaged, missing, a link or another bundle's; engines damaged, too."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

from fuzzing.manifests import signed
from fuzzing.mutations import damaged
from fuzzing.using import manifest_of, use
from fuzzing.world import BUNDLE, ENGINE, OTHER, Attempt, World, remove


def attempt(chooser: random.Random, world: World) -> Attempt:
    """Change a bundle's folder, and use the bundle."""
    bundle = world.room / BUNDLE
    if (world.room / ENGINE).is_dir() and chooser.random() < 0.3:
        shutil.copytree(world.room / ENGINE, bundle / "engines")
        files = [path for path in (bundle / "engines").rglob("*") if path.is_file()]
    else:
        files = [path for path in bundle.iterdir() if path.is_file()]
    file = chooser.choice(sorted(files))
    what = _WAYS[chooser.choice(list(_WAYS))](chooser, world, file)
    return use(chooser, world, f"{file.relative_to(bundle)} {what}")


def _damage(chooser: random.Random, world: World, file: Path) -> str:
    way, hurt = damaged(chooser, file.read_bytes(), _others(world, file))
    file.write_bytes(hurt)
    return way


def _others(world: World, file: Path) -> bytes:
    """Return the other bundle's file of a name, or any other file where it has none."""
    other = world.room / OTHER / file.name
    return (other if other.is_file() else world.room / OTHER / "model.onnx").read_bytes()


def _exchange(chooser: random.Random, world: World, file: Path) -> str:
    file.write_bytes(_others(world, file))
    return "exchanged for the other bundle's"


def _exchange_listed(chooser: random.Random, world: World, file: Path) -> str:
    """Exchange a file, and say so in the manifest, as one of ill will would."""
    bundle, name = world.room / BUNDLE, file.name
    ours, theirs = manifest_of(bundle), manifest_of(world.room / OTHER)
    if name not in theirs["files"] or file.parent != bundle:
        return _exchange(chooser, world, file)
    file.write_bytes(_others(world, file))
    ours["files"][name] = theirs["files"][name]
    (bundle / "manifest.json").write_text(signed(ours), encoding="utf-8")
    return "exchanged for the other bundle's, and listed"


def _delete(chooser: random.Random, world: World, file: Path) -> str:
    file.unlink()
    return "deleted"


def _link(chooser: random.Random, world: World, file: Path) -> str:
    away = world.room / "elsewhere"
    shutil.move(file, away)
    target = chooser.choice((str(away), os.path.relpath(away, file.parent), file.name, "nowhere"))
    file.symlink_to(target)
    return "made a link"


def _special(chooser: random.Random, world: World, file: Path) -> str:
    file.unlink()
    if chooser.random() < 0.5:
        os.mkfifo(file)
        return "made a pipe"
    file.mkdir()
    return "made a folder"


def _empty_parent(chooser: random.Random, world: World, file: Path) -> str:
    remove(file.parent)
    if chooser.random() < 0.5:
        file.parent.mkdir()
        return "lost with its folder's content"
    file.parent.write_bytes(b"")
    return "lost, its folder a file"


def _add(chooser: random.Random, world: World, file: Path) -> str:
    name = chooser.choice(
        ("notes.txt", ".hidden", "model.int8.onnx", "engines/x/engine.json", "checks.npz")
    )
    target = world.room / BUNDLE / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(chooser.choice((b"", b"{}", b"[]", chooser.randbytes(50))))
    return f"joined by {name}"


_WAYS = {
    "damaged": _damage,
    "damaged again": _damage,
    "exchanged": _exchange,
    "exchanged and listed": _exchange_listed,
    "deleted": _delete,
    "linked": _link,
    "special": _special,
    "emptied": _empty_parent,
    "added": _add,
}
