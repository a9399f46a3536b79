from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fgdeploy.core.codes import CodeFile
from fgdeploy.core.errors import DataError, ImageError
from fgdeploy.hash_to_file import FileRun, hash_to_file
from fgdeploy.hasher import Hasher, hash_all, load
from fgdeploy.photos import read
from tests.checks import refused

COUNT = 23
ROOT = Path(__file__).resolve().parents[2]


def write(path: Path, seed: int) -> None:
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(blocks.repeat(12, 0).repeat(12, 1)).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos of two classes, one of which cannot be read."""
    folder = tmp_path / "photos"
    for number in range(COUNT):
        (folder / f"class {number % 2}").mkdir(parents=True, exist_ok=True)
        write(folder / f"class {number % 2}" / f"{number:02}.png", number)
    (folder / "class 0" / "08.png").write_text("no picture")
    return folder


@pytest.fixture
def hasher(toy_bundle: Path) -> Iterator[Hasher]:
    with load(toy_bundle, threads=1, batch=4) as opened:
        yield opened


class Stopped(BaseException):
    """The end of a process, as far as what it leaves matters."""


def stop_after(batches: int) -> Callable[[int, int], None]:
    left = iter(range(batches - 1))

    def progress(done: int, total: int) -> None:
        if next(left, None) is None:
            raise Stopped

    return progress


def hash_them(hasher: Hasher, photos: Path, target: Path, **given: Any) -> FileRun:
    return hash_to_file(hasher, read(photos), target, photos, **given)


def stopped(hasher: Hasher, photos: Path, target: Path, batches: int) -> None:
    with pytest.raises(Stopped):
        hash_them(hasher, photos, target, progress=stop_after(batches))


@pytest.fixture
def whole(hasher: Hasher, photos: Path, tmp_path: Path) -> bytes:
    """The file that one run writes."""
    hash_them(hasher, photos, tmp_path / "whole.npz")
    return (tmp_path / "whole.npz").read_bytes()


def test_it_is_what_the_hasher_says(hasher: Hasher, photos: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    run = hash_them(hasher, photos, tmp_path / "c.npz", progress=lambda *step: told.append(step))
    assert (run.photos, run.earlier, len(run.skipped)) == (COUNT - 1, 0, 1)
    assert run.skipped[0].startswith(str(photos / "class 0" / "08.png"))
    assert told[-1] == (COUNT, COUNT)
    at_once = hash_all(hasher, read(photos))
    file = CodeFile.load(tmp_path / "c.npz")
    np.testing.assert_array_equal(file.codes, at_once.outputs.code)
    assert file.paths == [photo.path.as_posix() for photo in at_once.photos]
    assert file.labels == [photo.label for photo in at_once.photos]
    assert (file.bits, file.fingerprint) == (hasher.bits, hasher.fingerprint)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("batches", range(1, 7))
def test_it_goes_on_where_it_stopped(
    hasher: Hasher, photos: Path, tmp_path: Path, whole: bytes, batches: int
) -> None:
    target = tmp_path / "c.npz"
    stopped(hasher, photos, target, batches)
    assert not target.exists()
    said: list[str] = []
    told: list[tuple[int, int]] = []
    run = hash_them(
        hasher, photos, target, notify=said.append, progress=lambda *step: told.append(step)
    )
    assert target.read_bytes() == whole
    assert run.earlier == min(4 * batches, COUNT - 1) and run.photos == COUNT - 1
    assert told[-1] == (COUNT - run.earlier, COUNT - run.earlier)
    assert said == [
        f"going on: {run.earlier} of {COUNT} photos are in {target}.part (--again drops them)"
    ]
    assert not list(tmp_path.glob("*.part"))


def test_killed(toy_bundle: Path, photos: Path, tmp_path: Path, whole: bytes) -> None:
    target = tmp_path / "c.npz"
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from fgdeploy.hash_to_file import hash_to_file\n"
        "from fgdeploy.hasher import load\n"
        "from fgdeploy.photos import read\n"
        "bundle, photos, target = map(Path, sys.argv[1:])\n"
        "def progress(done, total):\n"
        "    if done > total // 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "with load(bundle, threads=1, batch=4) as hasher:\n"
        "    hash_to_file(hasher, read(photos), target, photos, progress=progress)\n"
    )
    command = [sys.executable, "-c", script, str(toy_bundle), str(photos), str(target)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert not target.exists() and target.with_name("c.npz.part").exists()
    with load(toy_bundle, threads=1, batch=4) as hasher:
        assert hash_them(hasher, photos, target).earlier > COUNT // 2
    assert target.read_bytes() == whole


def test_photos_that_changed_are_hashed_again(hasher: Hasher, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "c.npz"
    stopped(hasher, photos, target, 3)
    first, second, third = sorted(photos.rglob("*.png"))[:3]
    write(first, 100)  # another picture
    size = second.stat().st_size
    write(second, 101)
    second.write_bytes(second.read_bytes()[:size].ljust(size, b"\0"))
    os.utime(second, ns=(5, 5))  # another time
    third.unlink()
    write(photos / "class 0" / "00a.png", 102)
    run = hash_them(hasher, photos, target)
    assert run.earlier == 12 - 3
    at_once = hash_all(hasher, read(photos))
    file = CodeFile.load(target)
    np.testing.assert_array_equal(file.codes, at_once.outputs.code)
    assert file.paths == [photo.path.as_posix() for photo in at_once.photos]


def test_a_photo_changed_twice(hasher: Hasher, photos: Path, tmp_path: Path) -> None:
    """Of two records of one photo the later one counts."""
    first = min(photos.rglob("*.png"))
    for seed in (100, 101):
        stopped(hasher, photos, tmp_path / "c.npz", 1)
        write(first, seed)
    stopped(hasher, photos, tmp_path / "c.npz", 1)
    assert hash_them(hasher, photos, tmp_path / "c.npz").earlier >= 4
    expected = hasher.encode(first)
    np.testing.assert_array_equal(CodeFile.load(tmp_path / "c.npz").codes[:1], expected)


def test_another_source_is_refused(hasher: Hasher, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "c.npz"
    stopped(hasher, photos, target, 2)
    with refused(DataError, r"was begun with photos of .*photos, and now it is .*class 0; run"):
        hash_them(hasher, photos / "class 0", target)
    run = hash_them(hasher, photos / "class 0", target, again=True)
    assert (run.photos, run.earlier) == (11, 0)


def test_another_engine_is_refused(hasher: Hasher, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "c.npz"
    stopped(hasher, photos, target, 2)
    hasher.engine.precision = "int8"
    with refused(DataError, r"was begun with engine .* fp32 .*, and now it is .* int8 .*--again"):
        hash_them(hasher, photos, target)


def test_nothing_is_left_of_nothing(hasher: Hasher, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "c.npz"
    bad = photos / "class 0" / "08.png"
    with refused(DataError, r"none of 1 photo can be read; the first: .*08\.png"):
        hash_them(hasher, bad, target)
    with refused(ImageError, r"08\.png is not an image"):
        hash_them(hasher, bad, target, strict=True)
    with refused(DataError, "there are no photos to hash"):
        hash_to_file(hasher, [], target, photos)
    assert {one.name for one in tmp_path.iterdir()} == {"photos"}


def test_strict_keeps_what_came_before(hasher: Hasher, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "c.npz"
    with refused(ImageError, r"08\.png is not an image"):
        hash_them(hasher, photos, target, strict=True)
    write(photos / "class 0" / "08.png", 8)
    run = hash_them(hasher, photos, target, strict=True)
    assert run.earlier == 4 and run.photos == COUNT


def test_a_target_that_cannot_be_written(
    hasher: Hasher, photos: Path, tmp_path: Path, whole: bytes
) -> None:
    target = tmp_path / "c.npz"
    target.mkdir()
    said: list[str] = []
    with refused(IsADirectoryError, r"Is a directory: .*c\.npz"):
        hash_them(hasher, photos, target, notify=said.append)
    assert said == [f"the codes so far are kept in {target}.part; the same command goes on"]
    target.rmdir()
    assert hash_them(hasher, photos, target).earlier == COUNT - 1
    assert target.read_bytes() == whole
