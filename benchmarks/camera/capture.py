"""What capturing costs, with PyAV and with OpenCV: 720p H.264 and JPEG to RGB, start, disk.

    python benchmarks/camera/capture.py [--frames 150] [--rounds 5]

In an environment that has `fgdeploy[camera]` and, to compare, opencv-python-headless. The video is
written first: waves and noise, H.264 at CRF 23 and JPEG at quality 85. Each contender runs in a
process of its own, in turn, several rounds; medians. About a minute.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 1280, 720


def write(folder: Path, count: int) -> None:
    """Write `v.mp4` and `N.jpg` into a folder."""
    import av

    chance = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    with av.open(str(folder / "v.mp4"), "w") as container:
        stream = container.add_stream(
            "libx264", rate=30, options={"crf": "23", "preset": "veryfast", "g": "30"}
        )
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(count):
            waves = [
                np.sin((columns + 7 * number) / 40),
                np.cos((rows + 5 * number) / 30),
                np.sin((columns + rows) / 55),
            ]
            values = np.stack(waves, -1) * 110 + 127 + chance.normal(0, 5, (HEIGHT, WIDTH, 1))
            pixels = values.clip(0, 255).astype(np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
            if number < 30:
                Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=85)
        for packet in stream.encode(None):
            container.mux(packet)


def _jpegs(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("*.jpg"))] * 3


def fgdeploy_video(folder: Path, live: bool = False) -> int:
    """Read the video as a camera does."""
    from fgdeploy.camera.capture_source import StreamEnded
    from fgdeploy.camera.pyav import VideoPlace, VideoSource

    count = 0
    # `lasts` with `live`: decoded as a stream is, in one thread, and not paced
    with VideoSource(VideoPlace(str(folder / "v.mp4")), live, live) as source:
        source.open()
        try:
            while True:
                source.read()
                count += 1
        except StreamEnded:
            return count


def fgdeploy_stream(folder: Path) -> int:
    """Read the video as a stream is read."""
    return fgdeploy_video(folder, live=True)


def opencv_video(folder: Path) -> int:
    """Read the video, BGR."""
    import cv2

    capture, count = cv2.VideoCapture(str(folder / "v.mp4")), 0
    while capture.read()[0]:
        count += 1
    return count


def fgdeploy_jpeg(folder: Path) -> int:
    """Check and decode JPEGs as those of a stream."""
    from fgdeploy.camera.jpeg_check import damage
    from fgdeploy.photos.images import decode

    jpegs = _jpegs(folder)
    for jpeg in jpegs:
        assert damage(jpeg) is None
        np.asarray(decode(jpeg))
    return len(jpegs)


def pyav_jpeg(folder: Path) -> int:
    """Decode JPEGs with FFmpeg."""
    import av

    jpegs = _jpegs(folder)
    decoder: Any = av.CodecContext.create("mjpeg", "r")
    for jpeg in jpegs:
        for frame in decoder.decode(av.Packet(jpeg)):
            frame.to_ndarray(format="rgb24")
    return len(jpegs)


def opencv_jpeg(folder: Path) -> int:
    """Decode JPEGs, BGR."""
    import cv2

    jpegs = _jpegs(folder)
    for jpeg in jpegs:
        cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    return len(jpegs)


CONTENDERS: dict[str, tuple[str, Callable[[Path], int]]] = {
    "H.264, fgdeploy as a file (PyAV)": ("av", fgdeploy_video),
    "H.264, fgdeploy as a stream (PyAV, one thread)": ("av", fgdeploy_stream),
    "H.264, OpenCV": ("cv2", opencv_video),
    "JPEG, fgdeploy (checked, Pillow)": ("PIL", fgdeploy_jpeg),
    "JPEG, PyAV": ("av", pyav_jpeg),
    "JPEG, OpenCV": ("cv2", opencv_jpeg),
}


def one(name: str, folder: Path) -> None:
    """Print what a contender takes: ms of a frame by the clock and of the CPU, seconds to start."""
    package, run = CONTENDERS[name]
    start = time.perf_counter()
    importlib.import_module(package)
    imported = time.perf_counter() - start
    run(folder)  # opens, loads and grows what only the first time does
    clock, cpu = time.perf_counter(), time.process_time()
    count = run(folder)
    spent = [time.perf_counter() - clock, time.process_time() - cpu]
    print(json.dumps([*(1000 * seconds / count for seconds in spent), imported]))


def megabytes(distribution: str) -> float:
    """Return what an installed package takes on the disk."""
    files = importlib.metadata.files(distribution) or []
    return sum(Path(str(file.locate())).stat().st_size for file in files) / 1e6


def main() -> None:
    """Run all contenders in turn and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one, options.folder)
        return
    able = {name for name, (package, _) in CONTENDERS.items() if importlib.util.find_spec(package)}
    found: dict[str, list[list[float]]] = {name: [] for name in CONTENDERS if name in able}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), options.frames)
        for _ in range(options.rounds):
            for name, times in found.items():
                command = [sys.executable, __file__, "--one", name, "--folder", folder]
                answer = subprocess.run(command, check=True, capture_output=True, text=True)
                times.append(json.loads(answer.stdout))
    print("| 720p to RGB | ms a frame | CPU ms | import s |\n|---|---|---|---|")
    for name, times in found.items():
        clock, cpu, imported = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"| {name} | {clock:.2f} | {cpu:.2f} | {imported:.2f} |")
    print("\n| package | version | MB |\n|---|---|---|")
    for distribution in ("av", "opencv-python-headless"):
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
        print(f"| {distribution} | {version} | {megabytes(distribution):.0f} |")


if __name__ == "__main__":
    main()
