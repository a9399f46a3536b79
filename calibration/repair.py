"""Find the layers that INT8 hurts and return the fewest of them to float that meet the limits."""

from __future__ import annotations

from dataclasses import dataclass

from fgdeploy.calibration import qdq
from fgdeploy.calibration.int8_plan import Int8Plan
from fgdeploy.calibration.judge import Judge
from fgdeploy.core.progress import Notify, Progress, no_progress, silent
from fgdeploy.core.text import counted
from fgdeploy.proof.parity import Limits, Parity

PROBES = 64  # frames that a layer's sensitivity is measured on


@dataclass(frozen=True)
class Sensitivity:
    """What INT8 in one layer alone does: the hashes' relative error, the share of bits changed."""

    layer: str
    hash_error: float
    bits_changed: float


@dataclass(frozen=True)
class Repair:
    """The layers that went back to float, the worst first, and how the graph then does.

    met: whether the limits are kept; tried: (layers in float, parity) of each graph on the way;
    latency_ms: of one frame in ONNX Runtime on this machine's CPU, before and after.
    """

    in_float: list[str]
    parity: Parity
    met: bool
    sensitivities: list[Sensitivity]
    tried: list[tuple[int, Parity]]
    latency_ms: tuple[float, float]


def sensitivities(
    plan: Int8Plan, judge: Judge, progress: Progress = no_progress
) -> list[Sensitivity]:
    """Return the effect of each INT8 layer alone, all others in float, the worst first."""
    found = []
    names = plan.int8
    for number, name in enumerate(names, start=1):
        others = [other for other in names if other != name]
        graph = qdq.write(plan, others, unsigned_activations=True)
        found.append(Sensitivity(name, *judge.error(graph, PROBES)))
        progress(number, len(names))
    return sorted(found, key=lambda one: (-one.hash_error, one.layer))


def repair(
    plan: Int8Plan,
    judge: Judge,
    limits: Limits,
    progress: Progress = no_progress,
    say: Notify = silent,
) -> Repair:
    """Return layers to float in the order of their sensitivity until the limits are kept.

    The number is found by doubling and then halving, as each try runs all of the judge's frames:
    it is the least for which the limits hold, if more float never does harm.
    """
    order = sensitivities(plan, judge, progress)
    tried: dict[int, Parity] = {}

    def keeps(count: int) -> bool:
        names = [one.layer for one in order[:count]]
        tried[count] = judge.parity(qdq.write(plan, names, unsigned_activations=True))
        say(
            f"{count} of {counted(len(order), 'layer')} in float: "
            f"{tried[count].bit_agreement:.2%} of bits"
        )
        return not tried[count].breaches(limits)

    low, high = 0, 1  # `low` layers are too few
    while not keeps(min(high, len(order))) and high < len(order):
        low, high = high, 2 * high
    high = min(high, len(order))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if keeps(middle) else (middle, high)
    chosen = [one.layer for one in order[:high]]
    met = not tried[high].breaches(limits)
    graphs = [qdq.write(plan, names, unsigned_activations=True) for names in ([], chosen)]
    before, after = judge.latency_ms(graphs)
    return Repair(chosen, tried[high], met, order, sorted(tried.items()), (before, after))
