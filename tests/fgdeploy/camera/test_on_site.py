"""What is asked of a camera on site: refused before anything is opened, and carried out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fgdeploy.camera.on_site import Site, SiteSettings
from fgdeploy.camera.reconnecting import Reconnecting
from fgdeploy.core.errors import UsageError
from fgdeploy.retrieval import Index
from tests.checks import refused
from tests.fgdeploy.camera.feeds import Feed, HeldEngine, hasher_on, number_in, numbered, until


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"region": "1,2,3"}, "expected X,Y,W,H"),
        ({"changed": 0.0}, "expected a share above 0"),
        ({"every": 0}, "every 0: expected 1"),
        ({"enroll": ""}, "expected a name for what is enrolled"),
        ({"enroll": "owl", "name": "a b"}, "letters, digits"),
        ({"name": "trap"}, "a name without enrolling: add --enroll LABEL"),
        ({"keep_thumbnails": True}, "thumbnails without enrolling: add --enroll LABEL"),
    ],
)
def test_what_can_never_be_right(given: dict[str, Any], words: str) -> None:
    with refused(UsageError, words):
        SiteSettings("0", **given)


def test_the_settings_are_carried_out(tmp_path: Path) -> None:
    hasher = hasher_on(HeldEngine())
    feed = Feed([numbered(n) for n in range(1, 11)], live=False, ends=True)
    settings = SiteSettings("rtsp://me:secret@trap:554/a", every=3, enroll="moth", k=2,
                            region="0,0,4,4", keep_thumbnails=True)  # fmt: skip
    with Index.create(tmp_path / "g.fgi", hasher.fingerprint, hasher.bits) as index:
        site = Site(settings, hasher, index, source=feed)
        seen = list(site)
        assert [number_in(one.result) for one in seen] == [1, 4, 7, 10]
        assert {one.result.captured.pixels.shape for one in seen} == {(4, 4, 3)}
        assert [len(one.result.hits) for one in seen] == [0, 1, 2, 2]
        items = list(index.items())
        assert all(str(item.path).startswith("camera://trap-554-a/") for item in items)
        assert index.thumbnails.has([item.id or 0 for item in items]) == {1, 2, 3, 4}
    assert site.enroller is not None and site.enroller.enrolled == 4


def test_a_source_that_is_away_is_no_stall_and_a_frame_that_never_ends_is_one() -> None:
    engine = HeldEngine(allowed=2)  # the warm-up and one frame
    feed = Feed([numbered(1)], live=True)
    site = Site(SiteSettings("0"), hasher_on(engine), source=feed)
    results = iter(site)
    assert number_in(next(results).result) == 1
    assert site.progress() is None
    feed.push(numbered(2))
    until(lambda: engine.begun == 3)
    assert site.progress() == site.progress() is not None
    engine.allowed.release(10)
    feed.push(numbered(3))
    before = site.progress()
    next(results)
    assert site.progress() != before
    site.close()


def test_whether_a_source_that_is_away_at_the_start_is_waited_for() -> None:
    pytest.importorskip("av")
    for wait in (False, True):
        source = SiteSettings("http://127.0.0.1:9/none", wait=wait).open_source()
        assert isinstance(source, Reconnecting) and source.patience.at_start is wait
