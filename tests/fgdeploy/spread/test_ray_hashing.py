from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fgdeploy.core.codes import CodeFile
from fgdeploy.core.errors import DataError, ImageError, MissingDependency, UsageError
from fgdeploy.hash_to_file import hash_to_file
from fgdeploy.hasher import load
from fgdeploy.photos import read
from fgdeploy.spread import ray_cluster as ray_cluster_module
from fgdeploy.spread import ray_hashing
from fgdeploy.spread.ray_cluster import ray_cluster
from fgdeploy.spread.ray_hashing import Spreading, SpreadRun, hash_on_ray
from fgdeploy.spread.stored_photos import list_store
from tests.checks import refused

pytest.importorskip("ray.data", reason="Ray is not installed")

COUNT, BAD = 60, ("07", "33")
SHARD = 16
ROOT = Path(__file__).resolve().parents[3]
# What Ray itself does not close.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """One cluster of two cores for all tests; what is hashed meanwhile finds it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fgdeploy.core.machine.cores", lambda: 2)
        patch.setattr("fgdeploy.spread.ray_cluster._STORE", 80 << 20)
        with ray_cluster() as ray:
            yield ray


def write(path: Path, seed: int) -> None:
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(blocks.repeat(12, 0).repeat(12, 1)).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos of two classes, two of which cannot be read."""
    folder = tmp_path / "photos"
    for number in range(COUNT):
        (folder / f"class {number % 2}").mkdir(parents=True, exist_ok=True)
        write(folder / f"class {number % 2}" / f"{number:02}.png", number)
    for name in BAD:
        (folder / "class 1" / f"{name}.png").write_text("no picture")
    return folder


@pytest.fixture
def whole(toy_bundle: Path, photos: Path, tmp_path: Path) -> bytes:
    """The file that one process writes."""
    with load(toy_bundle, threads=1, batch=4) as hasher:
        run = hash_to_file(hasher, read(photos), tmp_path / "whole.npz", photos)
        assert [text.rpartition("/")[2][:6] for text in run.skipped] == [f"{n}.png" for n in BAD]
    return (tmp_path / "whole.npz").read_bytes()


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_hashing, "_PIECE", 4)


def hash_them(bundle: Path, photos: Path, target: Path, **given: Any) -> SpreadRun:
    spreading = Spreading(shard=given.pop("shard", SHARD), batch=4, actors=given.pop("actors", 2))
    return hash_on_ray(bundle, read(photos), target, photos, spreading, **given)


class Stopped(BaseException):
    """The end of a process, as far as what it leaves matters."""


def stop_at(count: int, how: type[BaseException] = Stopped) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done >= count:
            raise how

    return progress


def test_it_is_the_file_of_one_process(
    cluster: Any, toy_bundle: Path, photos: Path, tmp_path: Path, whole: bytes
) -> None:
    told: list[tuple[int, int]] = []
    target = tmp_path / "c.npz"
    run = hash_them(toy_bundle, photos, target, progress=lambda *step: told.append(step))
    assert target.read_bytes() == whole
    assert (run.photos, run.earlier, run.actors, run.lost, run.shards) == (COUNT - 2, 0, 2, 0, 4)
    bad = [str(photos / "class 1" / f"{name}.png") for name in BAD]
    assert [text.split(" is not an image")[0] for text in run.skipped] == bad
    assert told[-1] == (COUNT, COUNT) and told == sorted(told)
    assert {one.name for one in tmp_path.iterdir()} == {"photos", "whole.npz", "c.npz"}


@pytest.mark.usefixtures("small_pieces")
def test_it_goes_on_shard_by_shard(
    cluster: Any, toy_bundle: Path, photos: Path, tmp_path: Path, whole: bytes
) -> None:
    target = tmp_path / "c.npz"
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        hash_them(
            toy_bundle,
            photos,
            target,
            progress=stop_at(40, KeyboardInterrupt),
            notify=said.append,
        )
    assert said == [f"the codes so far are kept in {target}.shards; the same command goes on"]
    assert not target.exists()
    first = min(photos.rglob("*.png"))
    run = hash_them(toy_bundle, photos, target, notify=said.append)
    assert run.earlier >= 38 and run.photos == COUNT - 2
    assert said[1].startswith(f"going on: {run.earlier} of {COUNT} photos are in {target}.shards")
    assert target.read_bytes() == whole
    with pytest.raises(Stopped):
        hash_them(toy_bundle, photos, target, progress=stop_at(40))
    write(first, 1000)  # another picture
    write(photos / "class 1" / f"{BAD[0]}.png", 7)
    run = hash_them(toy_bundle, photos, target)
    assert run.photos == COUNT - 1 and len(run.skipped) == 1
    with load(toy_bundle, threads=1, batch=4) as hasher:
        hash_to_file(hasher, read(photos), tmp_path / "again.npz", photos)
    assert target.read_bytes() == (tmp_path / "again.npz").read_bytes()


@pytest.mark.usefixtures("small_pieces")
def test_shards_of_other_works_are_refused(
    cluster: Any, toy_bundle: Path, photos: Path, tmp_path: Path, whole: bytes
) -> None:
    target = tmp_path / "c.npz"
    with pytest.raises(Stopped):
        hash_them(toy_bundle, photos, target, progress=stop_at(40))
    shards = sorted((tmp_path / "c.npz.shards").iterdir())
    assert shards
    with refused(DataError, r"was begun with photos a shard 16, and now it is 8; run the command"):
        hash_them(toy_bundle, photos, target, shard=8)
    write(photos / "class 0" / "99.png", 99)
    with refused(DataError, r"was begun with list \w+, and now it is \w+; .*--again"):
        hash_them(toy_bundle, photos, target)
    (photos / "class 0" / "99.png").unlink()
    (tmp_path / "d.npz.shards").mkdir()
    shutil.copy(shards[0], tmp_path / "d.npz.shards")
    with refused(DataError, r"000\d+\.shard is a shard with photos a shard 16, and now it is 9"):
        hash_them(toy_bundle, photos, tmp_path / "d.npz", shard=9)
    content = bytearray(shards[0].read_bytes())
    content[-1] ^= 1
    shards[0].write_bytes(content)
    with refused(DataError, r"\.shard is damaged: .*; remove it, and the same command"):
        hash_them(toy_bundle, photos, target)
    shards[0].unlink()
    assert hash_them(toy_bundle, photos, target).photos == COUNT - 2
    assert target.read_bytes() == whole


@pytest.mark.usefixtures("small_pieces")
def test_strict_names_the_first_of_the_list(
    cluster: Any, toy_bundle: Path, photos: Path, tmp_path: Path, whole: bytes
) -> None:
    target = tmp_path / "c.npz"
    with refused(ImageError, r"07\.png is not an image"):
        hash_them(toy_bundle, photos, target, strict=True)
    for name in BAD:
        write(photos / "class 1" / f"{name}.png", int(name))
    run = hash_them(toy_bundle, photos, target, strict=True)
    assert run.earlier > 0 and run.photos == COUNT
    assert len(CodeFile.load(target).paths) == COUNT


def test_nothing_is_left_of_nothing(
    cluster: Any, toy_bundle: Path, photos: Path, tmp_path: Path
) -> None:
    target = tmp_path / "c.npz"
    bad = photos / "class 1" / "07.png"
    with refused(DataError, r"none of 1 photo can be read; the first: .*07\.png"):
        hash_them(toy_bundle, bad, target)
    with refused(UsageError, r"3 workers of 1 core do not fit a cluster of 2 CPU, 0 GPU; give few"):
        hash_them(toy_bundle, photos, target, actors=3)
    with refused(DataError, "there are no photos to hash"):
        hash_on_ray(toy_bundle, [], target, photos)
    assert {one.name for one in tmp_path.iterdir()} == {"photos"}


def workers() -> list[int]:
    """Return the processes of Ray's that hash."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if (entry / "cmdline").read_bytes().startswith(b"ray::MapWorker(MapBatches(HashActor"):
                found.append(int(entry.name))
    return found


