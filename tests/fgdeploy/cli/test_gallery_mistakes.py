"""`fgdeploy index` where photos are gone, or arguments and items stand in another's place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails
from tests.fgdeploy.cli.test_gallery import listed, write

# prune


def test_prune_drops_items_whose_photo_is_gone(
    run: Run, moths: Path, bundle: Path, tmp_path: Path
) -> None:
    mine = Path(shutil.copytree(moths, tmp_path / "mine"))
    run("index", "add", "g.fgi", mine, "-b", bundle)
    assert json.loads(run("index", "stats", "--json").stdout)["bundle"] == str(bundle)
    first, *_ = sorted(mine.rglob("*.jpg"))
    first.unlink()
    dry = run("index", "prune", "--dry-run")
    assert "would remove 1 item of 18 from g.fgi; nothing was changed" in dry.stderr
    assert [line.split("\t")[2] for line in dry.stdout.splitlines()] == [str(first)]
    assert len(listed(run, "g.fgi")) == 18
    assert "removed 1 item, 17 left in g.fgi" in run("index", "prune").stderr
    mine.rename(tmp_path / "unmounted")
    fails(run("index", "prune"), 1, "whole folders are gone, with 17 of 17 missing photos, such as")
    assert len(listed(run, "g.fgi")) == 17
    assert "removed 17 items, 0 left" in run("index", "prune", "--missing-folders").stderr


# what stands in another's place


@pytest.mark.usefixtures("gallery")
def test_add_recognises_arguments_in_each_others_place(
    run: Run, moths: Path, bundle: Path, tmp_path: Path
) -> None:
    order = "the order is: fgdeploy index add INDEX PHOTOS --bundle BUNDLE"
    fails(run("index", "add", moths, "g.fgi"), 2, f"g.fgi is an index and stands .*; {order}")
    fails(run("index", "add", moths, "new.fgi"), 2, f"new.fgi is an index and stands .*; {order}")
    fails(run("index", "add", bundle, moths), 2, f"is a bundle and stands where the index.*{order}")
    fails(run("index", "add", "g.fgi", bundle), 2, f"is a bundle and stands where the ph.*{order}")
    fails(run("index", "stats", bundle), 1, "no index at .*: it is a bundle; an index is a folder")
    fails(run("index", "stats", moths), 1, "no index at .*: it is a folder without index.sqlite")


def test_an_empty_label_and_none_are_two_things(run: Run) -> None:
    lines = [{"id": 0, "code": "00000007", "label": ""}, {"id": 1, "code": "00000007"}]
    run("index", "import", "g.fgi", write("in.jsonl", *lines))
    assert [item["label"] for item in listed(run, "g.fgi")] == ["", None]
    assert [item["id"] for item in listed(run, "g.fgi")] == [0, 1]
    found = run("search", "--id", "0", "--index", "g.fgi", "--json", "-k", "5")
    assert [hit["id"] for hit in json.loads(found.stdout)["hits"]] == [1]
    assert "removed 1 item, 1 left" in run("index", "remove", "g.fgi", "0").stderr


def test_import_does_not_replace_other_photos_that_have_the_same_ids(run: Run) -> None:
    mine = {"id": 1, "code": "00000007", "path": "/mine/1.jpg", "sha256": "a"}
    run("index", "import", "g.fgi", write("mine.jsonl", mine))
    moved = {**mine, "path": "/elsewhere.jpg"}
    result = run("index", "import", "g.fgi", write("moved.jsonl", moved))
    assert "0 new, 1 changed" in result.stderr
    yours = {"id": 1, "code": "0000ff00", "path": "/yours/1.jpg", "sha256": "b"}
    fails(
        run(
            "index",
            "import",
            "g.fgi",
            write("yours.jsonl", {**yours, "id": 2, "path": "/y/2"}, yours),
        ),
        1,
        r"yours\.jsonl line 3: id 1 is /elsewhere\.jpg in g\.fgi and /yours/1\.jpg in the file; "
        "import into a new index, or remove that item first; nothing was added",
    )
    assert [item["path"] for item in listed(run, "g.fgi")] == ["/elsewhere.jpg"]
