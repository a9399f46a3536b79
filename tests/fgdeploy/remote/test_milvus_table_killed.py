"""A server that is killed in a push. Beside the others, last, as it ends the server they share."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from fgdeploy.core.errors import RemoteError
from fgdeploy.remote import milvus_link
from fgdeploy.remote.adapters import connect, table_at
from fgdeploy.remote.pushing import push, row_of
from fgdeploy.retrieval import Index
from tests.checks import refused
from tests.fgdeploy.remote.conftest import MODEL
from tests.fgdeploy.remote.milvus_server import MilvusOfTests, NotBack


def test_a_server_that_is_killed_in_a_push(
    milvus: MilvusOfTests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was acknowledged stays, and the same push goes on: nothing twice, nothing lost."""
    monkeypatch.setattr(milvus_link, "CALL_S", 3.0)
    address, batch = f"{milvus.address}/killed", 2000
    codes = np.random.default_rng(0).integers(0, 256, (30_000, 8), dtype=np.uint8)
    with Index.create(tmp_path / "gallery.fgi", MODEL, 64) as index:
        index.add_codes(codes)
        ended: list[threading.Thread] = []

        def told(done: int, total: int) -> None:
            if done >= 4 * batch and not ended:
                ended.append(threading.Thread(target=milvus.kill))
                ended[0].start()

        try:
            with table_at(address) as table, refused(RemoteError, "run it again to go on$"):
                push(index, table, batch=batch, progress=told)
        finally:
            for thread in ended:
                thread.join(timeout=60)
        try:
            milvus.start()
        except NotBack as error:
            pytest.skip(f"what a kill left of Milvus 2.3.5 does not start: {error}")
        monkeypatch.undo()
        with refused(RemoteError, "the push to .* has not ended, so answers would be missing"):
            connect(address)
        with table_at(address) as table:
            done = push(index, table, batch=batch)
            assert done.items == 30_000
            assert 0 < done.sent <= 30_000 - 4 * batch
            assert len(table) == 30_000
            numbers = [1, 7999, 8001, 30_000]
            assert table.rows(numbers) == {row[0]: row for row in map(row_of, index.get(numbers))}
        with connect(address) as remote:
            assert remote.search(codes[:3], 50) == index.search(codes[:3], 50)
