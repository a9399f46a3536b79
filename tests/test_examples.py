"""The examples: short, and run as a user runs them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgdeploy.gallery import add_photos, open_or_create
from fgdeploy.hasher import load
from fgdeploy.photos import Photo
from tests.fgdeploy.cli.clips import frame_of, write_video

pytest.importorskip("av")
ROOT = Path(__file__).resolve().parent.parent
APP = ROOT / "examples" / "camera_app.py"


def test_the_camera_app_says_what_it_sees(tmp_path: Path, toy_bundle: Path) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    shown = []
    for pixels, label in zip(noise, ("owl", "kite", "wren"), strict=True):
        photo = tmp_path / f"{label}.png"
        Image.fromarray(pixels).save(photo)
        shown.append(photo)
    frames = []
    for photo in shown[:2]:  # in the gallery as the camera will show them
        frames.append(Photo(tmp_path / f"seen-{photo.name}", photo.stem))
        Image.fromarray(frame_of(photo)).save(frames[-1].path)
    video = write_video(tmp_path / "v.mp4", shown[:2], 20)
    with load(toy_bundle) as hasher, open_or_create(tmp_path / "g.fgi", hasher)[0] as index:
        assert add_photos(index, hasher, frames).added == 2
    done = subprocess.run(
        [sys.executable, str(APP), str(video), str(toy_bundle), str(tmp_path / "g.fgi")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    lines = [re.sub(r"^\d\d:\d\d:\d\d (\w+), \d+ ms$", r"\1", line)
             for line in done.stdout.splitlines()]  # fmt: skip
    assert lines == ["owl", "kite"]


def test_it_is_short() -> None:
    assert len(APP.read_text(encoding="utf-8").splitlines()) <= 30
