"""Photos to batches of frames, the one loop that reads them: threads decode ahead of its user."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from fgdeploy.core.closing import Closing
from fgdeploy.core.errors import ImageError, UsageError
from fgdeploy.core.progress import Progress, no_progress
from fgdeploy.photos.images import Preprocess
from fgdeploy.photos.photo import Photo

_MOST_THREADS = 4
_AT_ONCE = 8  # photos of a batch where the caller has no wish

Source = TypeVar("Source")
_Frame: TypeAlias = npt.NDArray[Any]


class DecodersClosed(UsageError):
    """Photos were given to decoders that somebody closed."""


class Decoders(Closing):
    """Threads that decode, started when first needed. Any number of loops may share them."""

    def __init__(self) -> None:
        workers = max(1, min(_MOST_THREADS, os.cpu_count() or 1))
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        self._process = os.getpid()

    def close(self) -> None:
        """End the threads; photos that wait are given up, and their loops raise DecodersClosed."""
        # A forked process has none of the threads that this would wait for.
        self._pool.shutdown(wait=self._process == os.getpid(), cancel_futures=True)

    def submit(self, make: Callable[[Source], _Frame], source: Source) -> Future[_Frame]:
        """Let a thread call make(source). Raises DecodersClosed."""
        try:
            return self._pool.submit(make, source)
        except RuntimeError as error:  # closed, or the process is ending
            raise DecodersClosed(f"no more photos can be decoded: {error}; open anew") from None


@dataclass(frozen=True)
class DecodedBatch:
    """Positions in the input, and what was made of them, row by row: (B, ...)."""

    positions: list[int]
    frames: npt.NDArray[Any]


def decode_batches(
    sources: Iterable[Source],
    make: Callable[[Source], npt.NDArray[Any]],
    size: int,
    on_error: Callable[[int, ImageError], None] | None = None,
    decoders: Decoders | None = None,
) -> Iterator[DecodedBatch]:
    """Yield what `make` gives for each source, in order, `size` at a time; the last may be fewer.

    `make` runs in threads (`Preprocess.frame`, or any other that gives arrays of one shape), at
    most two batches ahead: memory is bounded however many sources there are. on_error: called with
    (position, error) for a photo that cannot be read, which is then left out; without it the
    ImageError is raised. decoders: the threads, by default some that end with the loop. Raises
    DecodersClosed.
    """
    if decoders is None:
        with Decoders() as own:
            yield from decode_batches(sources, make, size, on_error, own)
        return
    positions: list[int] = []
    frames: list[_Frame] = []
    for position, frame in _ahead(sources, make, 2 * size, on_error, decoders):
        positions.append(position)
        frames.append(frame)
        if len(frames) == size:
            yield DecodedBatch(positions, np.stack(frames))
            positions, frames = [], []
    if frames:
        yield DecodedBatch(positions, np.stack(frames))


def _ahead(
    sources: Iterable[Source],
    make: Callable[[Source], _Frame],
    most: int,
    on_error: Callable[[int, ImageError], None] | None,
    decoders: Decoders,
) -> Iterator[tuple[int, _Frame]]:
    waiting: deque[tuple[int, Future[_Frame]]] = deque()
    numbered = enumerate(sources)
    try:
        while True:
            for position, source in islice(numbered, most - len(waiting)):
                waiting.append((position, decoders.submit(make, source)))
            if not waiting:
                return
            position, future = waiting.popleft()
            try:
                frame = future.result()
            except CancelledError:
                raise DecodersClosed("photos that waited were given up; open anew") from None
            except ImageError as error:
                if on_error is None:
                    raise
                on_error(position, error)
            else:
                yield position, frame
    finally:
        for _, future in waiting:
            future.cancel()


def batches(
    photos: Sequence[Photo],
    preprocess: Preprocess,
    size: int,
    skipped: list[str],
    strict: bool = False,
    progress: Progress = no_progress,
) -> Iterator[tuple[list[Photo], npt.NDArray[np.uint8]]]:
    """Yield up to `size` photos at a time with their frames, uint8 (B, S, S, 3).

    Why a photo cannot be read goes to `skipped`, or is raised as ImageError if `strict`. `progress`
    is told after each batch, when its user is done with it.
    """
    total = len(photos)

    def skip(position: int, error: ImageError) -> None:
        skipped.append(str(error))

    def frame(photo: Photo) -> _Frame:
        return preprocess.frame(photo.path, photo.reading)

    for batch in decode_batches(photos, frame, size, None if strict else skip):
        yield [photos[position] for position in batch.positions], batch.frames
        if (done := batch.positions[-1] + 1) < total:
            progress(done, total)
    if photos:
        progress(total, total)


def decode_all(
    photos: Sequence[Photo],
    preprocess: Preprocess,
    skipped: list[str],
    strict: bool = False,
    progress: Progress = no_progress,
) -> tuple[list[Photo], npt.NDArray[np.uint8]]:
    """Return the photos that can be read and all their frames at once, uint8 (N, S, S, 3).

    For numbers that memory holds; else `batches`, which says what the arguments are.
    """
    kept: list[Photo] = []
    parts = [np.zeros((0, preprocess.size, preprocess.size, 3), np.uint8)]
    for group, frames in batches(photos, preprocess, _AT_ONCE, skipped, strict, progress):
        kept += group
        parts.append(frames)
    return kept, np.concatenate(parts)
