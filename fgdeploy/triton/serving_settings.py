"""What can be chosen of a model on Triton, checked before anything is read or written."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fgdeploy.core.errors import UsageError
from fgdeploy.core.numbers import as_whole
from fgdeploy.core.text import shown
from fgdeploy.engines.build_settings import MAX_BATCH

# backend -> where its instances may run. Triton's OpenVINO backend knows Intel CPUs only.
KINDS = {"onnxruntime": ("cpu", "gpu"), "openvino": ("cpu",), "tensorrt": ("gpu",)}
MOST_VERSION = (1 << 31) - 1
_MOST_INSTANCES = 256
_MOST_DELAY_US = 60_000_000
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class ServingSettings:
    """How Triton shall serve a bundle. Raises UsageError for what no server can do.

    backend: "onnxruntime", "openvino" or "tensorrt". kind: "cpu" or "gpu"; None for the backend's
    first. precision: a graph of the bundle, or an engine's. max_batch: frames of one run; None for
    what the model was built for. instances: copies of the model, on each GPU where kind is "gpu".
    queue_delay_us: most microseconds that a request waits for others. version: the number of the
    folder it becomes. engine: the folder of a TensorRT engine, where a bundle has several.
    """

    backend: str = "onnxruntime"
    kind: str | None = None
    precision: str = "fp32"
    name: str | None = None
    max_batch: int | None = None
    instances: int = 1
    queue_delay_us: int = 2000
    version: int = 1
    engine: str | None = None

    def __post_init__(self) -> None:
        if self.backend not in KINDS:
            raise UsageError(f"no backend {shown(self.backend)}; choose one of {', '.join(KINDS)}")
        kinds = KINDS[self.backend]
        if self.kind is not None and self.kind not in kinds:
            raise UsageError(
                f"--kind {shown(self.kind)}: Triton's {self.backend} backend runs on "
                f"{' or '.join(kinds)}; leave --kind out, or choose another --backend"
            )
        if self.name is not None and not is_model_name(self.name):
            raise UsageError(
                f"--name {shown(self.name)}: a model is named by letters, digits, _, - and ., "
                "and begins with a letter, digit or _"
            )
        self._check_numbers()
        if self.engine is not None and self.backend != "tensorrt":
            raise UsageError(f"--engine names a TensorRT engine, and the backend is {self.backend}")

    def _check_numbers(self) -> None:
        bounds = (
            ("--max-batch", self.max_batch, 1, MAX_BATCH),
            ("--instances", self.instances, 1, _MOST_INSTANCES),
            ("--queue-delay-us", self.queue_delay_us, 0, _MOST_DELAY_US),
            ("--version", self.version, 1, MOST_VERSION),
        )
        for flag, given, least, most in bounds:
            if given is None and flag == "--max-batch":
                continue
            number = as_whole(given)
            if number is None or not least <= number <= most:
                raise UsageError(f"{flag} {shown(given)}: expected {least} to {most}")

    @property
    def device(self) -> str:
        """Return "cpu" or "gpu"."""
        return self.kind or KINDS[self.backend][0]


def is_model_name(name: object) -> bool:
    """Return whether Triton, a file system and an address can all carry this name."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None
