"""Manifests: their bytes damaged, or their values edited and the digest made to agree."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

from fuzzing.mutations import damaged, edited
from fuzzing.using import manifest_of, use
from fuzzing.world import BUNDLE, OTHER, Attempt, World


def attempt(chooser: random.Random, world: World) -> Attempt:
    """Change the bundle's manifest, and use the bundle."""
    path = world.room / BUNDLE / "manifest.json"
    entry = manifest_of(path.parent)
    what = _WAYS[chooser.choice(list(_WAYS))](chooser, world, path, entry)
    signed = what.startswith("signed")
    changed = json.dumps(manifest_of(path.parent), sort_keys=True) != json.dumps(
        entry, sort_keys=True
    )
    unlike = "a manifest that was changed is taken" if changed and not signed else None
    return use(chooser, world, what, unlike)


def signed(entry: Any) -> str:
    """Return a manifest's JSON with a digest that agrees with it, where it can have one."""
    from fgdeploy.bundle.manifest import digest

    with contextlib.suppress(ValueError, TypeError, RecursionError):
        entry = {**entry, "digest": digest(entry)}
    return json.dumps(entry)


def _raw(chooser: random.Random, world: World, path: Path, entry: Any) -> str:
    way, hurt = damaged(chooser, path.read_bytes(), world.read(f"{OTHER}/manifest.json"))
    path.write_bytes(hurt)
    return f"manifest: {way}"


def _edited(chooser: random.Random, world: World, path: Path, entry: Any) -> str:
    what, changed = edited(chooser, entry)
    path.write_text(json.dumps(changed), encoding="utf-8")
    return f"manifest: {what}"


def _signed(chooser: random.Random, world: World, path: Path, entry: Any) -> str:
    what, changed = edited(chooser, entry)
    path.write_text(signed(changed), encoding="utf-8")
    return f"signed manifest: {what}"


def _of_two(chooser: random.Random, world: World, path: Path, entry: Any) -> str:
    """Take some entries of the other bundle's manifest."""
    other = json.loads(world.read(f"{OTHER}/manifest.json"))
    names = chooser.sample(sorted(other), chooser.choice((1, 2, 5)))
    path.write_text(signed({**entry, **{name: other[name] for name in names}}), encoding="utf-8")
    return f"signed manifest: with the other's {', '.join(names)}"


_WAYS = {
    "raw": _raw,
    "edited": _edited,
    "signed": _signed,
    "signed too": _signed,
    "of two": _of_two,
}
