"""`fgdeploy classify` as a user types it."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.hasher import load
from fgdeploy.photos import read
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails


def test_a_table_for_each_photo(run: Run, moths: Path, naming_bundle: Path) -> None:
    one, two = sorted(moths.rglob("*.jpg"))[:2]
    result = run("classify", one, two, "-b", naming_bundle, "-k", "2")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [lines[0], lines[4]] == [str(one), str(two)]
    assert lines[1].split() == lines[5].split() == ["rank", "probability", "number", "class"]
    with load(naming_bundle) as hasher:
        found = hasher.classify([one, two], k=2)
    rows = [line.split(maxsplit=3) for line in (*lines[2:4], *lines[6:8])]
    assert rows == [
        [str(guess.rank), f"{guess.probability:.4f}", str(guess.number), guess.name]
        for guesses in found
        for guess in guesses
    ]


def test_json_and_csv_of_a_list(run: Run, moths: Path, naming_bundle: Path) -> None:
    source = moths / "split.csv"
    result = run("classify", source, "-b", naming_bundle, "--json", "--batch", "5")
    entries = [json.loads(line) for line in result.stdout.splitlines()]
    photos = read(source)
    assert [(entry["photo"], entry["label"]) for entry in entries] == [
        (str(photo.path), photo.label) for photo in photos
    ]
    for entry in entries:
        assert [one["rank"] for one in entry["classes"]] == [1, 2, 3, 4, 5]
        shares = [one["probability"] for one in entry["classes"]]
        assert shares == sorted(shares, reverse=True) and 0 < sum(shares) < 1
    printed = run("classify", source, "-b", naming_bundle, "--csv").stdout
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert [(row["photo"], row["rank"], row["number"], row["class"]) for row in rows] == [
        (entry["photo"], str(one["rank"]), str(one["number"]), one["name"])
        for entry in entries
        for one in entry["classes"]
    ]


def test_folders_and_images_together(run: Run, moths: Path, naming_bundle: Path) -> None:
    folders = sorted(path for path in moths.iterdir() if path.is_dir())
    image = sorted(folders[1].iterdir())[0]
    result = run("classify", folders[0], image, "-b", naming_bundle, "--json", "-k", "1")
    photos = [json.loads(line)["photo"] for line in result.stdout.splitlines()]
    assert photos == [str(path) for path in (*sorted(folders[0].iterdir()), image)]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_every_engine(run: Run, moths: Path, naming_bundle: Path, backend: str) -> None:
    result = run("classify", moths, "-b", naming_bundle, "--backend", backend, "--json")
    assert len(result.stdout.splitlines()) == 18
    expected = run("classify", moths, "-b", naming_bundle, "--json", "--batch", "1")
    for one, two in zip(result.stdout.splitlines(), expected.stdout.splitlines(), strict=True):
        left, right = json.loads(one)["classes"], json.loads(two)["classes"]
        assert [guess["number"] for guess in left] == [guess["number"] for guess in right]
        np.testing.assert_allclose(
            [guess["probability"] for guess in left],
            [guess["probability"] for guess in right],
            rtol=1e-4,
        )


def test_photos_that_cannot_be_read(run: Run, moths: Path, naming_bundle: Path) -> None:
    mixed = Path(shutil.copytree(moths, "mixed"))
    (mixed / "gull.jpg").write_text("this is text")
    (mixed / "raw.NEF").touch()
    result = run("classify", mixed, "-b", naming_bundle, "--json")
    assert result.exit_code == 3
    assert len(result.stdout.splitlines()) == 18
    for name in ("gull.jpg", "raw.NEF"):
        assert result.stderr.count(f"skipped: {mixed / name}") == 1
    assert "2 photos skipped" in result.stderr
    assert run("classify", mixed, "-b", naming_bundle, "--strict").exit_code == 1
    words = "none of 1 photo can be read; the first: mixed/gull.jpg is not an image"
    fails(run("classify", mixed / "gull.jpg", "-b", naming_bundle), 1, words)


def test_mistakes(run: Run, moths: Path, bundle: Path, naming_bundle: Path) -> None:
    words = "eet.fgd gives no class logits; export it again with --logits, from weights with a cla"
    fails(run("classify", moths, "-b", bundle), 1, words)
    fails(run("classify", "-b", naming_bundle), 2, "Missing argument .*PHOTOS")
    fails(run("classify", moths, "-b", naming_bundle, "-k", "0"), 2, "-k 0: expected a whole")
    fails(run("classify", "gone.jpg", "-b", naming_bundle), 1, "no folder, image or CSV at gone")
