"""Say what a camera sees: python examples/camera_app.py 0 eet.fgd gallery.fgi

The source is a device number, an rtsp:// or http:// address, a video or a folder. Ctrl-C ends it.
"""

import sys

import fgdeploy
from fgdeploy.camera.signals import EndBySignal
from fgdeploy.camera.voting import Voter
from fgdeploy.gallery import threshold


def main(source: str, bundle: str, gallery: str) -> None:
    with (
        fgdeploy.load(bundle, self_test=10, fallback=True) as hasher,
        fgdeploy.Index.open(gallery) as index,
        fgdeploy.Camera(source, hasher, index, k=5) as camera,
        EndBySignal(camera.close),
    ):
        known, before = threshold.of(index), ""
        voter = Voter(5, known.bits if known else None)
        for result in camera:
            seen = voter.vote(result.hits, result.captured.at).label or "unknown"
            if seen != before:
                print(f"{result.time:%H:%M:%S} {seen}, {1000 * result.latency['total']:.0f} ms")
            before = seen


main(*sys.argv[1:])
