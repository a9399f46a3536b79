"""`fgdeploy index ...` as a user types it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fgdeploy.core.codes import CodeFile
from fgdeploy.retrieval import Index, Item
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails

MODEL = "ab" * 32


def listed(run: Run, *arguments: str) -> list[dict[str, Any]]:
    result = run("index", "list", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def write(name: str, *lines: Any, bits: int = 32, fingerprint: str = MODEL) -> Path:
    head = {"fgdeploy_index": 1, "bits": bits, "fingerprint": fingerprint, "items": len(lines)}
    texts = [line if isinstance(line, str) else json.dumps(line) for line in (head, *lines)]
    Path(name).write_text("\n".join(texts), encoding="utf-8")
    return Path(name)


# add


def test_add_tells_of_photos_that_moved_and_of_copies(
    run: Run, moths: Path, bundle: Path, tmp_path: Path
) -> None:
    mine = Path(shutil.copytree(moths, tmp_path / "mine"))
    run("index", "add", "g.fgi", mine, "-b", bundle)
    first, second, *_ = sorted(mine.rglob("*.jpg"))
    before = {item["path"]: item["id"] for item in listed(run, "g.fgi")}
    first.rename(first.with_name("moved.jpg"))
    shutil.copy(second, second.with_name("copy.jpg"))
    result = run("index", "add", "g.fgi", mine, "-b", bundle)
    words = "added 0 photos, 17 there already, 1 had moved, 1 copy left out, 18 in g.fgi; next"
    assert words in result.stderr
    after = {item["path"]: item["id"] for item in listed(run, "g.fgi")}
    assert after[str(first.with_name("moved.jpg"))] == before[str(first)]
    again = run("index", "add", "g.fgi", mine, "-b", bundle)
    assert "18 there already, 1 copy left out, 18 in" in again.stderr


# remove


@pytest.mark.usefixtures("gallery")
def test_remove_by_expression(run: Run) -> None:
    label = listed(run, "g.fgi")[0]["label"]
    result = run("index", "remove", "g.fgi", "--where", f"label = '{label}' and id > 2")
    assert "removed 4 items, 14 left in g.fgi" in result.stderr
    left = listed(run, "g.fgi")
    assert [item["id"] for item in left] == [1, 2, *range(7, 19)]
    assert "removed 0 items" in run("index", "remove", "g.fgi", "--where", "id > 99").stderr


@pytest.mark.usefixtures("gallery")
def test_remove_counts_an_item_once(run: Run) -> None:
    path = listed(run, "g.fgi", "--where", "id = 3")[0]["path"]
    result = run("index", "remove", "g.fgi", "3", "3", path, "4")
    assert "removed 2 items, 16 left in g.fgi" in result.stderr
    assert "compact" not in result.stderr


@pytest.mark.usefixtures("gallery")
def test_remove_advises_to_compact(run: Run) -> None:
    run("index", "compact", "g.fgi")
    few = run("index", "remove", "g.fgi", "1", "2")
    assert "compact" not in few.stderr
    many = run("index", "remove", "g.fgi", "3", "4")
    assert "removed 2 items, 14 left in g.fgi; next: fgdeploy index compact g.fgi" in many.stderr
    run("index", "compact", "g.fgi")
    assert "compact" not in run("index", "remove", "g.fgi", "5").stderr


@pytest.mark.usefixtures("gallery")
@pytest.mark.parametrize(
    ("arguments", "code", "pattern"),
    [
        ([], 2, "name the items to remove, or give --where"),
        (["1", "--where", "id = 1"], 2, "name the items to remove, or give --where"),
        (["1", "99"], 1, "has no item 99; nothing was removed"),
        (["1", "x.jpg"], 1, "x.jpg is neither an id nor the path"),
        (["0"], 1, "has no item 0; nothing was removed"),
        (["9" * 30], 2, "item 9+: expected a whole number"),
        (["9" * 5000], 2, "item 9+.*: expected a whole number"),
        (["\u0665"], 1, "\u0665 is neither an id nor the path"),
        (["--where", ""], 2, "--where '': expected an expression"),
        (["--where", "size = 1"], 2, "no such column: size"),
        (["--where", "id = 1; DELETE FROM items"], 2, "';' is not allowed in it"),
        (["--where", "1); DELETE FROM items; --"], 2, "brackets do not match"),
        (["--where", "1) OR (1"], 2, "brackets do not match"),
        (["--where", "randomblob(9)"], 2, "it may read columns and call plain functions"),
    ],
)
def test_what_cannot_be_removed(run: Run, arguments: list[str], code: int, pattern: str) -> None:
    fails(run("index", "remove", "g.fgi", *arguments), code, pattern)
    assert len(listed(run, "g.fgi")) == 18


# list


@pytest.mark.usefixtures("gallery")
def test_list_some(run: Run) -> None:
    assert [item["id"] for item in listed(run, "g.fgi", "-n", "3")] == [1, 2, 3]
    assert [item["id"] for item in listed(run, "g.fgi", "--where", "id >= 17")] == [17, 18]
    assert listed(run, "g.fgi", "--limit", "0") == []
    shown = run("index", "list", "g.fgi", "--where", "id = 5").stdout
    number, label, path, time = shown.rstrip("\n").split("\t")
    assert (number, Path(path).parent.name) == ("5", label)
    assert time.endswith("+00:00")
    fails(run("index", "list", "g.fgi", "-n", "-1"), 2, "--limit -1: expected a whole number")
    fails(run("index", "list", "g.fgi", "--where", "nix"), 2, "no such column: nix")
    fails(run("index", "list", "none.fgi"), 1, "no index at none.fgi")


def test_list_shows_own_json_as_json(run: Run) -> None:
    with Index.create("g.fgi", MODEL, 32) as index:
        index.add([Item(None, b"abcd", json='{"trap": [7, "north"]}'), Item("b", b"abce")])
    first, second = listed(run, "g.fgi")
    assert first["json"] == {"trap": [7, "north"]}
    assert (first["path"], first["code"]) == (None, "61626364")
    assert second["json"] is None
    only = listed(run, "g.fgi", "--where", "json ->> '$.trap[0]' = 7")
    assert [item["id"] for item in only] == [1]


# compact, verify, stats


@pytest.mark.usefixtures("gallery")
def test_compact_and_stats(run: Run) -> None:
    shown = run("index", "stats", "g.fgi").stdout
    for words in (
        "items       18\n",
        "labels      3\n",
        "no segments\n",
        "18 rows in no segment yet",
    ):
        assert words in shown
    done = run("index", "compact", "g.fgi")
    assert done.exit_code == 0
    size = next(Path("g.fgi").glob("segment-*.codes")).stat().st_size
    assert done.stderr == (
        f"compacted g.fgi: no segments before, 1 segment of 18 rows ({size:,} bytes) now; "
        "next: fgdeploy search PHOTO --index g.fgi\n"
    )
    run("index", "remove", "g.fgi", "1")
    again = run("index", "compact", "g.fgi")
    assert "1 segment of 18 rows" in again.stderr
    assert "1 segment of 17 rows" in again.stderr
    found = json.loads(run("index", "stats", "g.fgi", "--json").stdout)
    assert (found["path"], found["items"], found["labels"], found["bits"]) == ("g.fgi", 17, 3, 32)
    assert (found["tail"], found["dead"], len(found["segments"])) == (0, 0, 1)
    fails(run("index", "stats", "none.fgi"), 1, "no index at none.fgi")


def test_stats_of_an_empty_index(run: Run) -> None:
    Index.create("g.fgi", MODEL, 32).close()
    assert "times       none" in run("index", "stats", "g.fgi").stdout
    assert "no segments now" in run("index", "compact", "g.fgi").stderr


@pytest.mark.usefixtures("gallery")
def test_verify_repairs_what_it_can(run: Run) -> None:
    run("index", "compact", "g.fgi")
    segment = next(Path("g.fgi").glob("segment-*.codes"))
    segment.write_bytes(segment.read_bytes()[:-1])
    found = run("index", "verify", "g.fgi")
    assert found.exit_code == 0
    first, last = found.stdout.splitlines()
    assert first.startswith("repaired: segment-")
    assert last == "g.fgi: 18 items of 32 bits, intact"
    assert run("index", "verify", "g.fgi").stdout == "g.fgi: 18 items of 32 bits, intact\n"


def test_verify_notes_photos_that_are_gone(run: Run) -> None:
    with Index.create("g.fgi", MODEL, 32) as index:
        index.add([Item("/nowhere/a.jpg", b"abcd"), Item("https://x.org/b.jpg", b"abcd")])
    found = run("index", "verify", "g.fgi")
    assert found.exit_code == 0
    assert found.stdout.startswith("note: 1 photo no longer at the path\n")
    problems = json.loads(run("index", "verify", "g.fgi", "--json").stdout)["problems"]
    assert [(p["fatal"], p["repaired"]) for p in problems] == [(False, False)]


@pytest.mark.usefixtures("gallery")
def test_verify_finds_damage(run: Run) -> None:
    import sqlite3

    connection = sqlite3.connect("g.fgi/index.sqlite")
    connection.execute("UPDATE items SET label = 'forged' WHERE id = 4")
    connection.commit()
    connection.close()
    found = run("index", "verify", "g.fgi")
    assert found.exit_code == 1
    assert "error: item 4: it is not what was added (CRC)\n" in found.stdout
    assert "18 items of 32 bits, damaged; restore a copy" in found.stdout
    checked = run("index", "verify", "g.fgi", "--json")
    assert checked.exit_code == 1
    assert json.loads(checked.stdout)["problems"][0]["fatal"]


# export and import


@pytest.mark.usefixtures("gallery")
def test_export_and_import(run: Run, moths: Path, bundle: Path) -> None:
    done = run("index", "export", "g.fgi", "all.jsonl")
    assert done.stdout == ""
    assert done.stderr == (
        "exported 18 items to all.jsonl; next: fgdeploy index import OTHER.fgi all.jsonl\n"
    )
    come = run("index", "import", "h.fgi", "all.jsonl")
    words = "imported 18 items: 18 new, 0 changed, 0 there already, 18 in h.fgi; next"
    assert words in come.stderr
    assert listed(run, "h.fgi") == listed(run, "g.fgi")
    again = run("index", "import", "h.fgi", "all.jsonl")
    assert "0 new, 0 changed, 18 there already, 18 in h.fgi" in again.stderr
    query = sorted(moths.rglob("*.jpg"))[7]
    one, other = (
        run("search", query, "-i", name, "-b", bundle, "--json").stdout
        for name in ("g.fgi", "h.fgi")
    )
    assert one == other


@pytest.mark.usefixtures("gallery")
def test_code_files_go_both_ways(run: Run, moths: Path, bundle: Path) -> None:
    done = run("index", "export", "g.fgi", "all.npz")
    assert "exported 18 items to all.npz, without ids, times, sha256 and json" in done.stderr
    run("hash", moths, "-b", bundle, "-o", "hashed.npz")
    for name in ("all.npz", "hashed.npz"):
        again = run("index", "import", "g.fgi", name)
        assert "0 new, 0 changed, 18 there already" in again.stderr
    fresh = run("index", "import", "h.fgi", "hashed.npz")
    assert "18 new" in fresh.stderr
    facts = ("id", "path", "label", "code")
    one, other = (
        [tuple(item[fact] for fact in facts) for item in listed(run, name)]
        for name in ("g.fgi", "h.fgi")
    )
    assert one == other


@pytest.mark.usefixtures("gallery")
@pytest.mark.parametrize("verb", ["export", "import"])
def test_other_suffixes(run: Run, verb: str) -> None:
    pattern = r"all.csv: expected a name ending in .jsonl .* or .npz"
    fails(run("index", verb, "g.fgi", "all.csv"), 2, pattern)
    assert not Path("all.csv").exists()


def test_what_cannot_be_imported_leaves_nothing(run: Run, tmp_path: Path) -> None:
    def refuse(name: str, code: int, pattern: str) -> None:
        fails(run("index", "import", "new.fgi", name), code, pattern)
        assert not list(tmp_path.glob("*new.fgi*"))

    refuse("gone.jsonl", 1, "no file at gone.jsonl")
    write("bad.jsonl", {"id": 1, "code": "0007"})
    refuse("bad.jsonl", 1, "bad.jsonl line 2: code: expected 8 hex digits.*; nothing was added")
    write("cut.jsonl", *[{"id": n, "code": f"{n:08x}"} for n in range(1, 4)])
    text = Path("cut.jsonl").read_text().splitlines()
    Path("cut.jsonl").write_text(text[0] + "\n")
    refuse("cut.jsonl", 1, "cut.jsonl ends after item 0 of 3")
    twice = [{"id": 7, "code": "00000000"}, {"id": 7, "code": "00000001"}]
    write("twice.jsonl", *twice)
    refuse("twice.jsonl", 1, "line 3: id 7 was there before with other content; nothing was added")
    Path("x.npz").write_text("text")
    refuse("x.npz", 1, "x.npz is not a code file")
    np.savez("wide.npz", codes=np.zeros((1, 4), np.float32), paths=["a"], labels=["b"], bits=32,
             fingerprint="ab")  # fmt: skip
    refuse("wide.npz", 1, r"wide.npz: expected uint8 codes \(1, 4\), got float32")
    CodeFile(np.zeros((1, 4), np.uint8), [""], [""], 32, MODEL).save(Path("bare.npz"))
    refuse("bare.npz", 1, "photo 1: it has no path to be known again by")


@pytest.mark.usefixtures("gallery")
def test_import_of_another_model(run: Run) -> None:
    write("other.jsonl", {"id": 99, "code": "00000000"})
    fails(run("index", "import", "g.fgi", "other.jsonl"), 1, "holds 32-bit codes of model")
    write("wider.jsonl", {"id": 99, "code": "0" * 16}, bits=64)
    fails(run("index", "import", "g.fgi", "wider.jsonl"), 1, "holds 32-bit codes of model")
    assert len(listed(run, "g.fgi")) == 18


def test_import_of_nothing_leaves_nothing(run: Run, tmp_path: Path) -> None:
    write("none.jsonl")
    result = run("index", "import", "new.fgi", "none.jsonl")
    assert "imported 0 items" in result.stderr
    assert not list(tmp_path.glob("*new.fgi*"))


# A reader that goes away


@pytest.mark.parametrize(
    "arguments",
    [
        ["index", "list", "g.fgi"],
        ["index", "list", "g.fgi", "--json"],
        ["search", "--id", "1", "-i", "g.fgi", "-k", "5000"],
        ["search", "--id", "1", "--id", "2", "-i", "g.fgi", "-k", "5000", "--json"],
    ],
    ids=" ".join,
)
def test_a_pipe_that_closes(arguments: list[str], tmp_path: Path) -> None:
    with Index.create(tmp_path / "g.fgi", MODEL, 32) as index:
        codes = np.arange(5000, dtype=np.uint32).view(np.uint8).reshape(-1, 4)
        index.add_codes(codes)
    with subprocess.Popen(
        [sys.executable, "-m", "fgdeploy", *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(5)
        process.stdout.close()
        errors = process.stderr.read().decode()
    assert process.returncode in (0, 141)  # as SIGPIPE ends a program
    assert errors == ""


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
