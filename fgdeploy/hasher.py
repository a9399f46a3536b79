"""Photos to hash codes: the runtime that a camera application embeds. Never imports torch."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fgdeploy import classifying
from fgdeploy.bundle import Bundle, Manifest, open_bundle
from fgdeploy.classifying import Guess
from fgdeploy.core.closing import Closing
from fgdeploy.core.errors import BundleError, DataError, EngineError, ImageError, UsageError
from fgdeploy.core.numbers import as_whole
from fgdeploy.core.progress import Notify, Progress, no_progress, silent
from fgdeploy.core.text import counted, shown
from fgdeploy.engines import Engine, Outputs, open_engine
from fgdeploy.engines.base import BATCH, GraphEngine
from fgdeploy.engines.choosing import Accept, accepted, any_engine
from fgdeploy.photos import (
    Decoders,
    DecodersClosed,
    ImageLike,
    Photo,
    Reading,
    decode_batches,
    skipped_of,
)
from fgdeploy.photos.given import several


@dataclass(frozen=True)
class Hashed:
    """One batch that came back: positions in the input, and the outputs for them, row by row."""

    positions: list[int]
    outputs: Outputs


class Hasher(Closing):
    """A bundle and an engine. Encodes paths, bytes, open files, arrays or Pillow images.

    While the engine works on one batch, threads decode the next. Any number of threads may share
    it, with the codes that one alone gets. Pickled, as for a process that is spawned, it opens its
    bundle again there; a forked process must load its own. Closing it ends what other threads have
    begun with an EngineError, after the batches that run.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: Engine,
        batch: int | None = None,
        bit_depth: int | None = None,
    ) -> None:
        if batch is not None and (as_whole(batch) or 0) < 1:
            raise UsageError(f"expected a batch of at least one photo, got {shown(batch)}; give 1")
        self.bundle = bundle
        self.engine = engine
        self.batch = batch or min(BATCH, engine.max_batch or BATCH)
        self._path = os.path.abspath(bundle.path)
        self._accept: Accept = any_engine
        self._decoders = Decoders()
        self.bit_depth = Reading(bit_depth=bit_depth).bit_depth

    @property
    def manifest(self) -> Manifest:
        """Return the bundle's manifest."""
        return self.bundle.manifest

    @property
    def bits(self) -> int:
        """Return the bits of a code."""
        return self.bundle.manifest.bits

    @property
    def fingerprint(self) -> str:
        """Return what codes of this model can be compared by."""
        return self.bundle.manifest.fingerprint

    @property
    def embedding_width(self) -> int:
        """Return how many values an embedding has. Raises BundleError if the bundle gives none."""
        declared = self.manifest.outputs.get("embedding")
        if declared is None or len(declared.shape) != 1:
            raise BundleError(
                f"{self.bundle.path} gives no embedding; export it again with this fgdeploy"
            )
        return declared.shape[0]

    def close(self) -> None:
        """Free the engine and end the threads that decode."""
        self.engine.close()
        self._decoders.close()

    def reopened(self) -> Hasher:
        """Return a new hasher of the same bundle, engine and settings, as after an engine's error.

        This one stays open. The new engine is tested as this one was. Raises EngineError if this
        is closed, the bundle would give other codes by now, or the test fails.
        """
        make, settings = self.__reduce__()
        fresh: Hasher = make(*settings)
        if isinstance(fresh.engine, GraphEngine):
            accepted(fresh.engine, self._accept)
        fresh._accept = self._accept
        return fresh

    def __reduce__(self) -> tuple[Any, ...]:
        self.engine.check_open()
        if not isinstance(self.engine, GraphEngine):
            raise UsageError(
                f"a hasher on {self.engine.describe()} cannot be copied or sent to another "
                "process; use one that load() gave"
            )
        return _reopen, (
            self._path,
            (self.engine.backend, self.engine.precision, self.engine.source.threads, self.batch),
            (self.fingerprint, self.engine.describe()),
            self.bit_depth,
            self.bundle.owner,
        )

    def encode(
        self,
        images: ImageLike | Iterable[ImageLike],
        color: str = "rgb",
        bit_depth: int | None = None,
    ) -> npt.NDArray[np.uint8]:
        """Return the codes, uint8 (N, ceil(bits/8)), most significant bit first.

        images: one photo or many, each a path, encoded bytes (JPEG, PNG, ...), an open binary file,
        an array or a Pillow image. Arrays are uint8, or uint16 with a bit depth: (H, W), (H, W, 1),
        (H, W, 3) or (H, W, 4); (N, H, W, C) counts as N photos. color: the order of their channels,
        `rgb` or `bgr` (OpenCV's). bit_depth: bits that count in 16-bit pixels, such as 12; by
        default what `load` was told. Raises ImageError at the first unreadable one.
        """
        return self.encode_full(images, color, bit_depth).code

    def encode_full(
        self,
        images: ImageLike | Iterable[ImageLike],
        color: str = "rgb",
        bit_depth: int | None = None,
    ) -> Outputs:
        """Return codes, real-valued hashes (N, bits) and what else the graph gives, as `encode`."""
        found = self.stream(several(images), None, color, bit_depth)
        parts = [hashed.outputs for hashed in found]
        if not parts:
            return Outputs(
                np.zeros((0, self.manifest.code_bytes), np.uint8),
                np.zeros((0, self.bits), np.float32),
            )
        return Outputs.concatenate(parts)

    def classify(
        self,
        images: ImageLike | Iterable[ImageLike],
        k: int = classifying.K,
        color: str = "rgb",
        bit_depth: int | None = None,
    ) -> list[tuple[Guess, ...]]:
        """Return the k best classes of each photo, the best first; images as in `encode`.

        Raises BundleError if the bundle has no class logits, UsageError for a k below 1.
        """
        classifying.check(self.bundle, k)
        return classifying.guesses(self.bundle, self.encode_full(images, color, bit_depth), k)

    def stream(
        self,
        images: Iterable[ImageLike],
        on_error: Callable[[int, ImageError], None] | None = None,
        color: str = "rgb",
        bit_depth: int | None = None,
    ) -> Iterator[Hashed]:
        """Yield batches in order, with bounded memory however many photos there are.

        on_error: called with (position, error) for an unreadable photo, which is then left out;
        without it the ImageError is raised. color, bit_depth: as in `encode`. Raises EngineError if
        the hasher is closed.
        """
        self.engine.check_open()
        reading = Reading(color, self.bit_depth if bit_depth is None else bit_depth)
        make = functools.partial(self.manifest.preprocess.frame, reading=reading)
        try:
            for batch in decode_batches(images, make, self.batch, on_error, self._decoders):
                yield Hashed(batch.positions, self.engine.run(batch.frames))
        except DecodersClosed:
            self.engine.check_open()  # says so for both
            raise


