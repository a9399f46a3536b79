"""Enrolling: what goes in under which URI, whatever the clock does, and what is left out."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import timedelta, timezone
from pathlib import Path

import pytest
from PIL import Image

from fgdeploy.camera.enrolling import Enroller, name_of
from fgdeploy.core.errors import IndexStoreError, UsageError
from fgdeploy.retrieval import Index
from tests.checks import refused
from tests.fgdeploy.camera.results import START, result


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index.create(tmp_path / "g.fgi", "ab" * 32, 16) as made:
        yield made


def test_a_frame_is_an_item_by_its_time(index: Index, tmp_path: Path) -> None:
    enroller = Enroller(index, "Nachtfalter ä", "north")
    when = START.replace(microsecond=123456).astimezone(timezone(timedelta(hours=2)))
    item = enroller.enrol(result(b"\1\2", when))
    assert item is not None and item.path == "camera://north/2026-11-28T01:14:00.123456Z"
    with Index.open(tmp_path / "g.fgi") as other:  # on the disk, for everybody
        (found,) = other.items()
    assert (found.path, found.code, found.label) == (item.path, b"\1\2", "Nachtfalter ä")
    assert found.time == "2026-11-28T01:14:00.123456+00:00"


def test_a_clock_that_stands_or_goes_back_loses_nothing(index: Index) -> None:
    enroller = Enroller(index, "owl")
    times = [START, START, START, START - timedelta(hours=1), START]
    for number, when in enumerate(times):
        enroller.enrol(result(bytes([number, 0]), when))
    items = list(index.items())
    assert len(items) == len({item.path for item in items}) == 5
    assert [item.code[0] for item in items] == [0, 1, 2, 3, 4]
    again = Enroller(index, "kite")  # the next run, with the clock of before
    again.enrol(result(b"\7\7", START))
    assert [item.label for item in index.items()] == ["owl"] * 5 + ["kite"]


def test_a_repeated_code_is_counted_not_added(index: Index) -> None:
    enroller = Enroller(index, "owl")
    codes = [b"\1\1", b"\1\1", b"\2\2", b"\1\1"]
    found = [enroller.enrol(result(code, START + timedelta(seconds=n)))
             for n, code in enumerate(codes)]  # fmt: skip
    assert [item is None for item in found] == [False, True, False, False]
    assert (enroller.enrolled, enroller.repeated, len(index)) == (3, 1, 3)


def test_what_was_not_added_is_tried_again(index: Index) -> None:
    enroller = Enroller(index, "owl")
    with refused(IndexStoreError, "expected a code of 2 bytes, got 3"):
        enroller.enrol(result(b"\1\1\1"))
    assert (enroller.enrolled, enroller.repeated) == (0, 0)
    assert enroller.enrol(result(b"\1\1")) is not None


def test_thumbnails_of_what_was_hashed_where_the_index_keeps_some(index: Index) -> None:
    Enroller(index, "owl").enrol(result(b"\1\1"))
    index.thumbnails.keep()
    item = Enroller(index, "owl").enrol(result(b"\2\2"))
    assert item is not None
    ids = [one.id or 0 for one in index.items()]
    assert index.thumbnails.has(ids) == {ids[1]}
    picture = Image.open(io.BytesIO(index.thumbnails.read(ids)[ids[1]]))
    assert picture.size == (6, 4)


def test_labels_and_names_that_are_none(index: Index) -> None:
    for label in ("", "  ", "\udcff"):
        with refused(UsageError, "expected a name for what is enrolled"):
            Enroller(index, label)
    for name in ("", "a/b", "ä", "x" * 65):
        with refused(UsageError, "expected at most 64 letters, digits"):
            Enroller(index, "owl", name)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("0", "0"),
        ("/dev/video0", "video0"),
        ("clips/night 3.mp4", "night-3.mp4"),
        ("photos/", "photos"),
        ("rtsp://user:secret@10.0.0.7:554/stream1?token=secret", "10.0.0.7-554-stream1"),
        ("http://[::1]:80/", "1-80"),
        ("v4l2src device=/dev/video0 ! appsink", "v4l2src-device-dev-video0-appsink"),
        ("//", "camera"),
        ("\u9ce5", "camera"),
        ("x" * 100, "x" * 64),
    ],
    ids=range(10),
)
def test_names_of_sources_carry_no_secret(source: str, name: str) -> None:
    assert name_of(source) == name
