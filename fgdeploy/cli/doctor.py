"""`fgdeploy doctor`."""

from __future__ import annotations

import dataclasses
from typing import Any

import typer

from fgdeploy.cli import show
from fgdeploy.core.text import counted


def _gpu(gpu: Any) -> str:
    return f"{gpu.name} (compute capability {gpu.compute_capability}, {gpu.memory_mib} MiB)"


def doctor(as_json: show.JsonOption = False) -> None:
    """Say what this machine can run and what is missing; exit 1 if no engine can run."""
    from fgdeploy.doctor import examine

    machine = examine()
    if as_json:
        show.emit_json(dataclasses.asdict(machine))
    else:
        memory = "unknown" if machine.memory_gib is None else f"{machine.memory_gib} GiB"
        rows = [
            ("Python", machine.python),
            ("system", machine.system),
            ("CPU", f"{machine.cpu}, {counted(machine.cores, 'core')}, {memory}"),
            ("extensions", " ".join(machine.cpu_features) or "none known"),
            ("NVIDIA driver", machine.nvidia_driver or "none"),
            ("GPUs", "; ".join(map(_gpu, machine.gpus)) or "none"),
            ("engines that run", ", ".join(machine.engines) or "none"),
            ("export", "yes" if machine.can_export else "no"),
        ]
        if machine.cuda_missing:
            missing = ", ".join(machine.cuda_missing)
            rows.append(("CUDA wheels missing", f'{missing}: pip install "fgdeploy[gpu]"'))
        show.rows(rows)
        packages = [
            (
                p.name,
                p.version or "-",
                p.purpose,
                "" if p.version else f'pip install "fgdeploy[{p.extra}]"',
            )
            for p in machine.packages
        ]
        show.rows(packages, ("package", "version", "for", "if missing"), title="packages")
    if not machine.engines:
        show.complain('error: no engine is installed; run: pip install "fgdeploy[cpu]"')
        raise typer.Exit(1)
