"""`fgdeploy index migrate` as typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fgdeploy.retrieval import Index
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails


@pytest.fixture
def other(toy_bundle: Path) -> Path:
    """A bundle of another model."""
    return toy_bundle


def codes(path: Path | str) -> dict[str | None, bytes]:
    with Index.open(path) as index:
        return {item.path: item.code for item in index.items()}


@pytest.fixture
def photos(moths: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(moths, tmp_path / "photos"))


def test_a_new_model_there_and_back(run: Run, photos: Path, bundle: Path, other: Path) -> None:
    run("index", "add", "g.fgi", photos, "-b", bundle, "--keep-thumbnails")
    assert "18 (" in run("index", "stats", "g.fgi").stdout
    gone = sorted(photos.rglob("*.jpg"))[0]
    gone.unlink()
    done = run("index", "migrate", "g.fgi", "-b", other, "--throttle", "1")
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == (
        f"hashed 17 photos and 1 thumbnail; g.fgi with 18 items is of {other} from now on; the old "
        "one is kept at g.fgi.old, to go back: fgdeploy index migrate g.fgi --back"
    )
    run("index", "add", "fresh.fgi", photos, "-b", other)
    fresh, found = codes("fresh.fgi"), codes("g.fgi")
    assert len(fresh) == 17
    assert fresh == {path: found[path] for path in fresh}
    assert codes("g.fgi.old") != found
    needless = run("index", "migrate", "g.fgi", "-b", other)
    assert (needless.exit_code, needless.output.splitlines()[-1]) == (
        0,
        f"g.fgi is of the model of {other} already; nothing to do",
    )
    back = run("index", "migrate", "g.fgi", "--back")
    assert back.exit_code == 0, back.output
    assert "g.fgi is the index of before again, the new one is kept at g.fgi.old" in back.output
    answer = run("search", sorted(photos.rglob("*.jpg"))[3], "-i", "g.fgi", "-k", "1", "--json")
    assert json.loads(answer.stdout)["hits"][0]["distance"] == 0


def test_items_without_photos_are_named_and_counted(
    run: Run, photos: Path, bundle: Path, other: Path
) -> None:
    run("index", "add", "g.fgi", photos, "-b", bundle)
    for photo in sorted(photos.rglob("*.jpg"))[:7]:
        photo.unlink()
    words = "7 items of 18 in g.fgi could not be hashed, so nothing was switched; bring"
    stopped = run("index", "migrate", "g.fgi", "-b", other, "--throttle", "1")
    assert stopped.exit_code == 1 and words in stopped.output
    assert stopped.output.count("no longer there") == 5
    assert "... 7 items have neither photo nor thumbnail; --json names all" in stopped.output
    listed = run("index", "migrate", "g.fgi", "-b", other, "--csv")
    assert listed.exit_code == 1
    assert (
        listed.stdout.splitlines()[0] == "id,path,label,why"
        and len(listed.stdout.splitlines()) == 8
    )
    done = run(
        "index", "migrate", "g.fgi", "-b", other, "--drop-missing", "--no-keep-old", "--json"
    )
    answer = json.loads(done.stdout)
    assert (answer["switched"], answer["items"], answer["before"], answer["hashed"]) == (
        True,
        11,
        11,
        0,
    )
    assert [entry["id"] for entry in answer["lacking"]] == list(range(1, 8))
    assert answer["kept"] is None and not Path("g.fgi.old").exists()
    fails(run("index", "migrate", "g.fgi", "--back"), 1, "no index from before is kept")


def test_what_cannot_be_right(run: Run, gallery: Path, other: Path) -> None:
    fails(run("index", "migrate", gallery), 2, "name the bundle of the new model with --bundle")
    fails(run("index", "migrate", gallery, "--back", "-b", other), 2, "--back takes the index of")
    fails(run("index", "migrate", gallery, "-b", other, "--throttle", "0"), 2, "throttle")
    fails(run("index", "migrate", "none.fgi", "-b", other), 1, "no index at none.fgi")
    fails(run("index", "migrate", gallery, "-b", gallery), 1, "")
