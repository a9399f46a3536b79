"""A training of classes with smoothed labels and stochastic depth (GLSim's; arkel23/GLSim).

docs/methods.md, section 2.3. The hash head learns beside it, as in `class_first`.
"""

from __future__ import annotations

from timm.layers import DropPath
from timm.models.vision_transformer import Block
from torch import nn

from fgdeploy.models.looks.aggregator import BlockAggregator
from fgdeploy.training.class_first import ClassFirst
from fgdeploy.training.objective import Setup

DEPTH = 0.1


class SmoothedDeep(ClassFirst):
    """Smooth labels by 0.1; leave the two halves of a block out of one sample in ten.

    The rate is the same in every block, the aggregator's too. The class head starts at zero, a
    new aggregator as Xavier has it; one that has learnt goes on.
    """

    smoothing = 0.1

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        for part in self.student.modules():
            if isinstance(part, Block):
                part.drop_path1, part.drop_path2 = DropPath(DEPTH), DropPath(DEPTH)

    def start(self, classes: nn.Linear) -> None:
        """Start as the authors do."""
        nn.init.zeros_(classes.weight)
        nn.init.zeros_(classes.bias)
        for part in self.student.modules():
            if isinstance(part, BlockAggregator) and part.begun:
                for layer in part.modules():
                    if isinstance(layer, nn.Linear):
                        _xavier(layer)


def _xavier(layer: nn.Linear) -> None:
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.normal_(layer.bias, std=1e-6)
