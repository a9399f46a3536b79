"""What a service manager hears, on a socket of the test."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from fgdeploy.live.service_manager import Heartbeat, ServiceManager


@pytest.fixture
def inlet(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inlet:
        inlet.bind(str(tmp_path / "notify"))
        inlet.settimeout(10)
        yield inlet


def _manager(inlet: socket.socket, **more: str) -> ServiceManager:
    name = inlet.getsockname()
    if isinstance(name, bytes):
        name = "@" + name[1:].decode()
    return ServiceManager({"NOTIFY_SOCKET": name, **more})


def _silent(inlet: socket.socket) -> bool:
    inlet.setblocking(False)
    try:
        inlet.recv(100)
    except BlockingIOError:
        return True
    finally:
        inlet.settimeout(10)
    return False


def test_the_manager_hears_each_state(inlet: socket.socket) -> None:
    manager = _manager(inlet)
    manager.ready("eet.fgd on openvino int8")
    assert inlet.recv(100) == b"READY=1\nSTATUS=eet.fgd on openvino int8"
    manager.ready()
    assert inlet.recv(100) == b"READY=1"
    manager.alive()
    assert inlet.recv(100) == b"WATCHDOG=1"
    manager.stopping()
    assert inlet.recv(100) == b"STOPPING=1"


def test_a_socket_without_a_file() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inlet:
        inlet.bind(f"\0fgdeploy-test-{os.getpid()}")
        inlet.settimeout(10)
        _manager(inlet).ready()
        assert inlet.recv(100) == b"READY=1"


@pytest.mark.parametrize("name", ["", "vsock:2:99", "relative"])
def test_without_a_manager_nothing_is_sent(name: str) -> None:
    manager = ServiceManager({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000"})
    manager.ready()
    manager.alive()
    assert manager.patience is None
    with Heartbeat(manager, lambda: 1) as heartbeat:
        assert heartbeat._thread is None


def test_a_manager_that_has_gone_stops_no_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()
    assert 'manager_unheard said="READY=1"' in caplog.text


@pytest.mark.parametrize(
    ("given", "patience"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_how_long_the_manager_waits(
    inlet: socket.socket, given: dict[str, str], patience: float | None
) -> None:
    assert _manager(inlet, **given).patience == patience


def test_work_that_stops_is_not_called_alive(
    inlet: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    done: list[int | None] = [1]
    heartbeat = Heartbeat(_manager(inlet), lambda: done[0])  # never asked for, so no thread
    assert heartbeat.check()
    assert inlet.recv(100) == b"WATCHDOG=1"
    assert not heartbeat.check()
    assert not heartbeat.check()
    assert _silent(inlet)
    assert caplog.text.count("stalled at=1") == 1
    done[0] = 2
    assert heartbeat.check()
    done[0] = None  # nothing to do is no fault, however long
    assert heartbeat.check()
    assert heartbeat.check()


def test_beats_come_by_themselves_and_end(inlet: socket.socket) -> None:
    manager = _manager(inlet, WATCHDOG_USEC="30000")
    with Heartbeat(manager, lambda: None) as heartbeat:
        assert [inlet.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    assert heartbeat._thread is not None and not heartbeat._thread.is_alive()
