"""`calibration.json`: what was found on which photos for which graph, and when that is stale."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fgdeploy.bundle import GRAPHS, Bundle
from fgdeploy.bundle.manifest_schema import LIMITS, PARITY
from fgdeploy.calibration.balance import Balance
from fgdeploy.core import json_schema
from fgdeploy.core.errors import BundleError
from fgdeploy.core.json_schema import (
    TEXT,
    anything,
    list_of,
    map_of,
    maybe,
    number,
    one_of,
    sha256,
    table,
    whole,
)

FILE = "calibration.json"
SCHEMA_VERSION = 2
_RENAMED = {"method": "range", "gate": "limits"}  # what settings are called since version 2
_AGAIN = "run: fgdeploy calibrate --again"


@dataclass(frozen=True)
class Calibration:
    """One calibration, as it lies in a bundle.

    graph_sha256: of the fp32 graph. settings: range, images, balance, compensate, seed, limits.
    photos: how many were observed and a sha256 over their contents. ranges: activation -> its
    balance and the layers that read it. in_float: layers that were returned to float. int8_sha256:
    of the graph that came of it. tools: versions. parity: of the INT8 graph against fp32.
    """

    graph_sha256: str
    settings: Mapping[str, Any]
    photos: Mapping[str, Any]
    ranges: Mapping[str, Mapping[str, Any]]
    in_float: list[str]
    int8_sha256: str
    tools: Mapping[str, str]
    parity: Mapping[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the file's content."""
        entry = {"schema_version": SCHEMA_VERSION, **dataclasses.asdict(self)}
        return (json.dumps(entry, allow_nan=False) + "\n").encode()

    def summary(self) -> dict[str, Any]:
        """Return what the manifest shows of it."""
        return {
            "range": self.settings["range"],
            "photos": self.photos["count"],
            "in_float": self.in_float,
            "bit_agreement": self.parity.get("bit_agreement"),
            "map_drop": self.parity.get("map_drop"),
        }

    def balances(self) -> dict[str, Balance]:
        """Return the balance of each activation."""
        return {
            tensor: Balance(
                np.array(entry["shift"], np.float64),
                np.array(entry["scale"], np.float64),
                float(entry["step"]),
                entry["strength"],
                float(entry["snr_db"]),
            )
            for tensor, entry in self.ranges.items()
        }


def read(bundle: Bundle) -> Calibration | None:
    """Return the calibration of a bundle, None if it has none.

    Raises BundleError if it is damaged, or belongs to other graphs than those that lie beside it.
    """
    if FILE not in bundle.manifest.files:
        return None
    try:
        found = _parse(json_schema.parse((bundle.path / FILE).read_bytes()))
    except ValueError as error:
        reason = " ".join(str(error).split())  # it may quote the file
        raise BundleError(f"{bundle.path / FILE} is damaged ({reason}); {_AGAIN}") from None
    files = bundle.manifest.files
    for key, expected in (("fp32", found.graph_sha256), ("int8", found.int8_sha256)):
        name = GRAPHS[key]
        if name in files and files[name]["sha256"] != expected:
            raise BundleError(
                f"{bundle.path / FILE} is stale: it was made for a {name} of sha256 "
                f"{str(expected)[:12]}, here lies {files[name]['sha256'][:12]}; {_AGAIN}"
            )
    return found


def _parse(entry: Any) -> Calibration:
    json_schema.sane(entry)
    _VERSIONED(entry, "")
    if entry["schema_version"] == 1:
        held = entry["settings"].items()
        settings = {_RENAMED.get(name, name): value for name, value in held}
        entry = {**entry, "settings": settings}
    _SCHEMA(entry, "")
    return Calibration(**{f.name: entry[f.name] for f in dataclasses.fields(Calibration)})


_NUMBERS = list_of(number())
_VERSIONED = table({"schema_version": one_of(1, SCHEMA_VERSION), "settings": map_of(anything)})
_RANGE = table(
    {
        **dict.fromkeys(("shift", "scale"), _NUMBERS),
        **{"step": number(0), "strength": maybe(number()), "snr_db": number()},
        "readers": list_of(TEXT),
    }
)
_SCHEMA = table(
    {
        **dict.fromkeys(("graph_sha256", "int8_sha256"), sha256),
        "settings": table({"range": TEXT, "limits": LIMITS}),
        "photos": table({"count": whole(0)}),
        "ranges": map_of(_RANGE),
        "in_float": list_of(TEXT),
        "tools": map_of(TEXT),
        "parity": PARITY,
    }
)
