"""What a network does with a schedule, block by block: recorded on tensors without values."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from fgdeploy.models import plan
from fgdeploy.models.assembly import Assembly
from fgdeploy.models.backbone import vit as backbones
from fgdeploy.models.heads.base import NoHead
from fgdeploy.models.network import Network
from fgdeploy.models.options import Options
from fgdeploy.models.plan import Plan
from fgdeploy.models.reduce.stages import Stage
from fgdeploy.tuning.stack_timing import Backbone


@dataclass(frozen=True)
class Planner:
    """Turns stages into options of a method, and options into the rows of every block."""

    assembly: Assembly

    @cached_property
    def vit(self) -> Any:
        """Return the backbone without weights, to be copied."""
        one = self.assembly
        with torch.device("meta"):
            return backbones.create(
                one.source.backbone, one.source.size, variant=one.method.varied(one.options)
            )

    @property
    def backbone(self) -> Backbone:
        """Return what the staircase is measured of."""
        return Backbone(self.assembly.geometry, int(self.vit.blocks[0].attn.num_heads))

    def texts(self, stages: Sequence[Stage]) -> dict[str, str]:
        """Return the options of a schedule, as `--set` takes them. Raises UsageError."""
        one = self.assembly
        return one.method.scheduled(one.options, stages, one.geometry)

    def options(self, stages: Sequence[Stage]) -> Options:
        """Return the resolved options of a schedule. Raises UsageError or StageError."""
        one = self.assembly
        return one.method.options.parse(self.texts(stages), one.options).resolved(one.geometry)

    def plan(self, stages: Sequence[Stage]) -> Plan:
        """Return what the deployed network does with a schedule; takes a third of a second."""
        one, options = self.assembly, self.options(stages)
        with torch.device("meta"):
            encoder = one.method.build(copy.deepcopy(self.vit), one.norm, options)
            network = Network(encoder.eval(), NoHead(), options).eval().requires_grad_(False)
            return plan.record(network.deployed(), one.source.size)

    def extra(self) -> int:
        """Return how many rows there are beside the patches that a stage keeps, CLS among them."""
        depth, patches = self.assembly.geometry.depth, self.assembly.geometry.patches
        kept = max(1, patches // 2)
        runs = self.plan([Stage(max(1, depth // 2), kept)]).runs
        return max(self.assembly.geometry.prefix_tokens, runs[-1].tokens - kept)
