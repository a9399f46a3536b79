"""`fgdeploy hash` as a user types it, and photos that cannot be read in all that hash."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgdeploy.core.codes import CodeFile
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails

ROOT = Path(__file__).resolve().parents[3]


def test_hash(run: Run, moths: Path, bundle: Path, tmp_path: Path) -> None:
    result = run("hash", moths, "--bundle", bundle, "-o", "out.npz")
    assert result.exit_code == 0
    assert result.stdout == ""
    codes = CodeFile.load(tmp_path / "out.npz")
    assert codes.codes.shape == (18, 4)
    assert codes.labels[0] == Path(codes.paths[0]).parent.name
    fails(run("hash", moths, "-b", bundle, "-o", "x.txt"), 1, r"-o x.txt: expected a name ending")
    fails(run("hash", moths, "-b", bundle, "-o", "no/x.npz"), 1, "in a folder that exists")


def test_an_interrupted_run_goes_on(
    run: Run, moths: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("hash", moths, "-b", bundle, "-o", "whole.npz")
    save = CodeFile.save

    def interrupted(file: CodeFile, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CodeFile, "save", interrupted)
    ended = run("hash", moths, "-b", bundle, "-o", "x.npz")
    assert ended.exit_code == 130
    assert ended.stderr.endswith(
        "the codes so far are kept in x.npz.part; the same command goes on\ninterrupted\n"
    )
    monkeypatch.setattr(CodeFile, "save", save)
    other = run("hash", moths / "split.csv", "-b", bundle, "-o", "x.npz")
    fails(
        other, 1, r"x\.npz\.part was begun with photos of .*; run the .*, or drop it with: --again"
    )
    told = json.loads(run("hash", moths, "-b", bundle, "-o", "x.npz", "--json").stdout)
    assert (told["photos"], told["hashed_before"], told["skipped"]) == (18, 18, 0)
    assert (tmp_path / "x.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    rows = run("hash", moths, "-b", bundle, "-o", "x.npz", "--csv").stdout.splitlines()
    assert rows[:4] == ["name,value", "file,x.npz", "photos,18", "hashed_before,0"]


def test_codes_do_not_depend_on_the_batch(run: Run, moths: Path, bundle: Path) -> None:
    run("hash", moths, "-b", bundle, "-o", "one.npz", "--batch", "1")
    run("hash", moths, "-b", bundle, "-o", "many.npz", "--batch", "7", "--threads", "1")
    assert np.array_equal(
        CodeFile.load(Path("one.npz")).codes, CodeFile.load(Path("many.npz")).codes
    )


def test_photos_that_cannot_be_read(run: Run, moths: Path, bundle: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(moths, mixed)
    photos = sorted(mixed.rglob("*.jpg"))
    photos[0].write_text("this is text")
    photos[1].write_bytes(photos[1].read_bytes()[:800])
    (mixed / "empty.jpg").touch()
    (mixed / "raw.NEF").touch()
    (mixed / "gull").symlink_to("/no/such/disk")
    for command in (
        ["hash", mixed, "-o", "x.npz"],
        ["index", "add", "g.fgi", mixed],
        ["eval", mixed],
    ):
        result = run(*command, "--bundle", bundle)
        assert result.exit_code == 3, result.output
        others = (mixed / "empty.jpg", mixed / "raw.NEF", mixed / "gull")
        for path in (photos[0], photos[1], *others):
            assert result.stderr.count(f"skipped: {path}") == 1
        assert "5 photos skipped" in result.stderr
        strict = run(*command, "--bundle", bundle, "--strict")
        assert strict.exit_code == 1
    assert len(CodeFile.load(tmp_path / "x.npz").paths) == 16
    fails(run("search", photos[0], "-i", "g.fgi", "-b", bundle), 1, "is not an image")
    fails(run("search", "none.jpg", "-i", "g.fgi", "-b", bundle), 1, "none.jpg: no such file")


def test_nothing_to_read_leaves_nothing(run: Run, bundle: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    fails(run("index", "add", "g.fgi", empty, "-b", bundle), 1, r"no images in .*empty")
    fails(run("hash", empty, "-b", bundle), 1, "no images in")
    fails(run("hash", "gone", "-b", bundle), 1, "no folder, image or CSV at gone")
    (empty / "a.jpg").write_text("text")
    result = run("index", "add", "g.fgi", empty, "-b", bundle)
    assert result.exit_code == 3
    assert "skipped:" in result.stderr
    fails(run("hash", empty, "-b", bundle), 1, "none of 1 photo can be read")
    assert [entry.name for entry in tmp_path.iterdir()] == ["empty"]


def test_damaged_metadata_is_no_word_on_the_terminal(bundle: Path, tmp_path: Path) -> None:
    cut = b"Exif\0\0II*\0\x08\0\0\0\x02\0"  # two tags, of which none follows
    Image.new("RGB", (40, 40), "teal").save(tmp_path / "a.jpg", exif=cut)
    command = [sys.executable, "-m", "fgdeploy", "hash", "a.jpg", "-b", str(bundle)]
    here = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=here)
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == 1 and "Warning" not in done.stderr
