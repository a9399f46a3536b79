"""An engine held against fp32, and one of INT8 also against the codes that its calibration gave."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fgdeploy.bundle import Bundle, checks
from fgdeploy.bundle.checks import Checks
from fgdeploy.core.codes import unpack
from fgdeploy.core.errors import EngineError, ParityError
from fgdeploy.core.progress import Bars, Notify
from fgdeploy.core.text import counted
from fgdeploy.engines import BACKENDS, available, open_engine
from fgdeploy.engines.backends import engine_type
from fgdeploy.engines.base import EngineSource
from fgdeploy.engines.choosing import graph_key, load
from fgdeploy.photos import Photo, decode_all
from fgdeploy.proof.parity import Limits, Parity, compare

PHOTOS = 1024
# What an engine keeps to where nothing else is asked for; INT8 has its calibration's limits.
LIMITS = {
    "fp32": Limits(min_bit_agreement=0.999),
    "fp16": Limits(min_bit_agreement=0.995),
    "bf16": Limits(min_bit_agreement=0.97),
    "int8": Limits(min_bit_agreement=0.98),
}
_WIDEST = 2.0  # times a limit, where few photos tell
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

    parity: None where there were no numbers to compare, which breaks every limit. why: where the
    limits come from, in words. int8: against the calibrated INT8 codes, None where the engine is
    not INT8 or nobody knows them here.
    """

    parity: Parity | None
    limits: Limits
    broken: list[str]
    why: str
    int8: SameCodes | None = None


def prove(
    bundle: Bundle,
    names: Sequence[str],
    precision: str,
    photos: Sequence[Photo],
    limits: Limits | None,
    skipped: list[str],
    notify: Notify,
    bars: Bars,
    strict: bool = False,
) -> dict[str, Proof]:
    """Hold engines BACKEND:PRECISION against fp32 on photos, or on the bundle's own frames.

    limits: those that were asked for, None for the precision's. Returns {} where there is nothing
    to compare on.
    """
    reference, labels = _reference(bundle, photos[:PHOTOS], skipped, bars, strict)
    if reference is None:
        notify("parity was not measured: there are no photos; give some with --data")
        return {}
    usual = limits_of(bundle, precision)
    used, why = (limits, "as asked for") if limits else widened(usual, len(reference.frames))
    least = (limits or usual).min_bit_agreement or usual.min_bit_agreement
    exact = _int8_codes(bundle, reference, notify, bars) if precision == "int8" else None
    proofs = {}
    for name in names:
        try:
            with open_engine(bundle, name) as engine:
                found = engine.run_all(reference.frames, progress=bars(f"parity of {name}"))
            parity = compare(reference.hashes, reference.codes, found.hash, found.code, labels)
        except (EngineError, ParityError) as error:  # it fails on real frames, or gives NaN
            proofs[name] = Proof(None, used, [str(error)], why)
            continue
        broken, same = parity.breaches(used), None
        if exact is not None:
            same = _same(exact, found.code, bundle.manifest.bits, least)
            broken += same.broken
        proofs[name] = Proof(parity, used, broken, why, same)
    return proofs


def widened(limits: Limits, photos: int) -> tuple[Limits, str]:
    """Return limits for fewer photos than `PHOTOS`, and why they are what they are.

    Answers of few photos scatter by 1/sqrt(photos).
    """
    factor = min(max(math.sqrt(PHOTOS / photos), 1.0), _WIDEST)
    drop, bits = limits.max_map_drop, limits.min_bit_agreement
    found = dataclasses.replace(
        limits,
        max_map_drop=None if drop is None else factor * drop,
        min_bit_agreement=None if bits is None else 1 - factor * (1 - bits),
    )
    if found == limits:
        return limits, f"as they are set, for {counted(photos, 'photo')}"
    return (
        found,
        f"{limits.words()}, widened for {counted(photos, 'photo')} (limits are set for {PHOTOS:,})",
    )


def limits_of(bundle: Bundle, precision: str) -> Limits:
    """Return the limits of a precision: of INT8 those that its calibration kept."""
    from fgdeploy.calibration import cache

    held = cache.read(bundle) if precision == "int8" else None
    return Limits.from_json(held.settings["limits"]) if held else LIMITS[precision]


def _reference(
    bundle: Bundle, photos: Sequence[Photo], skipped: list[str], bars: Bars, strict: bool
) -> tuple[Checks | None, list[str | None] | None]:
    """Return frames and what fp32 makes of them: of photos, or those that the bundle carries."""
    portable = [name for name in available() if not BACKENDS[name].gpu]
    if not photos or not portable:
        return checks.read(bundle), None
    kept, frames = decode_all(photos, bundle.manifest.preprocess, skipped, strict)
    if not kept:
        return checks.read(bundle), None
    with open_engine(bundle, portable[0], "fp32") as engine:
        outputs = engine.run_all(frames, progress=bars("running fp32"))
    return Checks(frames, outputs.hash, outputs.code), [photo.label for photo in kept]


def _int8_codes(bundle: Bundle, reference: Checks, notify: Notify, bars: Bars) -> Codes | None:
    """Return the codes of the calibrated INT8 graph: the bundle's, or computed where that is exact.

    Not by an engine that was built here, which may be the one to judge.
    """
    if reference.int8 is not None:
        return reference.int8
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
        return engine.run_all(reference.frames, progress=bars("running calibrated INT8")).code


def _same(left: Codes, right: Codes, bits: int, least: float | None) -> SameCodes:
    equal = unpack(left, bits) == unpack(right, bits)
    share, whole = float(equal.mean()), float(equal.all(axis=1).mean())
    return SameCodes(share, whole, least or 0.0)
