"""An engine held against fp32, and one of INT8 also against the codes that its calibration gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fgdeploy.bundle import Bundle, checks
from fgdeploy.bundle.checks import Checks
from fgdeploy.core.codes import unpack
from fgdeploy.core.errors import EngineError, ParityError
from fgdeploy.core.progress import Bars, Notify
from fgdeploy.engines import BACKENDS, available, open_engine
from fgdeploy.engines.backends import engine_type
from fgdeploy.engines.base import EngineSource
from fgdeploy.engines.choosing import graph_key, load
from fgdeploy.photos import Photo, decode_all
from fgdeploy.proof import variety
from fgdeploy.proof.limits import PHOTOS, Limits, Used, limits_of, limits_to_use
from fgdeploy.proof.parity import Parity, compare
from fgdeploy.proof.variety import Variety

_EXACT = "onnxruntime"  # the backend whose INT8 is exact on any CPU

Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SameCodes:
    """How far an INT8 engine gives the calibrated INT8 graph's codes, as fractions.

    min_bit_agreement: the limit. It needs no widening, as two that compute the same graph differ by
    rounding alone, and less than either differs from fp32.
    """

    bit_agreement: float
    identical_codes: float
    min_bit_agreement: float

    @property
    def broken(self) -> list[str]:
        """Return a line if the limit is not kept."""
        if self.bit_agreement >= self.min_bit_agreement:
            return []
        return [
            f"bit agreement with the calibrated INT8 is {self.bit_agreement:.6g}, limit >= "
            f"{self.min_bit_agreement:g}"
        ]


@dataclass(frozen=True)
class Proof:
    """An engine against fp32: the photos' parity, the limits, and those that it breaks.

    parity: None where there were no numbers to compare, which breaks every limit. used: the limits
    and where they come from. int8: against the calibrated INT8 codes, None where the engine is not
    INT8 or nobody knows them here.
    """

    parity: Parity | None
    used: Used
    broken: list[str]
    variety: Variety
    int8: SameCodes | None = None

    @property
    def limits(self) -> Limits:
        """Return the limits alone."""
        return self.used.limits

    @property
    def why(self) -> str:
        """Return where the limits come from, in words."""
        return self.used.why


@dataclass(frozen=True)
class Reference:
    """What engines are held against: frames that differ and what fp32 makes of them.

    labels: of the photos, None for the frames that the bundle carries.
    """

    checks: Checks
    labels: list[str | None] | None
    variety: Variety


def reference(
    bundle: Bundle,
    photos: Sequence[Photo],
    skipped: list[str],
    notify: Notify,
    bars: Bars,
    strict: bool = False,
) -> Reference | None:
    """Return frames of photos, or those that the bundle carries, with what fp32 makes of them.

    Alike ones count once. Returns None where there is nothing to compare on. Raises DataError where
    so few differ that they prove nothing, ImageError for one that cannot be read if `strict`.
    """
    held, labels, purpose = _read(bundle, photos[:PHOTOS], skipped, bars, strict)
    if held is None:
        return None
    rows = variety.different(variety.sketch(held.frames))
    chosen = Checks(
        held.frames[rows],
        held.hashes[rows],
        held.codes[rows],
        None if held.int8 is None else held.int8[rows],
    )
    found = variety.measure(len(held.frames), chosen.codes, bundle.manifest.bits)
    for warning in variety.check(found, purpose):
        notify(warning)
    return Reference(chosen, [labels[row] for row in rows] if labels else None, found)


def prove(
    bundle: Bundle,
    names: Sequence[str],
    precision: str,
    against: Reference,
    limits: Limits | None,
    notify: Notify,
    bars: Bars,
) -> dict[str, Proof]:
    """Hold engines BACKEND:PRECISION against fp32.

    limits: those that were asked for, None for the precision's.
    """
    held, labels = against.checks, against.labels
    used = limits_to_use(bundle, [precision], len(held.frames), limits)
    usual = limits_of(bundle, precision)
    least = (limits or usual).min_bit_agreement or usual.min_bit_agreement
    exact = _int8_codes(bundle, held, notify, bars) if precision == "int8" else None
    proofs = {}
    for name in names:
        try:
            with open_engine(bundle, name) as engine:
                found = engine.run_all(held.frames, progress=bars(f"parity of {name}"))
            parity = compare(held.hashes, held.codes, found.hash, found.code, labels)
        except (EngineError, ParityError) as error:  # it fails on real frames, or gives NaN
            proofs[name] = Proof(None, used, [str(error)], against.variety)
            continue
        broken, same = parity.breaches(used.limits), None
        if exact is not None:
            same = _same(exact, found.code, bundle.manifest.bits, least)
            broken += same.broken
        proofs[name] = Proof(parity, used, broken, against.variety, same)
    return proofs


def _read(
    bundle: Bundle, photos: Sequence[Photo], skipped: list[str], bars: Bars, strict: bool
) -> tuple[Checks | None, list[str | None] | None, str]:
    """Return frames with fp32's answers, their labels, and what they are in words."""
    portable = [name for name in available() if not BACKENDS[name].gpu]
    if photos and portable:
        kept, frames = decode_all(photos, bundle.manifest.preprocess, skipped, strict)
        if kept:
            with open_engine(bundle, portable[0], "fp32") as engine:
                outputs = engine.run_all(frames, progress=bars("running fp32"))
            labels = [photo.label for photo in kept]
            return Checks(frames, outputs.hash, outputs.code), labels, "to check with"
    return checks.read(bundle), None, "that the bundle carries to check with"


def _int8_codes(bundle: Bundle, held: Checks, notify: Notify, bars: Bars) -> Codes | None:
    """Return the codes of the calibrated INT8 graph: the bundle's, or computed where that is exact.

    Not by an engine that was built here, which may be the one to judge.
    """
    if held.int8 is not None:
        return held.int8
    if _EXACT not in available():
        notify(
            "not held to the calibrated INT8 codes: the bundle does not carry them for these "
            f"photos, and {_EXACT}, which gives them exactly, is not installed; run: "
            'pip install "fgdeploy[cpu]", or: fgdeploy calibrate --again'
        )
        return None
    kind = engine_type(_EXACT)
    path = bundle.graph(graph_key(bundle, kind, "int8") or "int8")
    with load(bundle, kind, EngineSource(path, "int8")) as engine:
        return engine.run_all(held.frames, progress=bars("running calibrated INT8")).code


def _same(left: Codes, right: Codes, bits: int, least: float | None) -> SameCodes:
    equal = unpack(left, bits) == unpack(right, bits)
    share, whole = float(equal.mean()), float(equal.all(axis=1).mean())
    return SameCodes(share, whole, least or 0.0)
