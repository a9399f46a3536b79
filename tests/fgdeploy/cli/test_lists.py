"""Lists of photos on the command line: names of columns, repeats, and the depth of pixels."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgdeploy.cli.app import app
from fgdeploy.core.codes import CodeFile
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails

_COLUMNS = ("--path-column", "file", "--label-column", "kind", "--split-column", "fold")


@pytest.fixture
def table(moths: Path, tmp_path: Path) -> Path:
    """A list of nine moths to train and nine to ask with, columns named otherwise, with tabs."""
    rows = ["kind\tfile\tfold"]
    for index, path in enumerate(sorted(moths.rglob("*.jpg"))):
        rows.append(f"{path.parent.name}\t{path}\t{('train', 'test')[index % 2]}")
    (tmp_path / "list.tsv").write_text("\n".join(rows))
    return tmp_path / "list.tsv"


def test_every_command_that_takes_a_list_knows_its_columns() -> None:
    expected = {
        "train",
        "boxes",
        "export",
        "calibrate",
        "build-engine",
        "tune",
        "parity",
        "bench",
        "hash",
        "eval",
        "classify",
        "explain",
        "report",
    }
    for option, others in (("label_column", set()), ("bit_depth", {"search"})):
        taking = {
            command.name
            for command in app.registered_commands
            if command.callback and option in inspect.signature(command.callback).parameters
        }
        assert taking == expected | others


def test_columns_by_other_names(run: Run, bundle: Path, table: Path) -> None:
    fails(run("hash", table, "-b", bundle), 1, "got kind.*; name others with --path-column")
    for command in (
        ["hash", table, "-o", "x.npz"],
        ["index", "add", "g.fgi", table, "--split", "train"],
        ["eval", table],
        ["parity", table],
    ):
        extra = () if command[0] == "parity" else ("-b",)
        done = run(*command, *extra, bundle, *_COLUMNS)
        assert done.exit_code == 0, done.output
    assert len(CodeFile.load(Path("x.npz")).paths) == 18
    assert run("index", "list", "g.fgi").stdout.count(".jpg") == 9


def test_one_photo_twice(run: Run, bundle: Path, moths: Path, table: Path) -> None:
    first = table.read_text().splitlines()[1]
    table.write_text(table.read_text() + "\n" + first.replace("train", "test"))
    words = r"1 photo is in more than one split: .*\(test\) and .*\(train\); scores would be too"
    fails(run("eval", table, "-b", bundle, *_COLUMNS), 1, words)
    done = run("eval", table, "-b", bundle, *_COLUMNS, "--allow-leaks")
    assert done.exit_code == 0
    assert "warning: 1 photo is in more than one split: " in done.stderr
    renamed = "owl" + first[first.index("\t") :]
    table.write_text(table.read_text().replace(first, renamed))
    for command in (["hash", table, "-o", "x.npz"], ["index", "add", "g.fgi", table]):
        done = run(*command, "-b", bundle, *_COLUMNS)
        assert done.exit_code == 0
        assert done.stderr.count("warning: 1 photo is in more than one class: ") == 1
    done = run("index", "add", "o.fgi", moths, "--labels", table, "-b", bundle, *_COLUMNS)
    assert done.exit_code == 0
    assert done.stderr.count("warning: 1 photo is in more than one class: ") == 1


def test_the_depth_of_pixels(run: Run, bundle: Path, tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 96 * 96).reshape(96, 96).astype(np.uint8)
    for name, values in (("eight", ramp), ("twelve", ramp.astype(np.uint16) << 4)):
        (tmp_path / name).mkdir()
        Image.fromarray(values).save(tmp_path / name / "a.png")
    assert run("hash", "eight", "-b", bundle, "-o", "8.npz").exit_code == 0
    fails(run("hash", "twelve", "-b", bundle), 1, "up to 4080 only; .* --bit-depth 12")
    fails(run("hash", "twelve", "-b", bundle, "--bit-depth", "17"), 2, "--bit-depth")
    deep = ("--bit-depth", "12", "-b", bundle)
    assert run("hash", "twelve", *deep, "-o", "12.npz").exit_code == 0
    eight, twelve = (CodeFile.load(Path(name)).codes for name in ("8.npz", "12.npz"))
    np.testing.assert_array_equal(eight, twelve)
    assert run("index", "add", "g.fgi", "twelve", *deep).exit_code == 0
    assert run("eval", "twelve", *deep).output.count("--bit-depth") == 0
    fails(run("parity", bundle, "twelve"), 1, "--bit-depth 12")
    assert run("parity", bundle, "twelve", "--bit-depth", "12").exit_code == 0
    assert run("search", "twelve/a.png", "-i", "g.fgi", *deep).exit_code == 0
