"""The hub's client, opened quietly, and its errors in one line each."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fgdeploy.core.errors import FgdeployError, MissingDependency, RemoteError
from fgdeploy.hub.hub_address import HubAddress

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TIMEOUT_S = 10.0  # of a question; files may take longer
_LOGIN = "log in with: hf auth login, or set HF_TOKEN"
_OFF = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


class NoNetworkError(RemoteError):
    """The hub cannot be reached, or must not be."""


def offline() -> bool:
    """Tell whether the environment forbids to ask a hub."""
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in _OFF)


def client() -> HfApi:
    """Return a client of the hub that HF_ENDPOINT names. Raises MissingDependency.

    The token is the hub's own business: HF_TOKEN, or what `hf auth login` kept.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError:
        raise MissingDependency("huggingface-hub", "hub", "a bundle on a model hub") from None
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, library_name="fgdeploy")


@contextlib.contextmanager
def asking(address: HubAddress) -> Iterator[None]:
    """Turn whatever the hub's client raises into one line, and let it say nothing by itself."""
    import huggingface_hub
    import huggingface_hub.utils

    log: Any = huggingface_hub.logging
    bars: Any = huggingface_hub.utils
    level, shown = log.get_verbosity(), not bars.are_progress_bars_disabled()
    log.set_verbosity_error()
    bars.disable_progress_bars()
    try:
        yield
    except (FgdeployError, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, FgdeployError):
            raise
        raise said(address, error) from None
    except Exception as error:  # the HTTP client's errors have no other base
        raise said(address, error) from None
    finally:
        log.set_verbosity(level)
        if shown:
            bars.enable_progress_bars()


def said(address: HubAddress, error: Exception) -> RemoteError:
    """Return what an error of the hub's client means."""
    from huggingface_hub import errors

    if type(error) is RuntimeError and isinstance(error.__cause__, Exception):
        error = error.__cause__  # "Error while uploading ..."
    status = getattr(getattr(error, "response", None), "status_code", None)
    for kind, words in _words(address, errors).items():
        if isinstance(error, kind):
            return RemoteError(f"{address}: {words}")
    if status == 401:
        return RemoteError(f"{address}: the hub does not know this token; {_LOGIN}")
    if status == 403:
        return RemoteError(
            f"{address}: this token may not do that; {_LOGIN}, with a token that has the right"
        )
    if status is not None and status >= 500:
        return NoNetworkError(f"{address}: the hub answers {status}; try again later")
    if status is not None:
        return RemoteError(f"{address}: the hub refuses with {status} ({_line(error)})")
    if "xet-write-token" in str(error) and status is None:
        return RemoteError(
            f"{address}: this hub does not take files through Xet; set HF_HUB_DISABLE_XET=1"
        )
    if _is_network(error, errors):
        return NoNetworkError(
            f"{address}: the hub cannot be reached, or broke off ({_line(error)}); try again: what "
            "has arrived is kept"
        )
    if isinstance(error, OSError) and error.strerror:
        where = error.filename or "the cache"
        return RemoteError(f"{address}: {where}: {error.strerror}; free space or check the rights")
    return RemoteError(f"{address}: the hub's answer makes no sense ({_line(error)})")


def _words(address: HubAddress, errors: Any) -> dict[type[Exception], str]:
    name = address.revision or "main"
    private = f"no such repository, or it is private; check the name, and {_LOGIN}"
    return {
        errors.GatedRepoError: f"its owner lets only some in; ask him on its page, and {_LOGIN}",
        errors.DisabledRepoError: "the hub has closed this repository",
        errors.RepositoryNotFoundError: private,
        errors.RevisionNotFoundError: f"it has no branch, tag or commit {name}",
        errors.RemoteEntryNotFoundError: "a file of the bundle is not there; push it again",
    }


def _is_network(error: Exception, errors: Any) -> bool:
    import httpx2

    kinds = (httpx2.TransportError, errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError)
    broken = isinstance(error, OSError) and "Consistency check failed" in str(error)
    return broken or isinstance(error, (*kinds, ConnectionError, TimeoutError))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
