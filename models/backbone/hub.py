"""Pretrained weights from timm's hub, with a quick and clear answer where there is no network."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import timm
from huggingface_hub import constants

from fgdeploy.core.errors import CheckpointError
from fgdeploy.models.backbone.vit import ViT

_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def pretrained(backbone: str, image_size: int) -> ViT:
    """Return timm's pretrained `backbone` at `image_size`, from the hub or its local cache.

    It pools as its weights were trained to: the name of its last norm follows from that.
    Raises CheckpointError that names the ways out when neither has it.
    """
    with _offline_if_unreachable():
        try:
            return timm.create_model(
                backbone,
                pretrained=True,
                img_size=image_size,
                dynamic_img_size=False,
            ).eval()
        except Exception as error:  # the hub client, timm and torch raise many kinds
            reason = type(error).__name__
            raise CheckpointError(
                f"no pretrained weights for {backbone} ({reason}); either connect to the network "
                "(or fill timm's hub cache), or give --checkpoint FILE, or try --weights random"
            ) from None


@contextlib.contextmanager
def _offline_if_unreachable() -> Iterator[None]:
    """Tell the hub client at once that it is offline; by itself it retries for most of a minute."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reachable(endpoint: str) -> bool:
    if any(os.environ.get(name) for name in _PROXIES):
        return True  # only the proxy can tell
    parts = urlsplit(endpoint)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 443), timeout=5).close()
    except OSError:
        return False
    return True
