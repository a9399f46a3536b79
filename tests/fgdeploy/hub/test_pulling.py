"""There and back through a hub's stand-in, from the cache, and with everything that goes wrong."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import fgdeploy
from fgdeploy.bundle import open_bundle, seal
from fgdeploy.bundle.folder import read_manifest
from fgdeploy.core.errors import (
    BundleError,
    FgdeployError,
    MissingDependency,
    RemoteError,
    UsageError,
)
from fgdeploy.hub import HubAddress, hub_client, opened, pull, pulling, push
from tests.checks import refused
from tests.fgdeploy.bundle.packs import add_engine, contents, names
from tests.fgdeploy.hub.hub_stand_in import StandIn

ADDRESS = "hf://birds/eet"

# huggingface_hub 2.4 uploads without Xet in a way that httpx2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def there(hub: StandIn, own_bundle: Path) -> StandIn:
    """A hub with the bundle of `own_bundle`."""
    add_engine(own_bundle)
    push(own_bundle, ADDRESS)
    hub.asked.clear()
    return hub


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")


# --- there and back


def test_there_and_back(hub: StandIn, own_bundle: Path, tmp_path: Path) -> None:
    add_engine(own_bundle)
    pushed = push(own_bundle, ADDRESS)
    held = hub.repositories["birds/eet"]
    assert held.private and pushed.commit == held.head
    assert set(held.commits[held.head]) == {
        *("manifest.json", "model.onnx"),
        *("README.md", ".gitattributes"),
    }
    assert len(held.commits) == 2  # the first, and one
    steps: list[tuple[int, int]] = []
    bundle = pull(ADDRESS, tmp_path / "new.fgd", progress=lambda *step: steps.append(step))
    expected = contents(own_bundle)
    assert contents(bundle.path) == {n: c for n, c in expected.items() if "engines" not in n}
    size = bundle.manifest.files["model.onnx"]["bytes"]
    assert steps[-1] == (size, size)
    assert opened(pushed.address) == opened(f"{ADDRESS}@main")
    assert names(tmp_path / "cache" / "birds--eet") == [
        f".{pushed.commit}.lock",
        f"{pushed.commit}.fgd",
        "refs.json",
    ]


def test_load(there: StandIn, own_bundle: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    with fgdeploy.load(own_bundle, "onnxruntime") as near, fgdeploy.load(ADDRESS) as far:
        assert "README.md" not in names(far.bundle.path)
        np.testing.assert_array_equal(near.encode(frames), far.encode(frames))
    with fgdeploy.load(Path(ADDRESS)) as far:  # a path joins the slashes
        assert far.bundle.path.suffix == ".fgd"


def test_a_commit_is_asked_for_once_and_a_name_each_time(there: StandIn, own_bundle: Path) -> None:
    first = opened(ADDRESS)
    assert sorted(there.fetched()) == ["manifest.json", "model.onnx"]
    assert opened(ADDRESS) == first and there.fetched() == []
    fixed = f"{ADDRESS}@{there.repositories['birds/eet'].head}"
    assert opened(fixed) == first and there.asked == []
    open_bundle(own_bundle).record_parity({"photos": 3})
    push(own_bundle, ADDRESS)
    there.asked.clear()
    assert opened(ADDRESS).manifest.parity == {"photos": 3}
    assert opened(fixed).manifest.parity is None


def test_a_push_again_sends_what_is_new_and_removes_what_is_gone(
    there: StandIn, own_bundle: Path
) -> None:
    (own_bundle / "more.bin").write_bytes(bytes(5000))
    seal(own_bundle, open_bundle(own_bundle).manifest)
    push(own_bundle, ADDRESS)
    sent = [one for one in there.asked if one.startswith("PUT")]
    assert 1 <= len(sent) <= 2  # not the graph, which is there
    (own_bundle / "more.bin").unlink()
    seal(own_bundle, read_manifest(own_bundle / "manifest.json"))
    there.asked.clear()
    push(own_bundle, ADDRESS)
    held = there.repositories["birds/eet"]
    assert "more.bin" not in held.commits[held.head]


def test_a_page_that_people_wrote_stays(there: StandIn, own_bundle: Path) -> None:
    held = there.repositories["birds/eet"]
    assert b"written by fgdeploy push" in held.commits[held.head]["README.md"]
    held.commits[held.head]["README.md"] = b"mine"
    push(own_bundle, ADDRESS)
    assert held.commits[held.head]["README.md"] == b"mine"


def test_a_push_that_broke_off_goes_on(hub: StandIn, own_bundle: Path) -> None:
    hub.refuse_uploads_from = 0
    (own_bundle / "more.bin").write_bytes(os.urandom(5000))
    seal(own_bundle, open_bundle(own_bundle).manifest)
    with refused(RemoteError, f"{ADDRESS}: the hub refuses with 400"):
        push(own_bundle, ADDRESS)
    assert set(hub.repositories["birds/eet"].commits[hub.repositories["birds/eet"].head]) == {
        ".gitattributes"
    }
    hub.refuse_uploads_from = 1 << 60
    push(own_bundle, ADDRESS)
    assert opened(ADDRESS).manifest == open_bundle(own_bundle).manifest


# --- without network


def test_without_network_the_cache_serves(there: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    first = opened(ADDRESS)
    no_network(monkeypatch)
    assert opened(ADDRESS, notify=said.append) == first
    assert "cannot be reached" in said[0] and "of the cache" in said[0]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    said.clear()
    assert opened(ADDRESS, notify=said.append) == first and said == []
    with refused(RemoteError, "birds/none is not in the cache, and HF_HUB_OFFLINE is set; fetch"):
        opened("hf://birds/none")
    with refused(RemoteError, "cannot be pushed to while HF_HUB_OFFLINE is set"):
        push(first.path, ADDRESS)


def test_neither_network_nor_cache(there: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    no_network(monkeypatch)
    with refused(RemoteError, "the hub cannot be reached, .*; fetch it once where there is netw"):
        opened(ADDRESS)


def test_a_damaged_cache_is_fetched_again_or_refused(
    there: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    first = opened(ADDRESS)
    whole = contents(first.path)
    with open(first.path / "model.onnx", "r+b") as stream:
        stream.write(b"evil")
    assert contents(opened(ADDRESS, notify=said.append).path) == whole
    assert "what is cached is damaged" in said[0] and "fetching it again" in said[0]
    (first.path / "manifest.json").write_text("{}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with refused(RemoteError, "manifest.json.*cannot be fetched again while HF_HUB_OFFLINE"):
        opened(ADDRESS)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    (first.path / "manifest.json").unlink()
    (first.path / "manifest.json").symlink_to("/etc/passwd")
    assert contents(opened(ADDRESS).path) == whole


def test_a_damaged_list_of_names_is_made_again(there: StandIn, tmp_path: Path) -> None:
    first = opened(ADDRESS)
    refs = tmp_path / "cache" / "birds--eet" / "refs.json"
    for text in ("", "[]", '{"main": "../../x"}', '{"main": 3}'):
        refs.write_text(text)
        assert opened(ADDRESS) == first
    assert json.loads(refs.read_text()) == {"main": first.path.stem}


# --- what a hub does wrong


def test_it_breaks_off_and_goes_on(there: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import file_download

    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None, raising=False)
    there.cut["model.onnx"] = 500
    bundle = opened(ADDRESS)  # the client asks for the rest by itself
    assert bundle.manifest.files["model.onnx"]["bytes"] > 500


def _other_graph(held: bytes) -> bytes:
    return held[:-1] + bytes([held[-1] ^ 1])


FAULTS: dict[str, tuple[Callable[[StandIn], object], type[FgdeployError], str]] = {
    "another file": (
        lambda hub: hub.harm.update({"model.onnx": _other_graph}),
        RemoteError,
        "hf://birds/eet: model.onnx: its sha256 is not the one in manifest.json.*nothing of it was",
    ),
    "a manifest that is none": (
        lambda hub: hub.harm.update({"manifest.json": lambda held: b"x" * len(held)}),
        RemoteError,
        "manifest.json is not JSON .*nothing of it was kept",
    ),
    "a manifest of other files": (
        lambda hub: _of(hub).update({"model.onnx": b"short"}),
        RemoteError,
        "lists model.onnx with .* bytes, the hub has 5; push the bundle again",
    ),
    "no manifest": (
        lambda hub: _of(hub).pop("manifest.json"),
        RemoteError,
        "holds no manifest.json, so it is no bundle; check the name",
    ),
    "a file that is gone": (
        lambda hub: _of(hub).pop("model.onnx"),
        RemoteError,
        "the hub has no such file; push the bundle again",
    ),
    "no such repository": (
        lambda hub: hub.repositories.clear(),
        RemoteError,
        "no such repository, or it is private; check the name, and log in",
    ),
    "gated": (
        lambda hub: setattr(hub.repositories["birds/eet"], "gated", True),
        RemoteError,
        "its owner lets only some in; ask him on its page, and log in",
    ),
    "401": (lambda hub: setattr(hub, "status", 401), RemoteError, "log in with: hf auth login"),
    "403": (lambda hub: setattr(hub, "status", 403), RemoteError, "this token may not do that"),
    "404": (lambda hub: setattr(hub, "status", 404), RemoteError, "the hub refuses with 404"),
    "503": (lambda hub: setattr(hub, "status", 503), RemoteError, "the hub answers 503; .*fetch"),
}


def _of(hub: StandIn) -> dict[str, bytes]:
    held = hub.repositories["birds/eet"]
    return held.commits[held.head]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_line_and_leaves_nothing(fault: str, there: StandIn, tmp_path: Path) -> None:
    harm, kind, words = FAULTS[fault]
    harm(there)
    (tmp_path / "out").mkdir()
    with refused(kind, words):
        pull(ADDRESS, tmp_path / "out" / "new.fgd")
    assert names(tmp_path / "out") == []
    cache = tmp_path / "cache"
    assert not list(cache.rglob("*.fgd")) if cache.exists() else True


def test_a_private_repository_without_a_token(
    there: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with refused(RemoteError, "no such repository, or it is private"):
        opened(ADDRESS)
    with refused(RemoteError, "log in with: hf auth login, or set HF_TOKEN"):
        push(next(Path(os.environ["FGDEPLOY_HUB_CACHE"]).parent.glob("own.fgd")), ADDRESS)


def test_revisions(there: StandIn) -> None:
    with refused(RemoteError, f"{ADDRESS}@v9: it has no branch, tag or commit v9"):
        opened(f"{ADDRESS}@v9")
    with refused(UsageError, "a push goes to the main branch; leave out @v1"):
        push("none.fgd", f"{ADDRESS}@v1")
    for text in ("hf://a", "hf://a/b/c", "hf://../b", "hf://a/b@", "hf://a/b@../x", "hf://a/-b"):
        with refused(UsageError, "is no address of a hub; expected hf://OWNER/NAME"):
            opened(text)


def test_a_name_that_leaves_the_bundle(there: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    from fgdeploy.bundle.manifest import digest

    entry = json.loads(_of(there)["manifest.json"])
    entry["files"]["../evil.bin"] = {"sha256": "ab" * 32, "bytes": 4}
    entry["digest"] = digest(entry)
    _of(there)["manifest.json"] = json.dumps(entry).encode()
    _of(there)["../evil.bin"] = b"evil"
    with refused(RemoteError, "holds '../evil.bin', which leaves the bundle"):
        opened(ADDRESS)
    assert there.fetched() == ["manifest.json"]


def test_a_bundle_that_does_not_verify_is_not_pushed(hub: StandIn, own_bundle: Path) -> None:
    with open(own_bundle / "model.onnx", "ab") as stream:
        stream.write(b"x")
    with refused(BundleError, "model.onnx: expected"):
        push(own_bundle, ADDRESS)
    assert hub.asked == []


def test_a_cache_that_cannot_be_written(
    there: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FGDEPLOY_HUB_CACHE", str(tmp_path / "file"))
    with refused(RemoteError, "cannot be written .* name another cache in FGDEPLOY_HUB_CACHE"):
        opened(ADDRESS)


def test_a_disk_that_is_full(there: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    full = SimpleNamespace(disk_usage=lambda path: SimpleNamespace(free=10))
    monkeypatch.setattr(pulling, "shutil", full)
    with refused(RemoteError, "needs .* MB, .* has 0.0 MB free"):
        opened(ADDRESS)


def test_without_the_package(there: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(ADDRESS)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with refused(MissingDependency, "needs the package huggingface-hub"):
        opened(f"{ADDRESS}@v9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert opened(ADDRESS).path.is_dir()  # what is cached needs no client


def test_signed_on_a_hub(hub: StandIn, own_bundle: Path, tmp_path: Path) -> None:
    from fgdeploy.bundle import signing
    from tests.fgdeploy.bundle.owners import owner

    mine, other = owner(tmp_path / "mine"), owner(tmp_path / "other")
    bundle = open_bundle(own_bundle)
    signing.write(bundle, signing.sign(bundle, mine.private))
    push(own_bundle, ADDRESS)
    assert opened(ADDRESS, verify=mine.public).owner == mine.public
    hub.fetched()
    with refused(BundleError, "was not signed with the key of .*other/pub.pem"):
        opened(ADDRESS, verify=other.public)
    assert hub.fetched() == []  # it is whole, so nothing is fetched again


def test_a_hub_without_xet_is_said(hub: StandIn, own_bundle: Path) -> None:
    words = "HTTP status client error (404 Not Found) /api/models/birds/eet/xet-write-token/main"
    found = hub_client.said(HubAddress.parse(ADDRESS), OSError(words))
    assert str(found).endswith("does not take files through Xet; set HF_HUB_DISABLE_XET=1")
