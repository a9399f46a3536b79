"""What can be chosen when an engine is built, checked before any work begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fgdeploy.core.errors import UsageError
from fgdeploy.core.numbers import as_whole
from fgdeploy.core.text import shown

MAX_BATCH = 4096
MAX_THREADS = 1024
# What TensorRT-RTX can compile for without having the GPU.
RTX_TARGETS = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")


def check_threads(threads: int | None) -> None:
    """Raise UsageError unless `threads` is None or a sensible number."""
    if threads is not None and not 1 <= (as_whole(threads) or 0) <= MAX_THREADS:
        raise UsageError(
            f"expected at least one thread, and at most {MAX_THREADS}, got {shown(threads)}; "
            "leave it out for all cores"
        )


@dataclass(frozen=True)
class BuildSettings:
    """How to compile. Raises UsageError for what no build can have.

    batches: the batch sizes to expect, kept sorted; the largest is the most one run may take, and
    each gets a CUDA graph where there are such. workspace_mib: GPU memory that TensorRT may use to
    compute; None lets it choose. timing_cache: a file that spares TensorRT timing kernels again.
    compute_capabilities: GPUs to compile for elsewhere, such as "8.6" (tensorrt-rtx only).
    hardware_compatible: run on later GPUs too, at a price in speed (tensorrt only).
    version_compatible, dla: refused with the reason. threads: CPU threads; None for all.
    """

    batches: tuple[int, ...] = (1, 8)
    workspace_mib: int | None = None
    timing_cache: Path | None = None
    compute_capabilities: tuple[str, ...] = ()
    hardware_compatible: bool = False
    version_compatible: bool = False
    dla: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        if not self.batches or not all(1 <= size <= MAX_BATCH for size in self.batches):
            raise UsageError(
                f"--batch {','.join(map(str, self.batches))}: expected sizes from 1 to "
                f"{MAX_BATCH}, such as 1,8"
            )
        object.__setattr__(self, "batches", tuple(sorted(set(self.batches))))
        if self.workspace_mib is not None and not 1 <= self.workspace_mib <= 1 << 20:
            raise UsageError(
                f"--workspace-mib {self.workspace_mib}: expected 1 to {1 << 20} MiB; leave it "
                "out to let TensorRT choose"
            )
        for target in self.compute_capabilities:
            if target not in RTX_TARGETS:
                raise UsageError(
                    f"TensorRT-RTX has no target for compute capability {target}, only "
                    f"{', '.join(RTX_TARGETS)}; Jetson (8.7) and datacenter GPUs (9.0) take "
                    "--backend tensorrt, built on the device itself"
                )
        if self.version_compatible:
            raise UsageError(
                "a version-compatible engine carries a library that loading would execute, and a "
                "bundle holds nothing that executes; build once for each TensorRT version"
            )
        if self.dla:
            raise UsageError(
                "a DLA has no LayerNorm, no TopK and no dynamic batch, so a ViT would be split "
                "between DLA and GPU in dozens of pieces; leave --dla out and run on the GPU"
            )
        check_threads(self.threads)

    @property
    def profile(self) -> tuple[int, int, int]:
        """Return the smallest, the most usual and the largest batch."""
        return 1, self.batches[len(self.batches) // 2], self.batches[-1]
