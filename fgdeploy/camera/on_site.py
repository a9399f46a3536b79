"""What is asked of a camera on site, checked before anything is opened, and the camera made so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from fgdeploy.camera.camera import Camera
from fgdeploy.camera.capture_source import CaptureSource
from fgdeploy.camera.enrolling import Enroller, check_label, check_name, name_of
from fgdeploy.camera.gate import ChangeGate
from fgdeploy.camera.pair_voting import PairVoter
from fgdeploy.camera.picking import Picker
from fgdeploy.camera.preview import Preview, open_preview
from fgdeploy.camera.reconnecting import Patience, Reconnecting
from fgdeploy.camera.region import Region
from fgdeploy.camera.sources import open_source
from fgdeploy.camera.voting import Voter
from fgdeploy.camera.watching import Sighting, Watch
from fgdeploy.core.closing import Closing
from fgdeploy.core.errors import UsageError
from fgdeploy.gallery.threshold import of as threshold_of
from fgdeploy.hasher import Hasher
from fgdeploy.live.pair import Pair


@dataclass(frozen=True)
class SiteSettings:
    """How a camera works on site; see `fgdeploy camera --help` for each. Raises UsageError.

    source: as `open_source` takes it. region: as `Region.parse` does. changed: a share. enroll: a
    label. vote: frames that vote together. name: of the camera, by default from the source. wait:
    for a source that is away at the start, as when it breaks off later. open_s, read_s: seconds.
    """

    source: str
    k: int = 5
    region: str | None = None
    every: int = 1
    changed: float | None = None
    enroll: str | None = None
    name: str | None = None
    keep_thumbnails: bool = False
    vote: int = 5
    preview: str | None = None
    live: bool | None = None
    wait: bool = False
    open_s: float = 10.0
    read_s: float = 5.0

    def __post_init__(self) -> None:
        self.picker()
        Voter(self.vote)
        if self.enroll is not None:
            check_label(self.enroll)
            check_name(self.camera_name)
        elif self.keep_thumbnails or self.name is not None:
            given = "thumbnails" if self.keep_thumbnails else "a name"
            raise UsageError(f"{given} without enrolling: add --enroll LABEL, or leave it out")

    @property
    def camera_name(self) -> str:
        """Return what the camera is called in enrolled items."""
        return name_of(self.source) if self.name is None else self.name

    @property
    def part(self) -> Region | None:
        """Return the region that counts, None for all of a frame."""
        return None if self.region is None else Region.parse(self.region)

    def picker(self) -> Picker:
        """Return what chooses the frames that are hashed."""
        gate = None if self.changed is None else ChangeGate(self.changed)
        return Picker(self.part, self.every, gate)

    def open_source(self, shortest: int | None = None) -> CaptureSource:
        """Return the source, which breaks and comes back, still closed.

        shortest: photos may be decoded smaller, as `photos.images.decode` does. Raises UsageError,
        ImageError, MissingDependency.
        """
        source = open_source(
            self.source, None, self.live, self.open_s, self.read_s, shortest=shortest
        )
        return Reconnecting(source, Patience(at_start=self.wait))

    def open_preview(self, live: bool) -> Preview | None:
        """Return the preview; of what is not live a video gets every frame.

        Raises as `Preview`, and UsageError where it would replace the source.
        """
        if self.preview is None:
            return None
        written = (self.preview, f"{self.preview}.part")
        if os.path.exists(self.source) and os.path.realpath(self.source) in map(
            os.path.realpath, written
        ):
            raise UsageError(f"preview {self.preview}: it would replace the source; name another")
        return open_preview(self.preview, every=not live)


@dataclass
class Site(Closing):
    """A camera on site: goes through it, enrolling and showing each frame as the settings say.

    model: a hasher, for codes alone, or a pair, which follows `index migrate`; it and the preview
    stay the caller's to close. source: instead of the one of the settings. Closing it, from any
    thread, ends the loop within a second; what is enrolled by then is on the disk.
    """

    settings: SiteSettings
    model: Hasher | Pair
    preview: Preview | None = None
    source: CaptureSource | None = None
    camera: Camera = field(init=False)
    enroller: Enroller | None = field(init=False, default=None)
    _ended: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        settings = self.settings
        if settings.enroll is not None and isinstance(self.model, Pair):
            if settings.keep_thumbnails:
                with self.model.using() as both:
                    both.index.thumbnails.keep()
            self.enroller = Enroller(self.model, settings.enroll, settings.camera_name)
        # A region's pixels are those of the whole photo
        shortest = (
            None if settings.region else 2 * _hasher_of(self.model).manifest.preprocess.resize
        )
        self.camera = Camera(
            self.source or settings.open_source(shortest),
            self.model,
            k=settings.k,
            live=settings.live,
            select=settings.picker(),
        )

    def __iter__(self) -> Iterator[Sighting]:
        """Yield what is seen, each when it is on the disk where it is enrolled."""
        voter, part = self._voter(), self.settings.part
        try:
            with self.camera:
                yield from Watch(self.camera, voter, self.enroller, self.preview, part)
        except UsageError:
            if not self._ended:  # closed before it began: nothing is seen
                raise

    def _voter(self) -> Voter | None:
        return PairVoter(self.model, self.settings.vote) if isinstance(self.model, Pair) else None

    def warnings(self) -> list[str]:
        """Return what to know of the verdicts: whether there is an unknown, and how good it is."""
        if not isinstance(self.model, Pair) or self.settings.enroll is not None:
            return []
        path, way = self.model.path, f"fgdeploy index threshold {self.model.path}"
        with self.model.using() as both:
            threshold, items = threshold_of(both.index), len(both.index)
        if threshold is None:
            return [f"nothing is unknown, as {path} has no threshold; measure it: {way}"]
        if threshold.stale(items):
            return [f"{path} has changed much since its threshold; measure it again: {way}"]
        return []

    def progress(self) -> object:
        """Return what changes while frames are worked on, None while none is there to work on.

        For a `Heartbeat`: a source that is away is no stall, frames that never end are one.
        """
        found = self.camera.counters
        if found.under_way <= 0:
            return None
        return found.processed, found.skipped, found.broken, found.rebuilds

    def close(self) -> None:
        """End the camera."""
        self._ended = True
        self.camera.close()


def _hasher_of(model: Hasher | Pair) -> Hasher:
    if isinstance(model, Hasher):
        return model
    with model.using() as both:
        return both.hasher