@pytest.mark.usefixtures("small_pieces")
def test_a_worker_that_dies_is_replaced(
    cluster: Any, toy_bundle: Path, photos: Path, tmp_path: Path, whole: bytes
) -> None:
    before = set(workers())
    killed: list[int] = []

    def progress(done: int, total: int) -> None:
        if not killed:
            killed.append(min(set(workers()) - before))
            os.kill(killed[0], signal.SIGKILL)

    target = tmp_path / "c.npz"
    hash_them(toy_bundle, photos, target, progress=progress)
    assert killed and target.read_bytes() == whole


def test_photos_behind_an_address(
    cluster: Any, toy_bundle: Path, photos: Path, tmp_path: Path, whole: bytes
) -> None:
    address = photos.as_uri()
    spreading = Spreading(shard=SHARD, batch=4)
    target = tmp_path / "c.npz"
    run = hash_on_ray(toy_bundle, list_store(address), target, address, spreading)
    file, local = CodeFile.load(target), CodeFile.load(tmp_path / "whole.npz")
    np.testing.assert_array_equal(file.codes, local.codes)
    assert file.labels == local.labels
    assert file.paths == [Path(path).as_uri() for path in local.paths]
    names = [f"{address}/class%201/{name}.png" for name in BAD]
    assert [text.split(" is not an image")[0] for text in run.skipped] == names