@dataclass(frozen=True)
class HashRun:
    """The photos that were hashed, their outputs row by row, and why others were skipped."""

    photos: list[Photo]
    outputs: Outputs
    skipped: list[str]


def hash_all(
    hasher: Hasher,
    photos: Sequence[Photo],
    strict: bool = False,
    progress: Progress = no_progress,
) -> HashRun:
    """Hash a list of photos; unreadable ones are named in the result, or stop it if `strict`.

    Raises ImageError if `strict`, DataError if no photo at all can be read.
    """
    skipped = skipped_of(photos)
    kept: list[int] = []
    parts: list[Outputs] = []

    def skip(position: int, error: ImageError) -> None:
        skipped.append(str(error))

    for hashed in hasher.stream((p.path for p in photos), on_error=None if strict else skip):
        kept.extend(hashed.positions)
        parts.append(hashed.outputs)
        progress(hashed.positions[-1] + 1, len(photos))
    if not photos:
        raise DataError("there are no photos to hash; check the list")
    if not parts:
        raise DataError(
            f"none of {counted(len(photos), 'photo')} can be read; the first: {skipped[0]}"
        )
    return HashRun([photos[position] for position in kept], Outputs.concatenate(parts), skipped)


def load(
    path: str | os.PathLike[str],
    backend: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    batch: int | None = None,
    fallback: bool = False,
    notify: Notify = silent,
    bit_depth: int | None = None,
    self_test: float | None = None,
    verify: str | os.PathLike[str] | None = None,
) -> Hasher:
    """Open and verify a bundle and start an engine on it: `fgdeploy.load("eet.fgd")`.

    `hf://OWNER/NAME[@REVISION]` is a bundle on a model hub, kept in a cache (`hub.opened`).
    The engine is the fastest that was built for this machine, or the fp32 graph where none was
    (`engines.open_engine`). batch: photos of one run, by default 8 or the engine's most.
    bit_depth: bits that count in 16-bit photos and arrays, such as 12. self_test: seconds that the
    engine may take to prove itself on the bundle's check frames, such as 10 (`proof.self_test`); it
    is not tested by default, and one that fails counts as one that does not fit. verify: the key
    that the bundle must be signed with (`open_bundle`). Raises BundleError, EngineError,
    MissingDependency or UsageError.
    """
    bundle = _bundle_at(path, verify, notify)
    accept = any_engine if self_test is None else _tester(bundle, self_test, notify)
    engine = open_engine(bundle, backend, precision, threads, fallback, notify, accept)
    try:
        hasher = Hasher(bundle, engine, batch, bit_depth)
    except UsageError:
        engine.close()
        raise
    hasher._accept = accept
    return hasher


def _bundle_at(
    path: str | os.PathLike[str], verify: str | os.PathLike[str] | None, notify: Notify
) -> Bundle:
    from fgdeploy import hub

    opened = hub.opened(path, verify, notify) if hub.is_address(path) else None
    return opened or open_bundle(path, verify)


def _tester(bundle: Bundle, seconds: float, notify: Notify) -> Accept:
    from fgdeploy.proof.self_test import SelfTest  # which needs this module

    return SelfTest(bundle, seconds, notify).accept


def _reopen(
    path: str,
    settings: tuple[str, str, int | None, int],
    expected: tuple[str, str],
    bit_depth: int | None,
    owner: Path | None,
) -> Hasher:
    """Open what was pickled. Raises EngineError if the bundle would give other codes by now."""
    hasher = load(path, *settings, fallback=True, bit_depth=bit_depth, verify=owner)
    found = (hasher.fingerprint, hasher.engine.describe())
    if found != expected:
        hasher.close()
        raise EngineError(
            f"{path} changed since its hasher was opened: expected {expected[1]} of model "
            f"{expected[0][:12]}, got {found[1]} of model {found[0][:12]}; load it again"
        )
    return hasher
