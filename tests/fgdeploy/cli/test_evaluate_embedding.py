"""`fgdeploy eval --by embedding`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.evaluation import recall_by_cosine
from fgdeploy.hasher import hash_all, load
from fgdeploy.photos import of_split, read
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails


def test_closed_set(run: Run, moths: Path, bundle: Path) -> None:
    flags = ("eval", moths / "split.csv", "-b", bundle, "--by", "embedding")
    entry = json.loads(run(*flags, "--json").stdout)
    with load(bundle) as hasher:
        hashed = hash_all(hasher, of_split(read(moths / "split.csv"), "test"))
    assert hashed.outputs.embedding is not None
    labels = np.array([photo.label for photo in hashed.photos])
    expected = recall_by_cosine(hashed.outputs.embedding, labels)
    assert entry["recall"] == {str(k): value for k, value in expected.recall.items()}
    assert (entry["by"], entry["protocol"], entry["queries"]) == ("embedding", "closed-set", 9)
    plain = json.loads(run("eval", moths / "split.csv", "-b", bundle, "--json").stdout)
    assert entry["code_recall"] == plain["protocols"]["symmetric"]["recall"]
    lines = run(*flags).stdout.splitlines()
    assert lines[0].startswith("closed-set: each of 9 photos of 3 classes against all others, onn")
    assert [line.split()[0] for line in lines[1:]] == ["measure", "R@1", "R@2", "R@4", "R@8"]
    assert lines[2].split()[1] == f"{expected.recall[1]:.4f}"


def test_open_set(run: Run, moths: Path, bundle: Path) -> None:
    flags = ("eval", moths, "-b", bundle, "--by", "embedding", "--protocol", "open-set")
    fails(run(*flags), 1, "does not say which classes it was trained on; .*--unseen second-half")
    fails(run(*flags, "--unseen", "second-half"), 1, "open-set: all photos are of one class")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--by", "cosine"], "--by cosine: expected code or embedding"),
        (["--protocol", "open-set"], "--protocol open-set is of --by embedding; give both"),
        (["--unseen", "bundle"], "--unseen bundle is of --by embedding; give both"),
        (["--by", "embedding", "--protocol", "x"], "--protocol x: expected closed-set or open-set"),
        (["--by", "embedding", "--unseen", "x"], "--unseen x: expected bundle or second-half"),
        (["--by", "embedding", "--unseen", "bundle"], "--unseen bundle is of --protocol open-set"),
        (["--by", "embedding", "--report", "r"], "--report r: curves are of codes; leave out --by"),
    ],
)
def test_options_that_do_not_go_together(
    flags: list[str], words: str, run: Run, moths: Path, bundle: Path
) -> None:
    fails(run("eval", moths, "-b", bundle, *flags), 2, words)
