"""Opening and closing OpenVINO engines leaves a thread's signal stack as it was."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import fgdeploy

pytest.importorskip("openvino", reason="openvino is not installed")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signal stacks of Linux")


class SignalStack(ctypes.Structure):
    """`stack_t` of sigaltstack(2)."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    )


def signal_stack() -> tuple[int | None, int]:
    """Return address and size of this thread's signal stack."""
    found = SignalStack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found)) == 0
    return found.address, found.size


@pytest.fixture
def before() -> Iterator[tuple[int | None, int]]:
    found = signal_stack()
    yield found
    assert signal_stack() == found


def test_while_it_is_open_and_afterwards(toy_bundle: Path, before: tuple[int | None, int]) -> None:
    with fgdeploy.load(toy_bundle, "openvino"):
        assert signal_stack() == before


def test_closed_in_the_order_that_they_were_opened(
    toy_bundle: Path, before: tuple[int | None, int]
) -> None:
    first, second = (fgdeploy.load(toy_bundle, "openvino") for _ in range(2))
    first.close()
    del first
    assert signal_stack() == before
    second.close()


def test_closed_by_another_thread(toy_bundle: Path, before: tuple[int | None, int]) -> None:
    opened = [fgdeploy.load(toy_bundle, "openvino")]
    with ThreadPoolExecutor(1) as other:
        other.submit(lambda: opened.pop().close()).result()
    assert signal_stack() == before


def test_built(own_bundle: Path, before: tuple[int | None, int]) -> None:
    from fgdeploy.bundle import open_bundle
    from fgdeploy.engines import BuildSettings, build

    build(open_bundle(own_bundle), "openvino", "fp32", BuildSettings(batches=(1,)))
    assert signal_stack() == before
