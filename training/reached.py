"""What a network made of its own training photos: how near their codes came to the target codes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fgdeploy.core.codes import UInt8Array, unpack
from fgdeploy.core.errors import DataError
from fgdeploy.core.json_schema import maybe, number, table
from fgdeploy.evaluation.targets import Targets


@dataclass(frozen=True)
class Reached:
    """Shares, 0..1, of the training photos.

    bits_equal: of all their bits, those that are the target code's; codes_equal: of the photos,
    those whose whole code is. gap: what the photos' own codes are worse to search than their target
    codes, as a part of the latter: 1 - mAP asym_sign / mAP asym_targets, below 0 where they are
    better; None where nothing was held out.
    """

    bits_equal: float
    codes_equal: float
    gap: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the shares as JSON-ready values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Reached:
        """Return what `to_json` gave."""
        return cls(**{field.name: entry[field.name] for field in dataclasses.fields(cls)})


SHARES = table(
    {"bits_equal": number(0, 1), "codes_equal": number(0, 1), "gap": maybe(number(most=1))}
)


def compare_codes(
    codes: UInt8Array, targets: Targets, to_targets: float | None, to_codes: float | None
) -> Reached:
    """Compare the training photos' codes (n, bytes) with their target codes, row by row.

    to_targets, to_codes: mAP of the photos held out, against the target codes (asym_targets) and
    against the codes (asym_sign); None where there are none. Raises DataError for other shapes.
    """
    if codes.shape != targets.codes.shape:
        raise DataError(
            f"codes {codes.shape} and target codes {targets.codes.shape} differ in shape; give the "
            "codes of the photos that the targets are of"
        )
    equal = unpack(codes, targets.bits) == unpack(targets.codes, targets.bits)
    gap = 1 - to_codes / to_targets if to_targets and to_codes is not None else None
    return Reached(float(equal.mean()), float(np.mean(equal.all(axis=1))), gap)
