"""Every command as a user types it, and every way to get it wrong."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from fgdeploy.core import atomic
from fgdeploy.core.codes import CodeFile
from tests.cli.outcome import fails as _fails

Run = Callable[..., Result]

COMMANDS = [
    ["train"],
    ["demo"],
    ["export"],
    ["inspect"],
    ["doctor"],
    ["calibrate"],
    ["build-engine"],
    ["parity"],
    ["pack"],
    ["unpack"],
    ["hash"],
    ["search"],
    ["eval"],
    ["index"],
    ["index", "add"],
    ["index", "remove"],
    ["index", "list"],
    ["index", "compact"],
    ["index", "verify"],
    ["index", "stats"],
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


def test_from_photos_to_a_ranked_list(run: Run, moths: Path, bundle: Path, tmp_path: Path) -> None:
    assert run("index", "add", "g.fgi", moths, "--bundle", bundle).exit_code == 0
    again = run("index", "add", "g.fgi", moths, "--bundle", bundle)
    assert "added 0 photos, 18 were there already, 18 in g.fgi" in again.stderr
    query = sorted(moths.rglob("*.jpg"))[4]
    result = run("search", query, "--index", "g.fgi", "--bundle", bundle, "-k", "5", "--json")
    answer = json.loads(result.stdout)
    assert answer["query"] == str(query)
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3, 4, 5]
    (tmp_path / "l.csv").write_text(f"path,class\n{query.relative_to(moths)},renamed\n")
    again = run("index", "add", "g.fgi", moths, "--bundle", bundle, "--labels", "l.csv")
    assert "18 were there already (1 with a new label), 18 in g.fgi" in again.stderr
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
    _fails(run("index", "remove", "g.fgi", "3"), 1, "has no item 3; nothing was removed")
    _fails(run("index", "remove", "g.fgi", "x.jpg"), 1, "x.jpg is neither an id nor the path")
    verified = run("index", "verify", "g.fgi")
    assert verified.stdout == "g.fgi: 16 items of 32 bits, sound\n"
    assert json.loads(run("index", "verify", "g.fgi", "--json").stdout)["items"] == 16
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["g.fgi"]


def test_labels_and_splits_from_csv(run: Run, moths: Path, bundle: Path, tmp_path: Path) -> None:
    photo = sorted(moths.rglob("*.jpg"))[0]
    relative = photo.relative_to(moths).as_posix()
    (tmp_path / "labels.csv").write_text(f"path,class\n{relative},a rare moth\n")
    run("index", "add", "g.fgi", moths, "-b", bundle, "--labels", "labels.csv")
    items = [
        json.loads(line) for line in run("index", "list", "g.fgi", "--json").stdout.split("\n")[:-1]
    ]
    labels = {item["path"]: item["label"] for item in items}
    assert labels.pop(str(photo.resolve())) == "a rare moth"
    assert all(Path(path).parent.name == label for path, label in labels.items())
    run("index", "add", "t.fgi", moths / "split.csv", "-b", bundle, "--split", "train")
    assert "9 items" in run("index", "verify", "t.fgi").stdout


def test_hash(run: Run, moths: Path, bundle: Path, tmp_path: Path) -> None:
    result = run("hash", moths, "--bundle", bundle, "-o", "out.npz")
    assert result.exit_code == 0
    assert result.stdout == ""
    codes = CodeFile.load(tmp_path / "out.npz")
    assert codes.codes.shape == (18, 4)
    assert codes.labels[0] == Path(codes.paths[0]).parent.name
    _fails(run("hash", moths, "-b", bundle, "-o", "x.txt"), 1, r"-o x.txt: expected a name ending")
    _fails(run("hash", moths, "-b", bundle, "-o", "no/x.npz"), 1, "in a folder that exists")


def test_eval(run: Run, moths: Path, bundle: Path) -> None:
    split = json.loads(run("eval", moths / "split.csv", "-b", bundle, "--json").stdout)
    assert (split["queries"], split["gallery"]) == (9, 9)
    assert set(split["recall"]) == {"1", "2", "4", "8"}
    assert 0 < split["map"] <= 1
    whole = run("eval", moths, "-b", bundle, "--precision-at", "1,5")
    assert whole.exit_code == 0
    assert "each of 18 photos against all others, 32 bits" in whole.stdout
    assert "P@5" in whole.stdout
    _fails(run("eval", moths, "-b", bundle, "--precision-at", "x"), 2, "--precision-at 'x'")
    lonely = sorted(moths.iterdir())[0]
    _fails(run("eval", lonely, "-b", bundle), 1, "all photos are of one class")
    _fails(
        run("eval", moths / "split.csv", "-b", bundle, "--queries", "val"), 1, "no photos of split"
    )


def test_parity(run: Run, moths: Path, bundle: Path) -> None:
    good = run("parity", moths, "--bundle", bundle, "--json")
    assert good.exit_code == 0, good.output
    entry = json.loads(good.stdout)
    assert (entry["reference"], entry["candidate"]) == ("onnxruntime:fp32", "openvino:fp32")
    assert entry["bit_agreement"] == 1.0
    assert entry["map_drop"] == 0
    against = run(
        "parity", moths, "-b", bundle, "--reference", "pytorch", "--candidate", "openvino"
    )
    assert against.exit_code == 0, against.output
    assert "openvino against pytorch on 18 photos" in against.stdout
    one = sorted(moths.rglob("*.jpg"))[0]
    few = run("parity", one, "--bundle", bundle)
    assert few.exit_code == 0
    assert "not measured (too few photos, or no labels): top-10 overlap, mAP drop" in few.stderr
    asked = run("parity", one, "--bundle", bundle, "--min-top10", "0.5")
    assert asked.exit_code == 1
    assert "top-10 overlap cannot be measured here" in asked.stderr
    breach = run("parity", moths, "--bundle", bundle, "--max-hash-diff", "0")
    assert breach.exit_code == 1
    assert "does not keep to onnxruntime:fp32: max |hash difference| is" in breach.stderr
    _fails(
        run("parity", moths, "-b", bundle, "--candidate", "onnxruntime:int8"),
        1,
        "holds no int8 graph, only fp32",
    )
    _fails(run("parity", moths, "-b", bundle, "--candidate", "abacus"), 2, "no backend 'abacus'")


def test_parity_is_recorded_when_asked(run: Run, moths: Path, bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "own.fgd")
    assert run("parity", moths, "--record").exit_code == 0
    entry = json.loads((tmp_path / "own.fgd" / "manifest.json").read_text())["parity"]
    assert (entry["candidate"], entry["photos"]) == ("openvino:fp32", 18)
    assert run("inspect").exit_code == 0


def test_inspect(run: Run, bundle: Path) -> None:
    shown = run("inspect", bundle)
    assert shown.exit_code == 0
    for text in ("test_vit (6 blocks, width 64)", "16 + 1", "1-2", "3-4", "5-6", "published"):
        assert text in shown.stdout
    assert json.loads(run("inspect", bundle, "--json").stdout)["bits"] == 32


def test_doctor(run: Run) -> None:
    shown = run("doctor")
    assert shown.exit_code == 0
    assert "engines that can run here: onnxruntime, openvino" in shown.stdout
    assert 'pip install "fgdeploy[tensorrt-rtx]"' in shown.stdout or "tensorrt-rtx" in shown.stdout
    machine = json.loads(run("doctor", "--json").stdout)
    assert machine["cores"] >= 1


def test_doctor_without_engines(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("doctor")
    assert result.exit_code == 1
    assert 'run: pip install "fgdeploy[cpu]"' in result.stderr


def test_export(run: Run, tmp_path: Path) -> None:
    flags = ["--backbone", "test_vit", "--weights", "random", "--image-size", "64"]
    result = run("export", "--method", "eet", *flags, "--stages", "2:9,5:3", "--bits", "12")
    assert result.exit_code == 0, result.output
    assert "2:9, 5:3" in result.stdout
    assert "next: fgdeploy index add gallery.fgi PHOTOS --bundle eet.fgd" in result.stderr
    manifest = json.loads((tmp_path / "eet.fgd" / "manifest.json").read_text())
    assert [stage["keep"] for stage in manifest["stages"]] == [9, 3]
    _fails(run("export", *flags, "--stages", "2:9"), 1, "eet.fgd is there already; pass --over")
    _fails(run("export", *flags, "--stages", "2-9", "-o", "x.fgd"), 2, "expected BLOCK:TOKENS")
    _fails(run("export", *flags, "--stages", "2:17", "-o", "x.fgd"), 1, "keeps 17.*16 arrive")
    _fails(run("export", *flags, "--bits", "7", "-o", "x.fgd"), 2, "8 to 512 bits, not 7")
    _fails(run("export", *flags, "--checkpoint", "no.pth", "-o", "x.fgd"), 1, "no checkpoint at")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["eet.fgd"]


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
    _fails(run("export", *flags, "-o", "x.fgd", "--head", "lsh", "--stages", "none"), 1, pattern)
    _fails(run("hash", moths, "-b", bundle, "-o", "x.npz"), 1, pattern)
    _fails(run("index", "add", "g.fgi", moths, "-b", bundle), 1, pattern)
    run_html = run("search", next(moths.rglob("*.jpg")), "-i", "g.fgi", "-b", bundle)
    _fails(run_html, 1, "no index at g.fgi")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_write_permission(run: Run, moths: Path, bundle: Path) -> None:
    Path("locked").mkdir(mode=0o555)
    result = run("hash", moths, "-b", bundle, "-o", "locked/x.npz")
    _fails(result, 1, "Permission denied; choose a place")


def test_photos_that_cannot_be_read(run: Run, moths: Path, bundle: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(moths, mixed)
    photos = sorted(mixed.rglob("*.jpg"))
    photos[0].write_text("this is text")
    photos[1].write_bytes(photos[1].read_bytes()[:800])
    (mixed / "empty.jpg").touch()
    for command in (
        ["hash", mixed, "-o", "x.npz"],
        ["index", "add", "g.fgi", mixed],
        ["eval", mixed],
    ):
        result = run(*command, "--bundle", bundle)
        assert result.exit_code == 3, result.output
        for path in (photos[0], photos[1], mixed / "empty.jpg"):
            assert result.stderr.count(f"skipped: {path}") == 1
        assert "3 photos skipped" in result.stderr
        strict = run(*command, "--bundle", bundle, "--strict")
        assert strict.exit_code == 1
    assert len(CodeFile.load(tmp_path / "x.npz").paths) == 16
    _fails(run("search", photos[0], "-i", "g.fgi", "-b", bundle), 1, "is not an image")
    _fails(run("search", "none.jpg", "-i", "g.fgi", "-b", bundle), 1, "none.jpg: no such file")


def test_nothing_to_read_leaves_nothing(run: Run, bundle: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    _fails(run("index", "add", "g.fgi", empty, "-b", bundle), 1, r"no images in .*empty")
    _fails(run("hash", empty, "-b", bundle), 1, "no images in")
    _fails(run("hash", "gone", "-b", bundle), 1, "no folder, image or CSV at gone")
    (empty / "a.jpg").write_text("text")
    result = run("index", "add", "g.fgi", empty, "-b", bundle)
    assert result.exit_code == 3
    assert "skipped:" in result.stderr
    _fails(run("hash", empty, "-b", bundle), 1, "none of 1 photos can be read")
    assert [entry.name for entry in tmp_path.iterdir()] == ["empty"]


def test_codes_of_another_model_are_refused(
    run: Run, moths: Path, bundle: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.fgd"
    flags = ["--backbone", "test_vit", "--weights", "random", "--image-size", "64"]
    assert run("export", *flags, "--bits", "32", "--seed", "9", "-o", other).exit_code == 0
    run("index", "add", "g.fgi", moths, "--bundle", bundle)
    query = next(moths.rglob("*.jpg"))
    pattern = "g.fgi holds 32-bit codes of model .*; .*use the bundle that built the index"
    _fails(run("search", query, "-i", "g.fgi", "-b", other), 1, pattern)
    _fails(run("index", "add", "g.fgi", moths, "-b", other), 1, pattern)
    assert "18 items" in run("index", "verify", "g.fgi").stdout


def test_the_only_bundle_is_the_default(run: Run, moths: Path, bundle: Path) -> None:
    _fails(run("inspect"), 2, "no bundle in this folder; name one with --bundle")
    shutil.copytree(bundle, "one.fgd")
    assert run("inspect").exit_code == 0
    shutil.copytree(bundle, "two.fgd")
    _fails(run("eval", moths), 2, r"2 bundles \(one.fgd, two.fgd\) in this folder")


@pytest.mark.parametrize(
    ("damage", "pattern"),
    [
        (lambda b: (b / "model.onnx").write_bytes(b""), r"model.onnx: expected \d+ bytes, got 0"),
        (lambda b: (b / "manifest.json").unlink(), "lacks manifest.json"),
        (lambda b: (b / "manifest.json").write_text("{"), "manifest.json is not JSON"),
        (lambda b: (b / "model.onnx").unlink(), "lacks model.onnx"),
    ],
)
def test_damaged_bundles(run: Run, bundle: Path, damage: Any, pattern: str) -> None:
    shutil.copytree(bundle, "bad.fgd")
    damage(Path("bad.fgd"))
    _fails(run("inspect"), 1, pattern)
    Path("a.png").write_bytes(b"")
    _fails(run("hash", "."), 1, pattern)


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


def test_a_single_photo_and_odd_names(run: Run, bundle: Path, moths: Path, tmp_path: Path) -> None:
    odd = tmp_path / "ein Ordner ä" / "naïve 'quote\" <b>.jpg"
    odd.parent.mkdir()
    shutil.copy(next(moths.rglob("*.jpg")), odd)
    assert run("index", "add", "g.fgi", odd, "-b", bundle).exit_code == 0
    result = run("search", odd, "-i", "g.fgi", "-b", bundle, "--json", "--html", "s.html")
    hit = json.loads(result.stdout)["hits"][0]
    assert (hit["path"], hit["label"]) == (str(odd), "ein Ordner ä")
    assert "<b>" not in (tmp_path / "s.html").read_text(encoding="utf-8")


def test_codes_do_not_depend_on_the_batch(run: Run, moths: Path, bundle: Path) -> None:
    run("hash", moths, "-b", bundle, "-o", "one.npz", "--batch", "1")
    run("hash", moths, "-b", bundle, "-o", "many.npz", "--batch", "7", "--threads", "1")
    assert np.array_equal(
        CodeFile.load(Path("one.npz")).codes, CodeFile.load(Path("many.npz")).codes
    )


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


@pytest.mark.parametrize(
    ("command", "pattern"),
    [
        (["parity", "P", "-b", "B", "--images", "0"], "--images 0: compare at least one"),
        (
            ["parity", "P", "-b", "B", "--min-top10", "2"],
            "min_top10=2: expected a number",
        ),
        (["parity", "P", "-b", "B", "--max-hash-diff", "nan"], "max_hash_diff=nan: expected"),
        (["hash", "P", "-b", "B", "--threads", "100000"], "at most 1024, got 100000"),
    ],
)
def test_values_that_can_never_be_right(
    run: Run, moths: Path, bundle: Path, command: list[str], pattern: str
) -> None:
    places = {"P": moths, "B": bundle}
    _fails(run(*(places.get(word, word) for word in command)), 2, pattern)


def test_errors_name_the_file_that_was_asked_for(
    run: Run, moths: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    result = run("export", "--weights", "random", "--backbone", "test_vit", "-o", "x.fgd")
    _fails(result, 1, "error: x.fgd: Permission denied; choose a place")


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
