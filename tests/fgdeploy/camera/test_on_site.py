"""What is asked of a camera on site: refused before anything is opened, and carried out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fgdeploy.camera.on_site import Site, SiteSettings
from fgdeploy.camera.reconnecting import Reconnecting
from fgdeploy.core.errors import UsageError
from fgdeploy.gallery.threshold import keep, measure
from fgdeploy.live.pair import Pair
from fgdeploy.retrieval import Index, Item
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


def test_a_preview_never_replaces_the_source(tmp_path: Path) -> None:
    clip, link = tmp_path / "night.mp4", tmp_path / "link.mp4"
    clip.write_bytes(b"frames")
    link.symlink_to(clip)
    part = clip.rename(tmp_path / "day.mp4.part")
    clip.write_bytes(b"frames")
    for source, preview in ((clip, clip), (link, clip), (part, tmp_path / "day.mp4")):
        with refused(UsageError, "it would replace the source; name another"):
            SiteSettings(str(source), preview=str(preview)).open_preview(False)


def test_the_settings_are_carried_out(tmp_path: Path) -> None:
    hasher = hasher_on(HeldEngine())
    feed = Feed([numbered(n) for n in range(1, 11)], live=False, ends=True)
    settings = SiteSettings("rtsp://me:secret@trap:554/a", every=3, enroll="moth", k=2,
                            region="0,0,4,4", keep_thumbnails=True)  # fmt: skip
    with Index.create(tmp_path / "g.fgi", hasher.fingerprint, hasher.bits) as index:
        with Pair(tmp_path / "g.fgi", Path(), lambda path: hasher) as pair:
            site = Site(settings, pair, source=feed)
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


def test_votes_know_the_unknown_where_the_index_has_a_threshold(tmp_path: Path) -> None:
    hasher = hasher_on(HeldEngine())
    with Index.create(tmp_path / "g.fgi", hasher.fingerprint, hasher.bits) as index:
        for number in range(40):  # two labels, codes of one a few bits apart
            code = (0xFFF000 * (number % 2) + (number >> 1)).to_bytes(3, "big")
            index.add([Item(f"{number}.jpg", code, "owl" if number % 2 else "kite")])

        def look(numbers: list[int]) -> tuple[list[str], list[str | None]]:
            feed = Feed(map(numbered, numbers), live=False, ends=True)
            with Pair(tmp_path / "g.fgi", Path(), lambda path: hasher_on(HeldEngine())) as pair:
                site = Site(SiteSettings("0", vote=1), pair, source=feed)
                labels = [one.verdict.label for one in site if one.verdict]
                return site.warnings(), labels

        numbers = [0x000002, 0xFFF002, 0x00FF00]
        warnings, labels = look(numbers)
        assert labels[:2] == ["kite", "owl"] and labels[2] is not None
        (warning,) = warnings
        assert "nothing is unknown" in warning and "fgdeploy index threshold" in warning
        keep(index, measure(index))
        warnings, labels = look(numbers)
        assert (labels, warnings) == (["kite", "owl", None], [])
        index.add([Item(f"new {n}.jpg", bytes([1, 2, n]), "owl") for n in range(200)])
        (warning,) = look([])[0]
        assert "has changed much since its threshold" in warning


def test_the_last_frames_vote_together(tmp_path: Path) -> None:
    hasher = hasher_on(HeldEngine())
    with Index.create(tmp_path / "g.fgi", hasher.fingerprint, hasher.bits) as index:
        index.add([Item("a", b"\0\0\0", "kite"), Item("b", b"\xff\xff\xff", "owl")])
        feed = Feed(map(numbered, [0, 0, 0xFFFFFF, 0]), live=False, ends=True)
        with Pair(tmp_path / "g.fgi", Path(), lambda path: hasher) as pair:
            site = Site(SiteSettings("0", vote=3, k=1), pair, source=feed)
            found = [one.verdict for one in site]
    assert [one and one.label for one in found] == ["kite"] * 4
    assert [one and round(one.share, 2) for one in found] == [1, 1, 0.67, 0.67]
