"""`tuning.json` in a bundle: what was measured and tried before this schedule was recommended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fgdeploy.bundle import Bundle
from fgdeploy.core import json_schema
from fgdeploy.core.errors import BundleError
from fgdeploy.core.json_schema import TEXT, flag, list_of, map_of, maybe, number, table, whole

FILE = "tuning.json"
VERSION = 1

_STAIR = table(
    {
        "rows": list_of(whole(1), 1),
        "attend_ms": list_of(number(0), 1),
        "feed_ms": list_of(number(0), 1),
    }
)
_STAIRCASE = table(
    {
        "engine": TEXT,
        "batch": whole(1),
        "fixed_ms": number(0),
        "step_ms": number(0),
        "stairs": map_of(_STAIR),
    }
)
_TRIAL = table(
    {
        "schedule": TEXT,
        "options": map_of(TEXT),
        "predicted_ms": number(0),
        "measured_ms": maybe(number(0)),
        "macs": whole(1),
        "map": maybe(number(0, 1)),
        "drop": maybe(number(-100, 100)),
        "pareto": flag,
        "note": TEXT,
    }
)
_SCHEMA = table(
    {
        "version": whole(VERSION, VERSION),
        "engine": TEXT,
        "device": TEXT,
        "batch": whole(1),
        "latency_ms": number(0),
        "max_drop": number(0, 100),
        "photos": whole(0),
        "trained": flag,
        "recommended": TEXT,
        "dense_ms": number(0),
        "measured_ms": number(0),
        "trials": list_of(_TRIAL),
        "staircase": maybe(_STAIRCASE),
    }
)


def to_bytes(entry: Mapping[str, Any]) -> bytes:
    """Return a file's content. Raises ValueError for what `read` would refuse."""
    text = json.dumps(entry, indent=1, allow_nan=False) + "\n"
    _SCHEMA(json_schema.parse(text.encode()), "")
    return text.encode()


def read(bundle: Bundle) -> dict[str, Any] | None:
    """Return what a bundle's tuning says, None where it was not tuned. Raises BundleError."""
    if FILE not in bundle.manifest.files:
        return None
    try:
        entry: dict[str, Any] = json_schema.parse((bundle.path / FILE).read_bytes())
        _SCHEMA(entry, "")
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{bundle.path / FILE} is damaged: {error}; run fgdeploy tune again"
        ) from None
    return entry


def line(entry: Mapping[str, Any]) -> str:
    """Return a tuning in one line."""
    return (
        f"tuned: {entry['recommended']} for {entry['latency_ms']:g} ms at batch {entry['batch']}, "
        f"{entry['engine']} on {entry['device']}: {entry['measured_ms']:.2f} ms, dense "
        f"{entry['dense_ms']:.2f} ms"
    )
