"""`fgdeploy camera` on a video: what it prints, enrols and shows, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from fgdeploy.camera.result_lines import LINE
from fgdeploy.retrieval import Index
from tests.fgdeploy.cli.clips import HEIGHT, WIDTH, write_video
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails

av = pytest.importorskip("av")
SHOWN, TIMES = 4, 5  # photos in the video, frames of each


@pytest.fixture(scope="session")
def video(moths: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four moths, five frames of each."""
    photos = sorted(moths.rglob("*.jpg"))[::5]
    return write_video(tmp_path_factory.mktemp("clips") / "night.mp4", photos[:SHOWN], TIMES)


def lines_of(text: str) -> list[dict[str, object]]:
    found = [json.loads(line) for line in text.splitlines()]
    for line in found:
        LINE(line, "")
    return found


def test_a_line_for_each_frame(run: Run, video: Path, bundle: Path, gallery: Path) -> None:
    done = run("camera", video, "-b", bundle, "-k", "3", "--json")
    assert done.exit_code == 0, done.output
    lines = lines_of(done.stdout)
    assert [line["frame"] for line in lines] == list(range(SHOWN * TIMES))
    for line in lines:
        hits = line["hits"]
        assert isinstance(hits, list)
        order = [(hit["distance"], hit["id"]) for hit in hits]
        assert order == sorted(order) and len(order) == 3
        assert (line["enrolled"], line["dropped"]) == (None, 0)
        assert set(line["latency_ms"]) >= {"inference", "search", "total"}  # type: ignore[call-overload]
    *_, speed, last = done.stderr.splitlines()
    assert "captured 20 frames: 20 hashed, 0 dropped, 0 left out, 0 broken" in done.stderr
    assert re.match(r"capture to result: [\d.]+ ms \(p50\), [\d.]+ \(p95\)", speed)
    assert last == "next: fgdeploy camera SOURCE --index g.fgi --enroll LABEL"


def test_enrolled_frames_are_found_again(run: Run, video: Path, bundle: Path) -> None:
    done = run("camera", video, "-b", bundle, "-i", "new.fgi", "--enroll", "moth", "--json")
    assert done.exit_code == 0, done.output
    paths = [line["enrolled"] for line in lines_of(done.stdout) if line["enrolled"]]
    assert len(paths) == len(set(paths)) >= SHOWN
    with Index.open("new.fgi") as index:
        items = list(index.items())
        assert index.bundle == bundle.absolute()
    assert [item.path for item in items] == paths
    assert {item.label for item in items} == {"moth"}
    assert all(re.match(r"camera://night.mp4/[0-9-]{10}T[0-9:]{8}\.\d{6}Z$", str(p)) for p in paths)
    said = f"enrolled {len(paths)} frames as moth, {20 - len(paths)} more had the code of the one"
    assert said in done.stderr
    again = lines_of(run("camera", video, "--json").stdout)  # both are found by themselves
    assert {line["hits"][0]["distance"] for line in again} == {0}  # type: ignore[index]


