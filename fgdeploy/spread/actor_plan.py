"""How many workers hash on a cluster, and what each of them holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fgdeploy.core.errors import UsageError
from fgdeploy.core.text import counted


@dataclass(frozen=True)
class ActorPlan:
    """actors: workers, a process each; cpus, gpus: of each; cpus are the threads of its engine."""

    actors: int
    cpus: int
    gpus: int

    @classmethod
    def of(
        cls,
        resources: Mapping[str, float],
        on_gpu: bool,
        actors: int | None = None,
        threads: int | None = None,
    ) -> ActorPlan:
        """Plan for a cluster, by default for all of it: a worker a GPU, or a core.

        resources: of the cluster, as Ray counts them. on_gpu: whether the engine runs on one.
        threads: cores of a worker, by default 1. Raises UsageError where the cluster has too few.
        """
        cpus, gpus = threads or 1, int(on_gpu)
        most = int(resources.get("CPU", 0)) // cpus
        if on_gpu:
            most = min(most, int(resources.get("GPU", 0)))
        wanted = actors or most
        if not 0 < wanted <= most:
            each = counted(cpus, "core") + (" and a GPU" if on_gpu else "")
            here = ", ".join(f"{int(resources.get(one, 0))} {one}" for one in ("CPU", "GPU"))
            raise UsageError(
                f"{counted(max(wanted, 1), 'worker')} of {each} do not fit a cluster of {here}; "
                f"give fewer --actors or --threads{', or another --backend' if on_gpu else ''}"
            )
        return cls(wanted, cpus, gpus)
