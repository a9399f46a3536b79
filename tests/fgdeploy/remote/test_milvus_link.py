"""Servers that are away, silent, too old, guarded or killed: one line each, no password in it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fgdeploy.core.errors import MissingDependency, RemoteError, UsageError
from fgdeploy.remote import milvus_link
from fgdeploy.remote.adapters import connect, table_at
from fgdeploy.remote.milvus_link import MilvusLink
from fgdeploy.remote.milvus_table import MilvusTable
from fgdeploy.remote.push_record import PushRecord
from fgdeploy.remote.pushing import push
from fgdeploy.retrieval import Index
from tests.checks import refused
from tests.fgdeploy.remote.conftest import MODEL
from tests.fgdeploy.remote.milvus_server import MilvusOfTests


@pytest.fixture(autouse=True)
def _client() -> None:
    pytest.importorskip("pymilvus", exc_type=ImportError)


@pytest.fixture
def silent() -> Iterator[int]:
    """Give the port of a server that takes connections and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(8)
        yield int(listening.getsockname()[1])


def test_no_server_and_a_silent_one(silent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILVUS_TOKEN", "root:hunter2")
    for place in ("127.0.0.1:1", f"127.0.0.1:{silent}", "nowhere.invalid"):
        start = time.monotonic()
        with pytest.raises(RemoteError) as caught:
            connect(f"milvus://{place}/birds")
        assert time.monotonic() - start < 30
        assert str(caught.value) == (
            f"milvus://{place}/birds does not answer (connecting); is the server up, and the "
            "address right?"
        )


def test_a_server_that_is_too_old_or_unknown_is_told(
    milvus: MilvusOfTests, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, call = f"{milvus.address}/none", MilvusLink.call

    def old(self: MilvusLink, method: str, *arguments: object, **options: object) -> object:
        return "v2.2.16" if method == "get_server_version" else call(self, method, *arguments)

    monkeypatch.setattr(MilvusLink, "call", old)
    with refused(RemoteError, r"is Milvus v2\.2\.16; expected 2\.3 or newer"):
        connect(address)
    monkeypatch.undo()
    with refused(RemoteError, "nothing is at"):
        connect(address)
    with refused(RemoteError, r"nothing is at .*\?db=nowhere; fill it"):
        connect(f"{address}?db=nowhere")
    with refused(RemoteError, "secure=true does not answer"):
        connect(f"{address}?secure=true")


def test_a_password_is_in_no_message(
    milvus: MilvusOfTests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILVUS_TOKEN", "root:hunter2")
    with table_at(f"{milvus.address}/none") as table:
        assert isinstance(table, MilvusTable)
        link = table._link
        assert "hunter2" not in repr(link.place)
        for error in (Exception("root:hunter2 is wrong"), Exception("auth check failure hunter2")):
            told = link._failed("search", error)
            assert "hunter2" not in str(told)
        assert "set MILVUS_TOKEN" in str(told)


def test_what_cannot_note_how_far_a_push_is_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Milvus Lite 2.5.1, which has no alter_collection_properties."""
    pytest.importorskip("milvus_lite", exc_type=ImportError)

    def refuse(self: MilvusTable, record: PushRecord) -> None:
        raise milvus_link.MilvusRefusal("not implemented")

    monkeypatch.setattr(MilvusTable, "write_record", refuse)
    with (
        Index.create(tmp_path / "gallery.fgi", MODEL, 64) as index,
        table_at(f"milvus+lite://{tmp_path}/x.db/birds") as table,
    ):
        with refused(RemoteError, "cannot change a collection's properties"):
            push(index, table)
        assert table.record() is None


def test_without_pymilvus_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with refused(MissingDependency, r"pymilvus, which is not installed; run: pip.*\[milvus\]"):
        connect("milvus://127.0.0.1:1/birds")


def test_a_file_that_is_not_there_is_not_made_by_a_search(tmp_path: Path) -> None:
    pytest.importorskip("milvus_lite", exc_type=ImportError)
    with refused(RemoteError, "nothing is at milvus.lite://"):
        connect(f"milvus+lite://{tmp_path}/none.db/birds")
    assert list(tmp_path.iterdir()) == []
    with (
        Index.create(tmp_path / "gallery.fgi", MODEL, 64) as index,
        table_at(f"milvus+lite://{tmp_path}/no/x.db/birds") as table,
        refused(RemoteError, "no folder .*/no; make it first"),
    ):
        push(index, table)


_OPEN_IT = """
import sys
from fgdeploy.core.errors import RemoteError
from fgdeploy.remote.adapters import connect

try:
    connect(sys.argv[1])
except RemoteError as error:
    print(error)
"""


@pytest.mark.parametrize("what", ["foreign", "open", "guarded"])
def test_what_libraries_log_of_a_failure_is_not_shown(
    what: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """In a process of its own, whose stderr is looked at: gRPC writes there by itself."""
    pytest.importorskip("milvus_lite", exc_type=ImportError)
    address, told = f"milvus+lite://{tmp_path}/x.db/birds", "cannot be opened: another process"
    with contextlib.ExitStack() as stack:
        if what == "foreign":
            (tmp_path / "x.db").write_text("something else", encoding="utf-8")
        elif what == "open":
            index = stack.enter_context(Index.create(tmp_path / "gallery.fgi", MODEL, 64))
            push(index, stack.enter_context(table_at(address)))
        else:
            server: MilvusOfTests = request.getfixturevalue("milvus")
            address, told = f"{server.address}/birds?secure=true", "does not answer (connecting)"
        ended = subprocess.run(
            [sys.executable, "-c", _OPEN_IT, address], capture_output=True, text=True, timeout=60
        )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith(f"{address} {told}") and ended.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("milvus://localhost", "expected the name of a collection at its end"),
        ("milvus://localhost/a-b", "expected the name of a collection at its end"),
        ("milvus:///birds", "no host; expected milvus://HOST"),
        ("milvus://localhost/birds?secure=yes", "secure is true or false"),
        ("milvus://localhost/birds?table=x", "unknown option 'table'; expected db, secure"),
        ("milvus://anna@localhost/birds", "a user stands in the environment"),
        ("milvus+lite:///tmp/gallery/birds", "expected a file NAME.db before /COLLECTION"),
        ("gallery.fgi", "'gallery.fgi' is no address; expected one of milvus://"),
        ("", "'' is no address"),
        ("mongo://localhost/birds", "no server is known by mongo://; expected one of milvus://"),
    ],
)
def test_addresses_that_can_never_be_right(address: str, words: str) -> None:
    with refused(UsageError, words):
        table_at(address)
