"""The client of Triton, run against a stand-in that answers with the real graph."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgdeploy.bundle import open_bundle
from fgdeploy.gallery import add_photos, open_or_create
from fgdeploy.hasher import load
from fgdeploy.photos import Photo
from fgdeploy.triton import ServingSettings, write_repository
from tests.kserve_stand_in import serving

pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
pytest.importorskip("onnxruntime")
ROOT = Path(__file__).resolve().parent.parent


def _asked(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / "triton_client.py"), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_client_finds_what_a_local_hasher_finds(tmp_path: Path, toy_bundle: Path) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (4, 40, 50, 3), dtype=np.uint8)
    photos = [Photo(tmp_path / f"{name}.png", name) for name in ("owl", "kite", "wren", "tit")]
    for photo, pixels in zip(photos, noise, strict=True):
        Image.fromarray(pixels).save(photo.path)
    gallery = tmp_path / "g.fgi"
    with load(toy_bundle) as hasher, open_or_create(gallery, hasher)[0] as index:
        assert add_photos(index, hasher, photos).added == 4
        local = [index.search(hasher.encode([photo.path]), 3)[0] for photo in photos]
    written = write_repository(open_bundle(toy_bundle), tmp_path / "repo", ServingSettings())
    with serving(tmp_path / "repo") as address:
        done = _asked(address, written.name, toy_bundle, gallery, *(one.path for one in photos))
        assert done.returncode == 0, done.stderr
        lines = [
            f"{photo.path} {hit.distance} {hit.label} {hit.path}"
            for photo, hits in zip(photos, local, strict=True)
            for hit in hits
        ]
        assert done.stdout.splitlines() == lines
        text = (written.path / "config.pbtxt").read_text()
        (written.path / "config.pbtxt").write_text(
            text.replace(open_bundle(toy_bundle).manifest.fingerprint, "ab" * 32)
        )
        done = _asked(address, written.name, toy_bundle, gallery, photos[0].path)
    assert done.returncode == 1 and "serves another model than" in done.stderr
    assert done.stdout == ""
