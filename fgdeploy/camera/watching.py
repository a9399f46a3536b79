"""A camera with all that goes with it on site: votes, enrolment, a preview; in this order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from fgdeploy.camera.annotating import Note
from fgdeploy.camera.camera import Camera
from fgdeploy.camera.camera_result import CameraResult
from fgdeploy.camera.enrolling import Enroller
from fgdeploy.camera.preview import Preview
from fgdeploy.camera.region import Region
from fgdeploy.camera.voting import Verdict, Voter
from fgdeploy.retrieval import Item

_RECENT = 30  # results that the rate is of
_STEADY = 25.0  # frames a second of a preview of what is not live, however fast it is hashed


@dataclass(frozen=True)
class Sighting:
    """A result and what became of it.

    verdict: what the last frames voted for, None where nothing is searched. enrolled: the item that
    the frame is by now, on the disk.
    """

    result: CameraResult
    verdict: Verdict | None = None
    enrolled: Item | None = None


class Watch:
    """Goes through a camera's results: `for seen in Watch(camera, voter)`.

    voter: hears the hits of each. enroller: adds each frame to the index.
    preview: shows each with the region marked, and is not waited for. What is given stays the
    caller's to close. Raises what the camera and the enroller raise.
    """

    def __init__(
        self,
        camera: Camera,
        voter: Voter | None = None,
        enroller: Enroller | None = None,
        preview: Preview | None = None,
        region: Region | None = None,
    ) -> None:
        self.camera, self.region = camera, region
        self._voter, self._enroller, self._preview = voter, enroller, preview
        self._recent: deque[float] = deque(maxlen=_RECENT)

    def __iter__(self) -> Iterator[Sighting]:
        """Yield each result when its item, if it became one, is on the disk."""
        for result in self.camera:
            self._recent.append(result.captured.at)
            verdict = None
            if self._voter is not None:
                verdict = self._voter.vote(result.hits, result.captured.at)
            item = self._enroller.enrol(result) if self._enroller else None
            seen = Sighting(result, verdict, item)
            if self._preview is not None:
                at = None if self.camera.live else result.number / _STEADY
                self._preview.show(result.captured, self._note(seen), at)
            yield seen

    @property
    def rate(self) -> float:
        """Results a second, of the last 30 by their times of capture; 0 before the second one."""
        taken = self._recent[-1] - self._recent[0] if len(self._recent) > 1 else 0.0
        return (len(self._recent) - 1) / taken if taken > 0 else 0.0

    def _note(self, seen: Sighting) -> Note:
        result = seen.result
        box = None
        if self.region is not None:
            whole = result.captured.whole
            height, width = (result.captured.pixels if whole is None else whole).shape[:2]
            box = self.region.within(width, height)
        facts = (nearest_of(result), self._speed(seen))
        return Note(title_of(seen), facts, box)

    def _speed(self, seen: Sighting) -> str:
        latency = 1000 * seen.result.latency.get("total", 0.0)
        enrolled = f", {self._enroller.enrolled:,} enrolled" if self._enroller else ""
        return f"{self.rate:.1f} frames/s, {latency:.0f} ms{enrolled}"


def title_of(seen: Sighting) -> str:
    """Return the verdict in words, or the code where nothing was searched."""
    if seen.verdict is None:
        return seen.result.code.hex()
    label = seen.verdict.label
    return f"{'unknown' if label is None else label} {seen.verdict.share:.0%}"


def nearest_of(result: CameraResult) -> str:
    """Return the nearest item and its distance in words, "" where there is none."""
    if not result.hits:
        return ""
    hit = result.hits[0]
    return (
        f"nearest: {hit.label or hit.path or hit.id}, {hit.distance} of {8 * len(result.code)} bits"
    )
