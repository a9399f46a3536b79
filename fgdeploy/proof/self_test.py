"""The test of an engine that was just opened: fp32's codes, and different ones, in bounded time.

An engine may be built well and give nonsense on another day: another driver, a damaged cache, a
chip that fails. Frames that the bundle carries run before the first answer; where it carries none,
generated ones do, held against the fp32 graph if that can run here.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fgdeploy.bundle import Bundle, checks
from fgdeploy.core.codes import unpack
from fgdeploy.core.errors import EngineError, FgdeployError, UsageError
from fgdeploy.core.progress import Notify, silent
from fgdeploy.core.text import counted, shown
from fgdeploy.engines import BACKENDS, Engine, Outputs, available
from fgdeploy.engines.backends import engine_type
from fgdeploy.engines.base import BATCH, EngineSource, GraphEngine
from fgdeploy.engines.choosing import load
from fgdeploy.engines.record import rebuild
from fgdeploy.photos.generated_frames import wave_frame
from fgdeploy.proof.comparing import limits_for
from fgdeploy.proof.limits import LIMITS, WIDEST, limits_of

_RUNNING = 1 / 8  # of the time allowed: no batch begins later. The rest is for one that is slow.
_GENERATED = 16  # frames
# Bits of generated frames lie nearer to their borders than those of photos, so more may turn.
_LEAST_GENERATED = 0.9
_TIE = 1 / 8  # of one code's bits may differ, however few frames ran: a near-tie of two tokens

Frames = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class SelfTested:
    """What a test found: frames that ran, of how many, and how many different codes they got.

    what: the frames in words. against: of each reference, by name, the share of equal bits and the
    least that is allowed. fp32_codes: different codes of fp32 on these frames, None where nobody
    knows them.
    """

    engine: str
    what: str
    ran: int
    frames: int
    codes: int
    fp32_codes: int | None
    against: dict[str, tuple[float, float]]
    seconds: float

    def words(self) -> str:
        """Return it in one line."""
        bits = [
            f"{share:.2%} of bits as {name} (at least {least:.2%})"
            for name, (share, least) in self.against.items()
        ]
        fp32 = "" if self.fp32_codes is None else f" (fp32 {self.fp32_codes})"
        return (
            f"self-test of {self.engine}: {self.ran} of {self.frames} {self.what} in "
            f"{self.seconds:.1f} s, {counted(self.codes, 'different code')}{fp32}, "
            + (", ".join(bits) or "no fp32 to hold them to")
        )


class SelfTest:
    """Tests engines of one bundle with its own check frames, or generated ones.

    seconds: after so many an engine that has not answered counts as one that hangs, and is left
    behind in its thread. Batches, the first two of one frame, begin in the first eighth of them, so
    a slow engine is tested on fewer frames, two at least. notify: told of each engine that passed.
    Raises BundleError for check frames that cannot be read, UsageError for no time.
    """

    def __init__(
        self,
        bundle: Bundle,
        seconds: float,
        notify: Notify = silent,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not (
            0 < seconds < math.inf
        ):  # fmt: skip
            raise UsageError(
                f"self_test {shown(seconds)}: expected the seconds that it may take, such as 10"
            )
        self._bundle, self._seconds, self._notify, self._clock = bundle, seconds, notify, clock
        held = checks.read(bundle)
        self._int8 = None if held is None else held.int8
        self._fp32: Codes | None = None if held is None else held.codes
        self._generated = held is None
        self._frames = _generated(bundle.manifest.image_size) if held is None else held.frames

    def accept(self, engine: Engine) -> None:
        """Test an engine. Raises EngineError that names it, the numbers and what to do next."""
        try:
            self._notify(self.test(engine).words())
        except EngineError as error:
            raise EngineError(
                f"{engine.describe()} failed its self-test: {error}; {_next(engine)}"
            ) from error

    def test(self, engine: Engine) -> SelfTested:
        """Return what an engine does with the frames. Raises EngineError that says what fails."""
        begun = self._clock()
        found = self._run(engine.run, engine.max_batch)
        seconds = self._clock() - begun
        what = "generated frames" if self._generated else "check frames"
        ran = len(found.code)
        of = f"of {ran} of {len(self._frames)} {what}"
        for name, values in found.arrays().items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                rows = int((~np.isfinite(values.reshape(ran, -1)).all(axis=1)).sum())
                raise EngineError(f"{rows} {of} have NaN or infinity in their {name}")
        fp32 = self._fp32_codes(engine, ran)
        codes = _different(found.code)
        fp32_codes = None if fp32 is None else _different(fp32)
        beside = "no fp32 to compare with" if fp32_codes is None else f"fp32 {fp32_codes}"
        if ran > 1 and codes < self._least_codes(ran, fp32_codes):
            raise EngineError(
                f"{counted(codes, 'different code')} {of} ({beside}), so it tells nothing apart"
            )
        against = self._against(engine, found.code, fp32)
        for name, (share, least) in against.items():
            if share < least:
                raise EngineError(
                    f"{share:.2%} of bits {of} as {name}, expected at least {least:.2%}; "
                    f"{counted(codes, 'different code')} ({beside})"
                )
        return SelfTested(
            engine.describe(), what, ran, len(self._frames), codes, fp32_codes, against, seconds
        )

    def _least_codes(self, ran: int, fp32_codes: int | None) -> float:
        """Return how many different codes there must be: half of fp32's, and two.

        Less only where fp32 too has one code for the first frames; for all frames it never may.
        """
        if fp32_codes is None or ran == len(self._frames):
            return max(2, (fp32_codes or 0) / 2)
        return max(min(2, fp32_codes), fp32_codes / 2)

    def _against(
        self, engine: Engine, codes: Codes, fp32: Codes | None
    ) -> dict[str, tuple[float, float]]:
        """Return the share of equal bits and its limit, by the name of what gave the others."""
        bits, ran, precision = self._bundle.manifest.bits, len(codes), engine.precision
        tie = 1 - max(1, int(_TIE * bits)) / (ran * bits)
        found = {}
        if fp32 is not None:
            least = limits_for(self._bundle, ran, engine).limits.min_bit_agreement
            if least is None:  # it was built for other limits than bits
                least = LIMITS[precision].min_bit_agreement or 0.0
            if self._generated and precision != "fp32":
                least = min(least, _LEAST_GENERATED)
            found["fp32"] = _share(fp32, codes, bits), min(least, tie)
        if self._int8 is not None and precision == "int8":
            least = limits_of(self._bundle, "int8").min_bit_agreement or 0.0
            few = min(math.sqrt(len(self._frames) / ran), WIDEST)  # all of them proved it once
            least = 1 - few * (1 - least)
            found["the calibrated INT8"] = _share(self._int8[:ran], codes, bits), min(least, tie)
        return found

    def _fp32_codes(self, engine: Engine, ran: int) -> Codes | None:
        """Return fp32's codes of the first frames, None where the engine is the only fp32 here."""
        if self._fp32 is not None and len(self._fp32) >= ran:
            return self._fp32[:ran]
        portable = [name for name in available() if not BACKENDS[name].gpu]
        itself = engine.precision == "fp32" and not (
            isinstance(engine, GraphEngine) and engine.source.compiled
        )
        if itself or not portable:
            return None
        source = EngineSource(self._bundle.graph("fp32"), "fp32")
        try:
            reference = load(self._bundle, engine_type(portable[0]), source)
            self._fp32 = self._run(reference.run, None, ran).code
        except FgdeployError as error:
            self._notify(f"self-test not held to fp32, which does not run here: {error}")
            return None
        reference.close()
        return self._fp32

    def _run(self, run: Callable[[Frames], Outputs], most: int | None, enough: int = 0) -> Outputs:
        """Run frames in a thread, a batch after the other, until an eighth of the time is over.

        most: frames of a batch. enough: frames that are run whatever the time.
        """
        count, step = len(self._frames), min(BATCH, most or BATCH)
        stops = [1, 2, *range(2 + step, count, step), count]
        parts: list[Outputs] = []
        failures: list[BaseException] = []
        begun, done = self._clock(), threading.Event()

        def work() -> None:
            start = 0
            try:
                for stop in dict.fromkeys(min(stop, count) for stop in stops):
                    late = self._clock() - begun >= _RUNNING * self._seconds
                    if late and len(parts) > 1 and start >= enough:
                        break
                    parts.append(run(self._frames[start:stop]))
                    start = stop
            except BaseException as error:
                failures.append(error)
            finally:
                done.set()

        threading.Thread(target=work, name="self-test", daemon=True).start()
        if not done.wait(self._seconds):
            ran = sum(len(part.code) for part in list(parts))
            raise EngineError(
                f"no answer within {self._seconds:g} s, after {ran} of {count} frames; "
                "it hangs, or is too slow for that time"
            )
        if failures:
            raise failures[0]
        return Outputs.concatenate(parts)


def _generated(size: int) -> Frames:
    chooser = np.random.default_rng(0)
    return np.stack([wave_frame(size, chooser) for _ in range(_GENERATED)])


def _different(codes: Codes) -> int:
    return len(np.unique(codes, axis=0))


def _share(left: Codes, right: Codes, bits: int) -> float:
    return float((unpack(left, bits) == unpack(right, bits)).mean())


def _next(engine: Engine) -> str:
    if isinstance(engine, GraphEngine) and engine.source.compiled:
        return f"{rebuild(engine.backend, engine.precision)}, or run the next with: --fallback"
    return "see: fgdeploy doctor, or export the bundle again"
