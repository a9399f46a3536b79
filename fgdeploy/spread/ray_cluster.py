"""A Ray cluster for the time of one work: found or started, quiet, and left as it was."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

from fgdeploy.core import machine
from fgdeploy.core.errors import DataError, MissingDependency, UsageError
from fgdeploy.core.text import one_line

_STORE = 256 << 20  # bytes of shared memory of a local cluster: names and codes pass through it
# Ray reads these as it is imported, and hands them on to the processes that it starts. Who has set
# one of them keeps it.
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing about this work is sent anywhere
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its C++ side writes to our stderr
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # by default its workers give way to all else, and starve
}
_CONNECT_S = 5.0
_LOGGERS = ("ray", "ray.data")


def import_ray() -> Any:
    """Return Ray with Ray Data. Raises MissingDependency."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import pyarrow  # noqa: F401
        import ray
        import ray.data
    except ImportError:
        raise MissingDependency("ray", "ray", "hashing on many machines") from None
    return ray


@contextlib.contextmanager
def ray_cluster(address: str | None = None) -> Iterator[Any]:
    """Give Ray, connected to a cluster, and leave it at the end.

    address: of a cluster that runs, `HOST:PORT` or `auto` for the one of this machine; None: a
    cluster of this machine's cores that ends with the work. A program that is connected already
    stays so. Raises MissingDependency, UsageError, DataError where nothing answers.
    """
    ray = import_ray()
    if address is not None and "://" in address:
        raise UsageError(
            f"--ray-address {address}: expected HOST:PORT of the cluster, as `ray start` names it; "
            "Ray's client addresses carry no Ray Data"
        )
    with _quiet(ray):
        if ray.is_initialized():
            yield ray
            return
        _connect(ray, address)
        try:
            yield ray
        finally:
            ray.shutdown()


def _refuse_silent(address: str) -> None:
    """Raise DataError where nothing listens, for which Ray waits more than a minute."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return  # `auto` and others that Ray knows
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise DataError(
            f"Ray at {address} does not answer ({one_line(str(error), 100)}); check it with: ray "
            "status"
        ) from None


def _connect(ray: Any, address: str | None) -> None:
    if address is not None:
        _refuse_silent(address)
    common = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    local = {
        "num_cpus": machine.cores(),
        "include_dashboard": False,
        "object_store_memory": _STORE,
    }
    try:
        with _mute():
            if address is None:
                ray.init("local", **local, **common)
            else:
                ray.init(address, **common)
    except (
        Exception
    ) as error:  # Ray raises what it likes: ConnectionError, ValueError, RuntimeError
        where = "a Ray cluster on this machine" if address is None else f"Ray at {address}"
        raise DataError(
            f"{where} cannot be used: {one_line(str(error), 300)}; check it with: ray status"
        ) from error


@contextlib.contextmanager
def _mute() -> Iterator[None]:
    """Keep what Ray's C++ side says as it starts, which no setting does; what fails is raised."""
    kept = os.dup(2)
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nothing)
        os.close(kept)


@contextlib.contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """Keep Ray's reports out of the answer; failures come to us as errors."""
    context = ray.data.DataContext.get_current()
    # With errored blocks allowed, Ray drops all of a block in which one row fails.
    wanted = {"enable_progress_bars": False, "max_errored_blocks": 0}
    before = {name: getattr(context, name) for name in wanted}
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    for name, value in wanted.items():
        setattr(context, name, value)
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
