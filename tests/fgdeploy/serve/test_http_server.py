"""The service in a process of its own: many clients, bad clients, signals, a kill."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fgdeploy.core.errors import UsageError
from fgdeploy.hasher import load
from fgdeploy.retrieval import Index
from fgdeploy.serve.http_server import ListenError, address_of, bound
from tests.checks import refused
from tests.fgdeploy.serve.asking import (
    JPEG,
    WAIT,
    Running,
    exchange,
    photo,
    place,
    received,
    serving,
)

HEAD = "POST /hash HTTP/1.1\nHost: localhost\nContent-Type: image/jpeg\n"


@pytest.fixture(scope="module")
def running(toy_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    index = place(tmp_path_factory.mktemp("served"))
    limits = ("--max-upload", "0.5", "--timeout", "1.5", "--backend", "onnxruntime")
    with serving("-b", toy_bundle, "-i", index, *limits) as found:
        yield found


def test_it_says_what_it_serves_and_where(running: Running, toy_bundle: Path) -> None:
    tested, made, said = running.said[:3]
    assert tested.startswith("self-test of onnxruntime fp32")
    assert made.startswith("made ") and "gallery.fgi, which is empty" in made
    assert said.startswith(f"serving {toy_bundle} on onnxruntime fp32")
    assert "(0 items)" in said and said.endswith("Ctrl-C ends it")


def test_eight_clients_get_the_codes_of_the_library(running: Running, toy_bundle: Path) -> None:
    photos = [photo(seed) for seed in range(8)]
    with load(toy_bundle, "onnxruntime") as hasher:
        expected = [code.tobytes().hex() for code in hasher.encode(photos)]
    wrong: list[object] = []

    def ask(first: int) -> None:
        with httpx.Client(timeout=WAIT) as client:
            for turn in range(12):
                which = (first + turn) % len(photos)
                answer = client.post(running.url("/hash"), content=photos[which], headers=JPEG)
                if answer.status_code != 200 or answer.json()["code"] != expected[which]:
                    wrong.append(answer.text)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert wrong == [] and not any(thread.is_alive() for thread in threads)


def test_a_declared_size_is_refused_before_the_body_comes(running: Running) -> None:
    status, told = exchange(running, HEAD + "Content-Length: 999999999\n\n")
    assert (status, told["kind"]) == (413, "too_long")


def test_a_huge_body_is_refused_while_it_comes(running: Running) -> None:
    body = b"x" * 2_000_000
    head = HEAD + "Transfer-Encoding: chunked\n\n" + f"{len(body):x}\n"
    status, told = exchange(running, head, body + b"\r\n0\r\n\r\n")
    assert (status, told["kind"]) == (413, "too_long")


def test_a_slow_body_is_given_up(running: Running) -> None:
    status, told = exchange(running, HEAD + "Content-Length: 1000\n\n", b"x" * 10)
    assert (status, told["kind"]) == (408, "slow")


def test_a_cut_upload_and_garbage_leave_it_alive(running: Running) -> None:
    with running.connect() as line:
        line.sendall((HEAD + "Content-Length: 1000\n\n").replace("\n", "\r\n").encode() + b"x" * 9)
    with running.connect() as line:
        line.sendall(b"\x16\x03\x01 no HTTP at all\r\n\r\n")
        assert b" 400 " in line.recv(1000)
    assert httpx.get(running.url("/healthz")).json() == {"state": "alive"}
    text = httpx.get(running.url("/metrics")).text
    assert "fgdeploy_uploads 0.0" in text


def test_a_second_one_at_the_port_is_told_in_one_line(running: Running) -> None:
    with refused(ListenError, "another program listens there; choose another --port"):
        bound("127.0.0.1", running.port)


def test_addresses() -> None:
    with bound("127.0.0.1", 0) as one:
        assert address_of(one) == f"http://127.0.0.1:{one.getsockname()[1]}"
    with refused(UsageError, "no address"):
        bound("no.such.host.invalid", 80)
    with refused(ListenError, "choose another --host"):
        bound("192.0.2.1", 0)  # of no machine


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_what_was_acknowledged(
    toy_bundle: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with serving("-b", toy_bundle, "-i", place(tmp_path), "--backend", "onnxruntime") as found:
        url = found.url("/items?uri=cam://1")
        assert httpx.post(url, content=photo(1), headers=JPEG, timeout=WAIT).status_code == 201
        with found.connect() as slow:  # an upload that would never end
            slow.sendall((HEAD + "Content-Length: 999\n\n").replace("\n", "\r\n").encode())
            found.process.send_signal(number)
            assert found.ended() == 0, found.said
    assert found.said[-1] == "ended; all that was acknowledged is on the disk"
    with Index.open(place(tmp_path)) as index:
        assert [item.path for item in index.items()] == ["cam://1"]


def test_a_kill_loses_nothing_that_was_acknowledged(toy_bundle: Path, tmp_path: Path) -> None:
    acknowledged: list[str] = []
    enough = threading.Event()

    def enrol(found: Running, first: int) -> None:
        for number in range(first, 10_000, 2):
            try:
                url = found.url(f"/items?uri=cam://{number}")
                answer = httpx.post(url, content=photo(number), headers=JPEG, timeout=WAIT)
            except httpx.HTTPError:
                return
            if answer.status_code == 201:
                acknowledged.append(f"cam://{number}")
            if len(acknowledged) >= 12:
                enough.set()

    with serving("-b", toy_bundle, "-i", place(tmp_path), "--backend", "onnxruntime") as found:
        threads = [threading.Thread(target=enrol, args=(found, first)) for first in (0, 1)]
        for thread in threads:
            thread.start()
        assert enough.wait(WAIT)
        found.process.kill()
        for thread in threads:
            thread.join(WAIT)
    with Index.open(place(tmp_path)) as index:
        assert index.verify() == []
        there = {item.path for item in index.items()}
    assert set(acknowledged) <= there
    assert len(there) <= len(acknowledged) + 2  # one under way for each client


def test_a_request_under_way_is_answered_at_the_end(toy_bundle: Path, tmp_path: Path) -> None:
    body = photo(1)
    with (
        serving("-b", toy_bundle, "--backend", "onnxruntime") as found,
        found.connect() as line,
    ):
        head = HEAD + f"Content-Length: {len(body)}\n\n"
        line.sendall(head.replace("\n", "\r\n").encode() + body[:-1])
        assert httpx.get(found.url("/readyz")).status_code == 200
        found.process.terminate()
        while True:  # it accepts nothing new from now on
            try:
                found.connect().close()
            except ConnectionError:
                break
        line.sendall(body[-1:])
        line.settimeout(WAIT)
        status, told = received(line)
        assert (status, told["bits"]) == (200, 12)
        assert found.ended() == 0


def test_a_request_that_does_not_end_in_time_is_told_so(toy_bundle: Path) -> None:
    with (
        serving("-b", toy_bundle, "--backend", "onnxruntime") as found,
        found.connect() as line,
    ):
        line.sendall((HEAD + "Content-Length: 99\n\n").replace("\n", "\r\n").encode())
        assert httpx.get(found.url("/readyz")).status_code == 200
        found.process.terminate()  # and the body never comes
        line.settimeout(WAIT)
        status, told = received(line)
        assert (status, told["kind"]) == (503, "not_ready")
        assert "the service ends" in str(told["error"])
        assert found.ended() == 0
    assert "Traceback" not in "".join(found.said)


def test_a_socket_is_not_open_before_the_model_is(tmp_path: Path) -> None:
    with bound("127.0.0.1", 0) as waiting:
        address = waiting.getsockname()
        with pytest.raises(ConnectionRefusedError), socket.create_connection(address, timeout=5):
            pass
