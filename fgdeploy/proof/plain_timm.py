"""timm's model as people run it without fgdeploy: eager, compiled, or exported as it stands."""

from __future__ import annotations

import functools
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fgdeploy.core.errors import EngineError, MissingDependency
from fgdeploy.proof.own_process import answer, run_apart

EAGER, COMPILED = "eager", "torch.compile"


def opened(
    backbone: str, size: int, threads: int | None, device: str, compiled: bool
) -> tuple[Callable[[int], Callable[[], object]], str]:
    """Make a timm model with random weights in fp32; return what makes a call, and what runs.

    Raises MissingDependency without torch or timm, EngineError where there is no such model or GPU.
    """
    torch, model = _made(backbone, size, threads)
    if device == "cuda" and not torch.cuda.is_available():
        raise EngineError("PyTorch sees no GPU here; run with --device cpu")
    model = model.to(device)
    if compiled:
        model = torch.compile(model, dynamic=False)

    def prepare(batch: int) -> Callable[[], object]:
        images = torch.rand(batch, 3, size, size, device=device)

        def call() -> object:
            with torch.inference_mode():
                found = model(images)
            if device == "cuda":
                torch.cuda.synchronize()
            return found

        return call

    return prepare, f"PyTorch {torch.__version__} {COMPILED if compiled else EAGER}"


def export_apart(backbone: str, size: int, target: Path) -> None:
    """Write torch.onnx.export's graph of a timm model, in a process of its own.

    Input `images` float32 (B, 3, S, S); no pruning, no uint8. Raises EngineError with the reason.
    """
    run_apart(__name__, {"backbone": backbone, "size": size, "target": str(target)})


def torch_product(
    rows: int, inner: int, columns: int, threads: int
) -> Callable[[int], Callable[[], object]]:
    """Return what makes a call of a float32 product [rows, inner] @ [inner, columns] in PyTorch."""
    torch: Any = _torch()
    torch.set_num_threads(threads)
    left, right = torch.rand(rows, inner), torch.rand(inner, columns)
    return lambda _: functools.partial(torch.mm, left, right)


def _torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "torch", "export", "comparing with timm") from None
    return torch


def _made(backbone: str, size: int, threads: int | None) -> tuple[Any, Any]:
    torch: Any = _torch()
    try:
        import timm
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name or "timm", "export", "comparing with timm") from None
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        model = timm.create_model(backbone, pretrained=False, img_size=size)
    except Exception as error:  # an unknown name, or a model of one size only
        raise EngineError(f"timm has no {backbone} of {size} pixels: {error}") from None
    return torch, model.eval()


def _export(wanted: dict[str, Any]) -> dict[str, Any]:
    torch, model = _made(wanted["backbone"], wanted["size"], None)
    images = torch.rand(2, 3, wanted["size"], wanted["size"])
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (images,),
            wanted["target"],
            input_names=["images"],
            dynamic_shapes={"x": {0: torch.export.Dim("batch")}},
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return {}


if __name__ == "__main__":
    sys.exit(answer(_export))
