"""Photos as batches of frames: order, sizes, what cannot be read, how far threads read ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from fgdeploy import photos
from fgdeploy.core.errors import ImageError, UsageError
from fgdeploy.photos import Columns, Photo, decode_all, decode_batches
from tests.checks import refused
from tests.fgdeploy.pictures import preprocess


def drawn(folder: Path, count: int, broken: tuple[int, ...] = ()) -> list[Photo]:
    """Photos of 8 pixels square that are each of one grey; some are cut short."""
    listed = []
    for number in range(count):
        path = folder / f"{number}.png"
        Image.new("RGB", (8, 8), (10 * number,) * 3).save(path)
        if number in broken:
            path.write_bytes(path.read_bytes()[:40])
        listed.append(Photo(path, "grey"))
    return listed


def greys(found: list[tuple[list[Photo], npt.NDArray[np.uint8]]]) -> list[list[int]]:
    return [[int(frame[0, 0, 0]) for frame in frames] for _, frames in found]


@pytest.mark.parametrize(
    ("count", "size", "sizes", "told"),
    [
        (5, 2, [2, 2, 1], [2, 4, 5]),
        (4, 2, [2, 2], [2, 4]),
        (3, 8, [3], [3]),
        (0, 8, [], []),
    ],
)
def test_batches(tmp_path: Path, count: int, size: int, sizes: list[int], told: list[int]) -> None:
    listed, skipped, progress = drawn(tmp_path, count), [], []
    found = list(
        photos.batches(
            listed,
            preprocess(4, 4),
            size,
            skipped,
            progress=lambda done, total: progress.append((done, total)),
        )
    )
    assert [len(frames) for _, frames in found] == sizes
    assert [photo for group, _ in found for photo in group] == listed
    assert all(frames.dtype == np.uint8 and frames.shape[1:] == (4, 4, 3) for _, frames in found)
    assert [grey for group in greys(found) for grey in group] == [10 * n for n in range(count)]
    assert progress == [(done, count) for done in told]
    assert skipped == []


def test_batches_name_the_photos_that_they_skip(tmp_path: Path) -> None:
    listed, skipped, progress = drawn(tmp_path, 6, broken=(0, 3, 5)), [], []
    found = list(
        photos.batches(
            listed,
            preprocess(4, 4),
            2,
            skipped,
            progress=lambda done, total: progress.append(done),
        )
    )
    assert greys(found) == [[10, 20], [40]]
    assert [[photo.path.stem for photo in group] for group, _ in found] == [["1", "2"], ["4"]]
    assert [Path(line.partition(".png")[0]).name for line in skipped] == ["0", "3", "5"]
    assert progress == [3, 5, 6]


def test_batches_of_photos_that_cannot_be_read(tmp_path: Path) -> None:
    skipped: list[str] = []
    listed = drawn(tmp_path, 2, broken=(0, 1))
    assert list(photos.batches(listed, preprocess(4, 4), 2, skipped)) == []
    assert len(skipped) == 2


def test_batches_stop_at_the_first_when_strict(tmp_path: Path) -> None:
    skipped: list[str] = []
    listed = drawn(tmp_path, 3, broken=(1,))
    with refused(ImageError, r"1\.png"):
        list(photos.batches(listed, preprocess(4, 4), 1, skipped, strict=True))
    assert skipped == []


def test_what_vanishes_ahead_of_its_batch_is_named(tmp_path: Path) -> None:
    listed, skipped = drawn(tmp_path, 8), []
    waiting = photos.batches(listed, preprocess(4, 4), 2, skipped)
    next(waiting)
    listed[7].path.unlink()  # at most two batches are read ahead
    assert [len(frames) for _, frames in waiting] == [2, 2, 1]
    assert len(skipped) == 1


# --- all at once


def test_all_frames_at_once(tmp_path: Path) -> None:
    listed, skipped, told = drawn(tmp_path, 20, broken=(3,)), [], []
    kept, frames = decode_all(
        listed, preprocess(4, 4), skipped, progress=lambda done, total: told.append((done, total))
    )
    assert kept == [*listed[:3], *listed[4:]]
    assert [int(frame[0, 0, 0]) for frame in frames] == [10 * n for n in range(20) if n != 3]
    assert len(skipped) == 1 and "3.png" in skipped[0]
    assert told == [(9, 20), (17, 20), (20, 20)]


def test_all_frames_of_nothing_readable(tmp_path: Path) -> None:
    skipped: list[str] = []
    kept, frames = decode_all(drawn(tmp_path, 2, broken=(0, 1)), preprocess(4, 4), skipped)
    assert (kept, frames.shape, frames.dtype) == ([], (0, 4, 4, 3), np.uint8)
    assert len(skipped) == 2
    with refused(ImageError, r"0\.png"):
        decode_all(drawn(tmp_path, 2, broken=(0, 1)), preprocess(4, 4), skipped, strict=True)


# --- the loop itself: any source, any arrays


def test_whatever_is_made_comes_in_order() -> None:
    found = list(decode_batches(range(11), lambda n: np.full((2, 3), n, np.float32), 4))
    assert [batch.positions for batch in found] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert all(batch.frames.dtype == np.float32 for batch in found)
    assert np.concatenate([batch.frames for batch in found])[:, 0, 0].tolist() == list(range(11))


def test_those_that_cannot_be_read_are_told_in_order() -> None:
    def make(number: int) -> npt.NDArray[np.uint8]:
        if number % 3 == 0:
            raise ImageError(f"no {number}")
        return np.zeros(1, np.uint8)

    told: list[tuple[int, str]] = []
    found = list(decode_batches(range(10), make, 2, lambda at, why: told.append((at, str(why)))))
    assert [batch.positions for batch in found] == [[1, 2], [4, 5], [7, 8]]
    assert told == [(number, f"no {number}") for number in (0, 3, 6, 9)]
    with pytest.raises(ImageError, match="no 0"):
        list(decode_batches(range(10), make, 2))


def test_threads_work_two_batches_ahead_at_most() -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            yield taken
            taken += 1

    stream = decode_batches(endless(), lambda n: np.zeros(1), 3)
    before, done = threading.active_count(), 0
    for batch in stream:
        done += len(batch.positions)
        assert taken <= done + 6
        if done >= 30:
            break
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_photos_say_how_deep_their_pixels_are(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 64).reshape(8, 8).astype(np.uint8)
    for name, values in (("eight.png", ramp), ("twelve.png", ramp.astype(np.uint16) << 4)):
        Image.fromarray(values).save(tmp_path / name)
    frames = preprocess(8)
    read = [
        decode_all(photos.read(tmp_path / name, columns=Columns(bit_depth=depth)), frames, [])[1]
        for name, depth in (("eight.png", None), ("twelve.png", 12))
    ]
    np.testing.assert_array_equal(*read)
    skipped: list[str] = []
    decode_all(photos.read(tmp_path / "twelve.png"), frames, skipped)
    assert "--bit-depth 12" in skipped[0]
    with refused(UsageError, "bit depth 17: expected 8 to 16"):
        Columns(bit_depth=17)
