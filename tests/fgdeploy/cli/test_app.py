"""What all commands share: help, versions, errors in one line, exit codes, signals."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from fgdeploy.core import atomic
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails

COMMANDS = [
    ["train"],
    ["boxes"],
    ["demo"],
    ["export"],
    ["inspect"],
    ["card"],
    ["report"],
    ["doctor"],
    ["calibrate"],
    ["build-engine"],
    ["tune"],
    ["parity"],
    ["bench"],
    ["pack"],
    ["unpack"],
    ["triton-repo"],
    ["deepstream"],
    ["sign"],
    ["verify"],
    ["push"],
    ["pull"],
    ["hash"],
    ["search"],
    ["serve"],
    ["eval"],
    ["classify"],
    ["camera"],
    ["explain"],
    ["index"],
    ["index", "add"],
    ["index", "embed"],
    ["index", "migrate"],
    ["index", "push"],
    ["index", "remove"],
    ["index", "list"],
    ["index", "compact"],
    ["index", "verify"],
    ["index", "stats"],
    ["index", "threshold"],
    ["index", "export"],
    ["index", "import"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help(run: Run, command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")
    lines = result.stdout.splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("  --"):  # every option says what it does, there or below
            below = following if following.startswith("      ") else ""
            assert len(f"{line} {below}".split()) > 2, line


def test_every_command_is_listed_here(run: Run) -> None:
    listed = run("--help").stdout.partition("Commands:")[2].split("\n")
    names = {line.split()[0] for line in listed if line.startswith("  ") and line.split()}
    assert names == {command[0] for command in COMMANDS}


def test_version(run: Run) -> None:
    from fgdeploy import __version__

    assert run("--version").stdout == f"fgdeploy {__version__}\n"


def test_usage_errors_exit_with_2(run: Run) -> None:
    assert run("export", "--no-such-option").exit_code == 2
    assert run("search").exit_code == 2
    assert run("nonsense").exit_code == 2


def test_debug_shows_the_traceback(run: Run) -> None:
    result = run("--debug", "inspect", "none.fgd")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert "BundleError" in result.stderr


def test_interrupt_exits_with_130(run: Run, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(path: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fgdeploy.bundle.open_bundle", interrupt)
    assert run("inspect", bundle).exit_code == 130


@pytest.mark.parametrize(
    ("number", "pattern"),
    [
        (errno.ENOSPC, "No space left on device; free some space"),
        (errno.EROFS, "Read-only file system; choose a place that can be written"),
    ],
)
def test_full_or_read_only_targets(
    run: Run,
    moths: Path,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    pattern: str,
) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(atomic.os, "fsync", refuse)
    flags = ["--backbone", "test_vit", "--weights", "random", "--image-size", "64", "--bits", "8"]
    fails(run("export", *flags, "-o", "x.fgd", "--head", "lsh", "--stages", "none"), 1, pattern)
    fails(run("hash", moths, "-b", bundle, "-o", "x.npz"), 1, pattern)
    fails(run("index", "add", "g.fgi", moths, "-b", bundle), 1, pattern)
    run_html = run("search", next(moths.rglob("*.jpg")), "-i", "g.fgi", "-b", bundle)
    fails(run_html, 1, "no index at g.fgi")
    assert [one.name for one in tmp_path.iterdir()] == ["x.npz.part"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_write_permission(run: Run, moths: Path, bundle: Path) -> None:
    Path("locked").mkdir(mode=0o555)
    result = run("hash", moths, "-b", bundle, "-o", "locked/x.npz")
    fails(result, 1, "Permission denied; choose a place")


@pytest.mark.parametrize(
    ("command", "pattern"),
    [
        (
            ["parity", "P", "-b", "B", "--images", "0"],
            "--images 0: expected a whole number",
        ),
        (
            ["parity", "P", "-b", "B", "--min-top10", "2"],
            "min_top10=2: expected a number",
        ),
        (
            ["parity", "P", "-b", "B", "--max-hash-diff", "nan"],
            "--max-hash-diff nan: expected a finite",
        ),
        (
            ["hash", "P", "-b", "B", "--threads", "100000"],
            "--threads 100000: expected a whole number from 1 to 1024",
        ),
    ],
)
def test_values_that_can_never_be_right(
    run: Run, moths: Path, bundle: Path, command: list[str], pattern: str
) -> None:
    places = {"P": moths, "B": bundle}
    fails(run(*(places.get(word, word) for word in command)), 2, pattern)


def test_errors_name_the_file_that_was_asked_for(
    run: Run, moths: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    result = run("export", "--weights", "random", "--backbone", "test_vit", "-o", "x.fgd")
    fails(result, 1, "error: x.fgd: Permission denied; choose a place")


def test_sigterm_leaves_nothing(tmp_path: Path) -> None:
    import signal
    import subprocess
    import sys
    import time

    command = [sys.executable, "-m", "fgdeploy", "export", "--weights", "random", "-o", "x.fgd"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".x.fgd.*.tmp")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_names_cannot_paint_on_the_terminal(run: Run, bundle: Path, moths: Path) -> None:
    odd = Path("a\tb\n\x1b[31mc.jpg")
    shutil.copy(next(moths.rglob("*.jpg")), odd)
    run("index", "add", "g.fgi", odd, "-b", bundle)
    for result in (
        run("index", "list", "g.fgi"),
        run("search", odd, "-i", "g.fgi", "-b", bundle),
        run("inspect", odd),
    ):
        assert "\x1b" not in result.output
        assert "\nc.jpg" not in result.output
    assert len(run("index", "list", "g.fgi").stdout.splitlines()) == 1


# --- the way through


def test_from_photos_to_a_ranked_list(run: Run, moths: Path, bundle: Path, tmp_path: Path) -> None:
    assert run("index", "add", "g.fgi", moths, "--bundle", bundle).exit_code == 0
    again = run("index", "add", "g.fgi", moths, "--bundle", bundle)
    assert "added 0 photos, 18 there already, 18 in g.fgi" in again.stderr
    query = sorted(moths.rglob("*.jpg"))[4]
    result = run("search", query, "--index", "g.fgi", "--bundle", bundle, "-k", "5", "--json")
    answer = json.loads(result.stdout)
    assert answer["query"] == str(query)
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3, 4, 5]
    (tmp_path / "l.csv").write_text(f"path,class\n{query.relative_to(moths)},renamed\n")
    again = run("index", "add", "g.fgi", moths, "--bundle", bundle, "--labels", "l.csv")
    assert "18 there already (1 with a new label), 18 in g.fgi" in again.stderr
    run("index", "add", "g.fgi", moths, "--bundle", bundle)
    (tmp_path / "l.csv").unlink()
    assert set(answer["hits"][0]) == {"rank", "distance", "id", "path", "label"}
    first = answer["hits"][0]
    assert (first["distance"], first["path"]) == (0, str(query))
    assert first["label"] == query.parent.name
    order = [(hit["distance"], hit["id"]) for hit in answer["hits"]]
    assert order == sorted(order)
    everything = run("search", query, "-i", "g.fgi", "-b", bundle, "-k", "99", "--json")
    assert len(json.loads(everything.stdout)["hits"]) == 18

    table = run("search", query, query, "-i", "g.fgi", "-b", bundle, "-k", "2")
    assert table.stdout.count("rank") == 2

    listed = run("index", "list", "g.fgi", "--json").stdout.splitlines()
    items = [json.loads(line) for line in listed]
    assert [item["id"] for item in items] == list(range(1, 19))
    assert len(bytes.fromhex(items[0]["code"])) == 4
    assert len(run("index", "list", "g.fgi").stdout.splitlines()) == 18

    removed = run("index", "remove", "g.fgi", "3", query)
    assert "removed 2 items, 16 left in g.fgi" in removed.stderr
    fails(run("index", "remove", "g.fgi", "3"), 1, "has no item 3; nothing was removed")
    fails(run("index", "remove", "g.fgi", "x.jpg"), 1, "x.jpg is neither an id nor the path")
    verified = run("index", "verify", "g.fgi")
    assert verified.stdout == "g.fgi: 16 items of 32 bits, intact\n"
    assert json.loads(run("index", "verify", "g.fgi", "--json").stdout)["items"] == 16
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["g.fgi"]


def test_codes_of_another_model_are_refused(
    run: Run, moths: Path, bundle: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.fgd"
    flags = ["--backbone", "test_vit", "--weights", "random", "--image-size", "64"]
    assert (
        run("export", "--no-time", *flags, "--bits", "32", "--seed", "9", "-o", other).exit_code
        == 0
    )
    run("index", "add", "g.fgi", moths, "--bundle", bundle)
    query = next(moths.rglob("*.jpg"))
    pattern = "g.fgi holds 32-bit codes of model .*; .*use the bundle that built the index"
    fails(run("search", query, "-i", "g.fgi", "-b", other), 1, pattern)
    fails(run("index", "add", "g.fgi", moths, "-b", other), 1, pattern)
    assert "18 items" in run("index", "verify", "g.fgi").stdout


def test_a_single_photo_and_odd_names(run: Run, bundle: Path, moths: Path, tmp_path: Path) -> None:
    odd = tmp_path / "ein Ordner ä" / "naïve 'quote\" <b>.jpg"
    odd.parent.mkdir()
    shutil.copy(next(moths.rglob("*.jpg")), odd)
    assert run("index", "add", "g.fgi", odd, "-b", bundle).exit_code == 0
    result = run("search", odd, "-i", "g.fgi", "-b", bundle, "--json", "--html", "s.html")
    hit = json.loads(result.stdout)["hits"][0]
    assert (hit["path"], hit["label"]) == (str(odd), "ein Ordner ä")
    assert "<b>" not in (tmp_path / "s.html").read_text(encoding="utf-8")


def test_a_limit_of_file_sizes_is_no_full_disk(moths: Path, bundle: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    words = {"hash": ["hash", moths, "-b", bundle], "add": ["index", "add", "g.fgi", moths]}
    words["add"] += ["-b", bundle]
    words["pack"] = ["pack", bundle]
    for command in words.values():
        line = ["bash", "-c", 'ulimit -f 1; "$@"', "bash", sys.executable, "-m", "fgdeploy"]
        done = subprocess.run(
            [*line, *map(str, command)], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 1
        assert "(ulimit -f)" in done.stderr
        assert "disk" not in done.stderr
        assert done.stderr.count("error:") == 1
        # What was hashed so far waits for the next run; nothing else is left.
        assert {path.name for path in tmp_path.iterdir()} <= {"codes.npz.part"}
