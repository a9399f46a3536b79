"""The configuration file of DeepStream's `nvinfer`, from its documentation (9.2), never run.

https://docs.nvidia.com/metropolis/deepstream/dev-guide/text/DS_plugin_gst-nvinfer.html
"""

from __future__ import annotations

from collections.abc import Sequence

from fgdeploy import __version__
from fgdeploy.bundle import Manifest

PLAN = "model.plan"


def properties(manifest: Manifest, outputs: Sequence[str], batch: int) -> dict[str, str]:
    """Return the group [property]: key -> value.

    There is no `onnx-file`: where the plan is missing, nvinfer would build an engine of its own,
    with precisions of its own choice.
    """
    size = manifest.image_size
    return {
        "gpu-id": "0",
        "gie-unique-id": "1",
        "process-mode": "1",  # whole frames; 2: the objects of another nvinfer
        "network-type": "100",  # none of nvinfer's own: outputs go on as tensors
        "output-tensor-meta": "1",
        "model-engine-file": PLAN,
        "batch-size": str(batch),
        "infer-dims": f"3;{size};{size}",
        "network-input-order": "0",  # NCHW
        "model-color-format": "0",  # RGB
        # y = net-scale-factor * (x - offset): raw pixels, as mean and std lie in the graph
        "net-scale-factor": "1.0",
        "offsets": "0;0;0",
        "maintain-aspect-ratio": "0",
        "scaling-filter": "1",  # bilinear
        "output-blob-names": ";".join(outputs),
    }


def to_ini(manifest: Manifest, outputs: Sequence[str], batch: int) -> str:
    """Return the file's text."""
    lines = [
        f"# Written by fgdeploy {__version__} from documentation; never run on hardware.",
        f"# fingerprint {manifest.fingerprint}",
        *(f"# {line}" for line in differences(manifest)),
        "[property]",
        *(f"{key}={value}" for key, value in properties(manifest, outputs, batch).items()),
    ]
    return "\n".join(lines) + "\n"


def differences(manifest: Manifest) -> list[str]:
    """Return in what nvinfer's frames differ from those of the bundle, one line each."""
    steps = manifest.preprocess
    part = f"{steps.size}/{steps.resize}"
    whole = "both sides" if steps.square else "the short side"
    lines = []
    if steps.resize != steps.size:
        lines.append(
            f"nvinfer takes the whole picture; the bundle the middle {part} of {whole}: crop before"
        )
    if not steps.square:
        lines.append("nvinfer stretches to a square; the bundle cuts a square: crop before")
    how = f"Pillow's {steps.interpolation} with antialiasing"
    lines.append(f"nvinfer scales by a bilinear filter of its own; the bundle by {how}")
    lines.append(
        "nvinfer's RGB comes from the decoder's NV12, the bundle's from the photo's decoder"
    )
    return lines


def crop(manifest: Manifest, width: int, height: int) -> tuple[int, int, int, int]:
    """Return left, top, width, height of what the bundle sees of a picture, in whole pixels.

    As `nvvideoconvert` takes them in `src-crop`.
    """
    steps = manifest.preprocess
    short = min(width, height)
    sides = (width, height) if steps.square else (short, short)
    across, down = (max(1, round(side * steps.size / steps.resize)) for side in sides)
    return (width - across) // 2, (height - down) // 2, across, down
