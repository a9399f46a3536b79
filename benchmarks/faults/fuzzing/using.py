"""Commands that use the bundle, and what is right when they take it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzzing import oracles
from fuzzing.running import Outcome
from fuzzing.world import BUNDLE, INDEX, PHOTOS, QUERY, Attempt, World

Use = tuple[tuple[str, ...], Callable[[World, Outcome], "str | None"]]


def manifest_of(bundle: Path) -> Any:
    """Return what a bundle's manifest says, None if it is no JSON."""
    try:
        return json.loads((bundle / "manifest.json").read_bytes())
    except (ValueError, OSError, RecursionError):
        return None


def _shown(world: World, outcome: Outcome) -> str | None:
    """Hold `inspect --json` to the manifest; entries that nobody knows are not shown."""
    shown, held = json.loads(outcome.out), manifest_of(world.room / BUNDLE)
    common = shown.keys() & held.keys() - {"digest"}  # what is not there has a default
    differ = [key for key in sorted(common) if not _is_of(shown[key], held[key])]
    return f"inspect --json shows another {', '.join(differ[:4])}" if differ else None


def _is_of(shown: Any, held: Any) -> bool:
    """Return whether a JSON value is another one, perhaps without some entries of objects."""
    if isinstance(shown, dict) and isinstance(held, dict):
        return all(_is_of(value, held.get(key)) for key, value in shown.items())
    if isinstance(shown, list) and isinstance(held, list):
        return len(shown) == len(held) and all(map(_is_of, shown, held))
    return bool(shown == held)


def _hashed(world: World, outcome: Outcome) -> str | None:
    return oracles.wrong_codes(world, world.room / "new.npz", world.photos)


def _packed(world: World, outcome: Outcome) -> str | None:
    return None if (world.room / "new.fgdz").is_file() else "no pack was written"


def _added(world: World, outcome: Outcome) -> str | None:
    return oracles.wrong_index(world, [QUERY])


def _nothing(world: World, outcome: Outcome) -> str | None:
    return None


USES: tuple[Use, ...] = (
    (("inspect", BUNDLE), _nothing),
    (("inspect", BUNDLE, "--json"), _shown),
    (("hash", PHOTOS, "-b", BUNDLE, "-o", "new.npz"), _hashed),
    (("hash", PHOTOS, "-b", BUNDLE, "-o", "new.npz", "--backend", "openvino"), _hashed),
    (("pack", BUNDLE, "-o", "new.fgdz", "--engines"), _packed),
    (("index", "add", INDEX, QUERY, "-b", BUNDLE), _added),
    (("search", QUERY, "-i", INDEX, "-b", BUNDLE, "--json"), oracles.wrong_search),
)


def use(chooser: random.Random, world: World, what: str, unlike: str | None = None) -> Attempt:
    """Return a try of some command on the bundle as it lies in the room.

    unlike: why it is wrong that the bundle opens at all; None where it may.
    """
    arguments, judge = chooser.choice(USES)
    return Attempt(what, arguments, lambda outcome: unlike or judge(world, outcome))
