"""Whether a precision is worth it, in words, of engines that were timed beside each other."""

from __future__ import annotations

from collections.abc import Sequence

from fgdeploy.engines.contest import WORTH, Contest
from fgdeploy.proof.bench import Latency, Speed


def contest_of(speeds: Sequence[Speed], threads: int | None) -> Contest:
    """Return a timing as an engine's record keeps it: medians in ms."""
    ms = {one.name: {str(each.batch): each.p50_ms for each in one.latencies} for one in speeds}
    return Contest(ms, threads)


def verdict_of(best: Speed, speeds: Sequence[Speed]) -> str:
    """Say how an engine compares with fp32 at each batch size, and what is faster still.

    Against the fastest fp32, whatever the backend: the one that would run without the engine. An
    fp32 engine is compared with half precision.
    """
    precision = best.name.partition(":")[2]
    others = [one for one in speeds if one.name != best.name]
    fp32 = [one for one in others if one.name.endswith(":fp32")] if precision != "fp32" else []
    rivals = fp32 or [one for one in others if not one.name.endswith(":fp32")]
    if not rivals:
        return "there was nothing to compare with"
    lines = [_line(best.name, one, rivals) for one in best.latencies]
    words = f"{precision} is {'; '.join(lines)}"
    halves = [one for one in others if one not in rivals and not one.name.endswith(":fp32")]
    faster = [one for one in halves if all(_faster(one, each) for each in best.latencies)]
    if fp32 and faster:
        name = min(faster, key=lambda one: one.latencies[0].p50_ms).name
        half = name.partition(":")[2]
        words += f"; {name} is faster still: fgdeploy build-engine --{half}"
    return words


def _line(name: str, latency: Latency, rivals: Sequence[Speed]) -> str:
    own, _, precision = name.partition(":")
    rival = min(rivals, key=lambda one: one.at(latency.batch).p50_ms)
    took = rival.at(latency.batch).p50_ms
    backend, _, other = rival.name.partition(":")
    if took / latency.p50_ms >= WORTH:
        return f"{took / latency.p50_ms:.1f}x as fast as {other} at batch {latency.batch}"
    elsewhere = "" if backend == own else f" ({backend})"
    how = "slower" if precision == "fp32" else "NOT worth it"  # fp32 loses nothing for its time
    return (
        f"{how} at batch {latency.batch}: {other} takes {took:.1f} ms{elsewhere}, "
        f"{precision} {latency.p50_ms:.1f} ms"
    )


def _faster(one: Speed, latency: Latency) -> bool:
    return latency.p50_ms / one.at(latency.batch).p50_ms >= WORTH
