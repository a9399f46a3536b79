"""PyTorch as an engine, so that parity can hold any engine against the published forward pass."""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import torch

from fgdeploy.bundle import Manifest
from fgdeploy.engines.base import Engine, Outputs
from fgdeploy.export.graph import DeployGraph
from fgdeploy.models.network import Network


class PyTorchEngine(Engine):
    """A DeployGraph in eager PyTorch on the CPU."""

    backend = "pytorch"
    precision = "fp32"

    def __init__(self, graph: DeployGraph, manifest: Manifest) -> None:
        super().__init__(manifest)
        self._graph = graph.eval()

    @property
    def network(self) -> Network:
        """Return the network that runs."""
        return self._graph.network

    def in_float64(self, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Return the hashes (B, bits) computed in float64, to tell rounding from error."""
        with torch.inference_mode():
            values = copy.deepcopy(self._graph).double()(torch.tensor(frames))
        hashes: npt.NDArray[np.float64] = values[1].numpy()  # code, hash, ...
        return hashes

    def _run(self, frames: npt.NDArray[np.uint8]) -> Outputs:
        with torch.inference_mode():
            values = self._graph(torch.tensor(frames))
        names = self._graph.output_names()
        return Outputs.from_arrays(
            {name: value.numpy() for name, value in zip(names, values, strict=True)}
        )