def test_only_what_changed_of_a_region_under_a_name(run: Run, video: Path, bundle: Path) -> None:
    side = (WIDTH - HEIGHT) // 2
    part = f"{side},0,{HEIGHT},{HEIGHT}"
    words = ["--changed", "0.02", "--region", part, "--name", "trap", "--keep-thumbnails"]
    done = run("camera", video, "-b", bundle, "-i", "g.fgi", "--enroll", "moth", *words, "--csv")
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [int(row["frame"]) // TIMES for row in rows] == list(range(SHOWN))
    assert "16 left out" in done.stderr
    with Index.open("g.fgi") as index:
        ids = [item.id or 0 for item in index.items()]
        assert index.thumbnails.has(ids) == set(ids)
    assert all(row["enrolled"].startswith("camera://trap/") for row in rows)


def test_every_and_frames(run: Run, video: Path, bundle: Path) -> None:
    done = run("camera", video, "-b", bundle, "--every", "4", "--frames", "3", "--json")
    lines = lines_of(done.stdout)
    assert [line["frame"] for line in lines] == [0, 4, 8]
    assert {line["verdict"] for line in lines} == {None}  # type: ignore[comparison-overlap]
    assert "next: fgdeploy camera SOURCE --index gallery.fgi --enroll LABEL" in done.stderr


def test_nothing_enrolled_leaves_no_index(run: Run, video: Path, bundle: Path) -> None:
    words = ["-b", bundle, "-i", "new.fgi", "--enroll", "moth", "--region", "999,0,9,9"]
    pattern = rf"region 999,0,9,9 does not lie within frames of {WIDTH}x{HEIGHT} pixels"
    fails(run("camera", video, *words), 2, pattern)
    assert not Path("new.fgi").exists()


def test_a_preview_of_every_frame(run: Run, video: Path, bundle: Path) -> None:
    done = run("camera", video, "-b", bundle, "--preview", "out.mp4", "--region", "10%,0%,50%,50%")
    assert done.exit_code == 0 and "preview: out.mp4" in done.stderr
    with av.open("out.mp4") as container:
        times = [float(frame.time) for frame in container.decode(video=0)]
    assert times == pytest.approx([number / 25 for number in range(20)], abs=0.002)
    assert sorted(path.name for path in Path().iterdir()) == ["out.mp4"]


def test_a_preview_that_fails_is_an_error_and_the_work_is_done(
    run: Run, video: Path, bundle: Path
) -> None:
    Path("out.mp4.part").mkdir()
    words = ["-b", bundle, "--preview", "out.mp4", "--json", "--log-json"]
    done = run("camera", video, *words)
    assert done.exit_code == 1
    assert "error: out.mp4.part: Is a directory" in done.stderr
    assert len(lines_of(done.stdout)) == 20
    logged = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert "preview_failed" in [entry["event"] for entry in logged]


def test_what_can_never_be_right(run: Run, video: Path, bundle: Path) -> None:
    here = ["camera", video, "-b", bundle]
    fails(run(*here, "--region", "1,2,3"), 2, "expected X,Y,W,H in pixels")
    fails(run(*here, "--changed", "0"), 2, "expected a share above 0")
    fails(run(*here, "--every", "0"), 2, "--every 0: expected a whole number of 1 or more")
    fails(run(*here, "-i", "g.fgi", "--enroll", " "), 2, "expected a name for what is enrolled")
    fails(run(*here, "--enroll", "owl", "--name", "a/b", "-i", "g.fgi"), 2, "letters, digits")
    fails(run(*here, "--keep-thumbnails"), 2, "thumbnails without enrolling: add --enroll LABEL")
    fails(run(*here, "--enroll", "owl"), 2, "no index in this folder; name one with --index")
    fails(run(*here, "--preview", "http://0.0.0.0:80"), 2, "can be reached by others")
    fails(run(*here, "--preview", "out.avi"), 2, "expected a name ending in .mp4")
    fails(run("camera", "nothing.mp4", "-b", bundle), 1, "nothing.mp4: no such file")
    fails(run(*here, "-i", "none.fgi"), 1, "no index at none.fgi")
    assert list(Path().iterdir()) == []


def test_without_an_index_a_code_a_second_at_most(run: Run, video: Path, bundle: Path) -> None:
    done = run("camera", video, "-b", bundle)
    assert done.exit_code == 0
    assert re.fullmatch(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+00:00  [0-9a-f]{8}\n)+", done.stdout)
    assert done.stdout.count("\n") < 10
    assert run("-q", "camera", video, "-b", bundle).stderr == ""


def test_a_folder_gets_the_codes_of_its_photos(
    run: Run, moths: Path, bundle: Path, gallery: Path
) -> None:
    lines = lines_of(run("camera", moths, "-b", bundle, "-k", "1", "--json").stdout)
    assert len(lines) == 18
    assert {line["hits"][0]["distance"] for line in lines} == {0}  # type: ignore[index]


def test_a_folder_of_which_nothing_can_be_read(run: Run, bundle: Path, gallery: Path) -> None:
    Path("odd").mkdir()
    Path("odd/a.jpg").write_text("no picture")
    done = run("camera", "odd", "-b", bundle)
    fails(done, 1, "none of 1 frame of odd can be read")
    assert "0 hashed" in done.stderr and done.stdout == ""