def test_killed(cluster: Any, toy_bundle: Path, photos: Path, tmp_path: Path, whole: bytes) -> None:
    """A command on a cluster that goes on running, ended by SIGKILL."""
    target = tmp_path / "c.npz"
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from fgdeploy.photos import read\n"
        "from fgdeploy.spread import ray_hashing\n"
        "bundle, photos, target = map(Path, sys.argv[1:4])\n"
        "ray_hashing._PIECE = 4\n"
        "spreading = ray_hashing.Spreading(sys.argv[4], 16, 2, batch=4)\n"
        "def progress(done, total):\n"
        "    if done >= 40: os.kill(os.getpid(), signal.SIGKILL)\n"
        "ray_hashing.hash_on_ray(bundle, read(photos), target, photos, spreading, "
        "progress=progress)\n"
    )
    address = cluster.get_runtime_context().gcs_address
    command = [sys.executable, "-c", script, str(toy_bundle), str(photos), str(target), address]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=100)
    assert done.returncode == -signal.SIGKILL
    assert not target.exists() and list((tmp_path / "c.npz.shards").iterdir())
    end = time.monotonic() + 60
    while cluster.available_resources().get("CPU", 0) < 2 and time.monotonic() < end:
        time.sleep(0.1)  # until Ray has ended the workers of the dead command
    run = hash_them(toy_bundle, photos, target)
    assert run.earlier >= SHARD
    assert target.read_bytes() == whole


def test_what_cannot_be_said() -> None:
    with refused(UsageError, "shard 0: expected at least 1"):
        Spreading(shard=0)
    with refused(UsageError, r"ray://host:1: expected HOST:PORT"), ray_cluster("ray://host:1"):
        pass


def test_a_cluster_that_is_not_there() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # and listens not
        address = f"127.0.0.1:{held.getsockname()[1]}"
        with refused(DataError, f"Ray at {address} does not answer .*ray status"):
            ray_cluster_module._connect(None, address)


def test_without_ray(
    toy_bundle: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with refused(MissingDependency, r'needs the package ray, .*pip install "fgdeploy\[ray\]"'):
        hash_them(toy_bundle, photos, tmp_path / "c.npz")
    assert not list(tmp_path.glob("c.*"))
