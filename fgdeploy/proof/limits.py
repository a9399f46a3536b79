"""The limits that engines keep to, by precision: one set for building, parity and opening.

Who asks for none gets those of the precision: fp32's lie in the bundle's manifest, INT8's in its
calibration. Whatever is used comes with the reason, in words.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fgdeploy.core.errors import BundleError, UsageError
from fgdeploy.core.text import counted

if TYPE_CHECKING:
    from fgdeploy.bundle import Bundle
    from fgdeploy.engines import Record

PHOTOS = 1024  # that the limits are set for
AS_ASKED = "as asked for"
WIDEST = 2.0  # times a limit, where few photos tell


@dataclass(frozen=True)
class Limits:
    """The limits that a comparison must keep; None is no limit.

    max_hash_diff: largest |hash difference|. min_bit_agreement, min_identical and min_top10:
    fractions 0..1. max_map_drop: candidate's mAP below the reference's, in points of 100.
    max_output_error: of every further output (embedding, logits, a method's own), see `Parity`.
    """

    max_hash_diff: float | None = None
    min_bit_agreement: float | None = None
    min_identical: float | None = None
    min_top10: float | None = None
    max_map_drop: float | None = None
    max_output_error: float | None = None

    def __post_init__(self) -> None:
        for key, value in self.to_json().items():
            top = 1.0 if key.startswith("min_") else np.inf
            if not 0 <= value <= top:
                raise UsageError(f"limit {key}={value:g}: expected a number from 0 to {top:g}")

    @classmethod
    def from_json(cls, entry: Mapping[str, float]) -> Limits:
        """Read the limits of a manifest; names that are not known here are left out."""
        known = {field.name for field in dataclasses.fields(cls)}
        limits = {key: value for key, value in entry.items() if key in known}
        for key, value in limits.items():
            if not isinstance(value, (int, float)):
                raise BundleError(
                    f"the bundle's limit {key} is {value!r}, no number; export it again"
                )
        return cls(**limits)

    def to_json(self) -> dict[str, float]:
        """Return the limits that are set."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value is not None}

    def words(self) -> str:
        """Return the limits in words, such as "98.5 % of bits, 0.5 points of mAP"."""
        names = {
            "max_hash_diff": "|hash difference| {:.3g}",
            "min_bit_agreement": "{:.4g} % of bits",
            "min_identical": "{:.4g} % of codes",
            "min_top10": "{:.4g} % of the top 10",
            "max_map_drop": f"{{:.3g}} {'point' if self.max_map_drop == 1 else 'points'} of mAP",
            "max_output_error": "{:.3g} error of further outputs",
        }
        shown = self.to_json().items()
        parts = (names[key].format(100 * x if key.startswith("min_") else x) for key, x in shown)
        return ", ".join(parts) or "none"


# What fp32 engines keep to; exports record it in their manifest. The largest difference has no
# limit: among thousands of photos one near-tie in a token choice moves one hash, harmlessly.
FP32_LIMITS = Limits(
    min_bit_agreement=0.999, min_top10=0.99, max_map_drop=0.1, max_output_error=0.01
)
# Of each precision, the most exact first; a bundle's manifest and calibration come before these.
LIMITS = {
    "fp32": FP32_LIMITS,
    "fp16": Limits(min_bit_agreement=0.995),
    "int8": Limits(min_bit_agreement=0.98),
    "fp8": Limits(min_bit_agreement=0.98),
    "bf16": Limits(min_bit_agreement=0.97),
}
# What INT8 keeps to. Photos that a model was trained on lie further from its decision borders: half
# a per cent more bits agree on them than on new ones (measured), hence 98.5 for 98 % on new photos.
# Bits alone decide where photos have no labels that repeat.
MAX_DROP, MIN_BITS, MIN_BITS_UNLABELLED = 0.5, 0.985, 0.99


@dataclass(frozen=True)
class Used:
    """Limits to hold an engine to, and why they are what they are."""

    limits: Limits
    why: str

    def words(self) -> str:
        """Return both, such as "98.5 % of bits: as its calibration kept them"."""
        return f"{self.limits.words()}: {self.why}"


def int8_limits(labels: Sequence[str | None]) -> Limits:
    """Return the limits of an INT8 graph: half a point of mAP and 98.5 % of bits, or 99 %."""
    known = {label for label in labels if label is not None}
    if None in labels or not 1 < len(known) < len(labels):
        return Limits(min_bit_agreement=MIN_BITS_UNLABELLED)
    return Limits(max_map_drop=MAX_DROP, min_bit_agreement=MIN_BITS)


def limits_of(bundle: Bundle, precision: str) -> Limits:
    """Return a precision's limits: fp32's of the manifest, INT8's and FP8's of the calibration."""
    from fgdeploy.calibration import cache

    if precision == "fp32" and bundle.manifest.limits:
        return Limits.from_json(bundle.manifest.limits)
    held = cache.read(bundle) if precision in ("int8", "fp8") else None
    return Limits.from_json(held.settings["limits"]) if held else LIMITS[precision]


def limits_to_use(
    bundle: Bundle,
    precisions: Sequence[str],
    photos: int,
    asked: Limits | None = None,
    built: Record | None = None,
) -> Used:
    """Return the limits for engines of these precisions on so many photos.

    The least exact of them decides. asked: limits that were named, which are used as they are.
    built: the record of the engine; limits that were named when it was built stay its own. Few
    photos widen all but fp32's, whose engines compute the same graph but for rounding.
    """
    if asked is not None:
        return Used(asked, AS_ASKED)
    named = _named(built)
    if named is not None:
        return Used(named, "as asked for when it was built")
    precision = max(precisions, key=list(LIMITS).index)
    usual = limits_of(bundle, precision)
    if precision == "fp32":
        return Used(usual, "of fp32, whatever the number of photos")
    return widened(usual, photos)


def _named(built: Record | None) -> Limits | None:
    entry = {} if built is None or built.parity is None else built.parity
    held = entry.get("limits")
    if entry.get("limits_why") != AS_ASKED or not isinstance(held, dict):
        return None
    return Limits.from_json(held)


def widened(limits: Limits, photos: int) -> Used:
    """Return limits for fewer photos than `PHOTOS`: answers of few scatter by 1/sqrt(photos)."""
    factor = min(max(math.sqrt(PHOTOS / photos), 1.0), WIDEST)
    drop, bits = limits.max_map_drop, limits.min_bit_agreement
    found = dataclasses.replace(
        limits,
        max_map_drop=None if drop is None else factor * drop,
        min_bit_agreement=None if bits is None else 1 - factor * (1 - bits),
    )
    if found == limits:
        return Used(limits, f"as they are set, for {counted(photos, 'photo')}")
    return Used(
        found,
        f"{limits.words()}, widened for {counted(photos, 'photo')} (limits are set for {PHOTOS:,})",
    )
