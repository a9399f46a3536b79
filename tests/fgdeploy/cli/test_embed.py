"""`fgdeploy index embed`, and `--embeddings` and `--rerank embedding` beside it, as typed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

from fgdeploy.core.cosine import cosines, unit
from fgdeploy.hasher import load
from fgdeploy.retrieval import Index
from fgdeploy.retrieval.store.int8_rows import quantised, restored
from tests.fgdeploy.cli.conftest import Run
from tests.fgdeploy.cli.outcome import fails

IN = ("-i", "g.fgi")


@pytest.fixture
def photos(moths: Path) -> list[Path]:
    """All photos, in the order of their ids from 1 on."""
    return sorted(moths.rglob("*.jpg"))


def hits_of(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)["hits"]
    return found


def checked(run: Run, photos: list[Path], bundle: Path, kind: str) -> None:
    """Hold an answer over the whole index to cosines of embeddings as the engine gives them."""
    flags = ("-b", bundle, "-k", "18", "--rerank", "embedding", "--json")
    found = hits_of(run("search", photos[6], *IN, *flags))
    with load(bundle) as hasher:
        rows = hasher.encode_full(photos).embedding
    assert rows is not None
    kept = restored(*quantised(rows)) if kind == "int8" else rows.astype(np.float64)
    costs = 1 - cosines(unit(rows[6]), unit(kept))
    assert [hit["cost"] for hit in found] == pytest.approx(
        [costs[hit["id"] - 1] for hit in found], abs=1e-6
    )
    order = [(hit["cost"], hit["distance"], hit["id"]) for hit in found]
    assert order == sorted(order)
    assert found[0]["id"] == 7
    assert len(found) == 18


@pytest.mark.parametrize("kind", ["float", "int8"])
def test_photos_are_added_with_their_embeddings(
    kind: str, run: Run, moths: Path, photos: list[Path], bundle: Path
) -> None:
    done = run("index", "add", "g.fgi", moths, "-b", bundle, "--embeddings", kind)
    assert done.exit_code == 0, done.output
    checked(run, photos, bundle, kind)
    again = run("index", "add", "g.fgi", moths, "-b", bundle)
    assert "added 0 photos, 18 there already" in again.output
    shown = run("search", photos[6], *IN, "-b", bundle, "--rerank", "embedding", "-k", "3")
    assert shown.stdout.splitlines()[1].split()[:4] == ["rank", "distance", "cost", "id"]
    stats = json.loads(run("index", "stats", "g.fgi", "--json").stdout)["embeddings"]
    assert (stats["kind"], stats["files"][0][1]) == (kind, 18)
    assert f"embeddings  {kind}, " in run("index", "stats", "g.fgi").stdout
    other = "int8" if kind == "float" else "float"
    run("index", "add", "h.fgi", photos[0], "-b", bundle)
    later = run("index", "add", "h.fgi", moths, "-b", bundle, "--embeddings", other)
    assert "1 item of h.fgi without embeddings so far; make them with: fgdeploy" in later.output
    assert "17 photos" in later.output
    assert "embedded 1 photo, 17 there already" in run("index", "embed", "h.fgi").output
    words = f"--embeddings {other}: g.fgi keeps them as {kind}; to change that: fgdeploy index emb"
    fails(run("index", "add", "g.fgi", moths, "-b", bundle, "--embeddings", other), 2, words)


def test_an_index_of_before(
    run: Run, gallery: Path, photos: list[Path], bundle: Path, tmp_path: Path
) -> None:
    flags = ("search", photos[6], *IN, "-b", bundle, "--rerank", "embedding")
    fails(run(*flags), 1, "g.fgi keeps no embeddings, .* make them from its photos with: fgdeploy ")
    assert "none; `index embed` makes them" in run("index", "stats", "g.fgi").stdout
    fails(run("index", "embed", "g.fgi", "-b", bundle), 2, "say how: --embeddings float or int8")
    done = run("index", "embed", "g.fgi", "-b", bundle, "--embeddings", "float")
    assert "embedded 18 photos, 0 there already, 18 in g.fgi; next: fgdeploy search" in done.output
    checked(run, photos, bundle, "float")
    exported = run("index", "export", "g.fgi", "all.jsonl")
    assert "without embeddings (`index embed` makes them again)" in exported.output
    run("index", "import", "h.fgi", "all.jsonl")
    fails(run(*flags[:2], "-i", "h.fgi", *flags[4:]), 1, "h.fgi keeps no embeddings")
    (victim,) = gallery.glob("embeddings-*.rows")
    victim.write_bytes(victim.read_bytes()[:-1])
    fails(run(*flags), 1, f"{victim.name}: its size .* search without, or make them again from")
    assert run(*flags[:-2]).exit_code == 0
    verified = run("index", "verify", "g.fgi")
    assert verified.exit_code == 0
    assert "note: embeddings: " in verified.stdout
    shutil.rmtree(tmp_path / "h.fgi")
    mended = run("index", "embed", "-b", bundle)
    assert f"{victim.name}: its size" in mended.output
    assert "embedded 18 photos" in mended.output
    checked(run, photos, bundle, "float")
    dropped = run("index", "embed", "g.fgi", "--embeddings", "none")
    assert "g.fgi keeps no embeddings any more" in dropped.output
    assert list(gallery.glob("embeddings-*")) == []
    fails(run(*flags), 1, "keeps no embeddings")
    kept_none = run("index", "embed", "g.fgi", "--embeddings", "none")
    assert "g.fgi keeps no embeddings and kept none" in kept_none.output


def test_photos_that_are_gone_are_named(
    run: Run, moths: Path, bundle: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(moths, tmp_path / "copy"))
    run("index", "add", "g.fgi", copy, "-b", bundle)
    gone = sorted(copy.rglob("*.jpg"))[4]
    gone.unlink()
    done = run("index", "embed", "g.fgi", "-b", bundle, "--embeddings", "int8")
    assert done.exit_code == 3  # some were skipped
    assert f"{gone.name}: no longer there" in done.output
    assert "embedded 17 photos" in done.output
    fails(run("index", "embed", "g.fgi", "-b", bundle, "--strict"), 1, "no longer there; nothing")
    verified = run("index", "verify", "g.fgi").stdout
    assert "note: embeddings: 1 item without; make them from the photos" in verified


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--rerank", "cosine"], "--rerank cosine: expected asymmetric or embedding"),
        (["--rerank", "embedding", "--radius", "2"], "orders the -k nearest; leave out --radius"),
        (["--pool", "30"], "--pool 30 is of --rerank; give both"),
        (["--rerank", "embedding", "--pool", "5"], "--pool 5: expected -k, 10, or more"),
    ],
)
def test_what_can_never_be_right(flags: list[str], words: str, run: Run) -> None:
    fails(run("search", "x.jpg", *flags), 2, words)


def test_a_code_has_no_embedding(run: Run) -> None:
    for query in (["--code", "00000000"], ["--id", "1"], ["--codes", "c.npz"]):
        words = "--rerank embedding needs embeddings, which only photos have; leave out --id"
        fails(run("search", *query, *IN, "--rerank", "embedding"), 2, words)


def test_no_kind(run: Run, moths: Path) -> None:
    words = "--embeddings half: expected float or int8"
    fails(run("index", "add", "g.fgi", moths, "--embeddings", "half"), 2, words)
    fails(run("index", "embed", "g.fgi", "--embeddings", "half"), 2, f"{words} or none")


def test_the_pool(run: Run, gallery: Path, photos: list[Path], bundle: Path) -> None:
    run("index", "embed", "g.fgi", "-b", bundle, "--embeddings", "float")
    flags = ("search", photos[6], *IN, "-b", bundle, "--json", "-k", "3")
    plain = hits_of(run(*flags))
    ranked = hits_of(run(*flags, "--rerank", "embedding", "--pool", "3"))
    assert {hit["id"] for hit in plain} == {hit["id"] for hit in ranked}
    with Index.open(gallery) as index:
        assert len(index) == 18
