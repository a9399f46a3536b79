"""Bundles from and to a model hub, kept for use without a network."""

from fgdeploy.hub.hub_address import HubAddress, is_address
from fgdeploy.hub.publishing import Published, push
from fgdeploy.hub.pulling import opened, pull

__all__ = ["HubAddress", "Published", "is_address", "opened", "pull", "push"]
