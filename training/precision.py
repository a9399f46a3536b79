"""Which device and which arithmetic a training runs on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from fgdeploy.core.errors import UsageError


@dataclass(frozen=True)
class Precision:
    """A device and the type that matrix products run in; weights and hashes stay float32."""

    device: torch.device
    name: str

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context for forward passes."""
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[self.name]
        return torch.autocast(self.device.type, dtype, enabled=self.name != "fp32")

    def scaler(self) -> torch.amp.GradScaler:
        """Return the loss scaler; it acts in fp16 only, whose gradients would vanish."""
        return torch.amp.GradScaler(self.device.type, enabled=self.name == "fp16")

    def __str__(self) -> str:
        where = torch.cuda.get_device_name() if self.device.type == "cuda" else "CPU"
        return f"{self.name} on {where}"


def choose(wanted: str) -> Precision:
    """Return the device to use and the precision: as asked for, or `auto` what is fast here.

    auto: bf16 where the GPU has it (else fp16); on a CPU bf16 if it has instructions for it
    (AVX512_BF16, AMX, Arm's bf16), where a step takes 0.55 to 0.65 of fp32's time; on other CPUs
    bf16 is emulated and slower, so fp32. Raises UsageError for fp16 on a CPU.
    """
    if torch.cuda.is_available():
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # same sums every time
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        fast = "bf16" if native else "fp16"
        return Precision(torch.device("cuda"), fast if wanted == "auto" else wanted)
    if wanted == "fp16":
        raise UsageError("--precision fp16 needs a CUDA GPU; on a CPU choose bf16 or fp32")
    if wanted == "auto":
        # not in every torch that fgdeploy takes; without it nothing is known, so fp32
        has: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        native = any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
        wanted = "bf16" if native else "fp32"
    return Precision(torch.device("cpu"), wanted)
