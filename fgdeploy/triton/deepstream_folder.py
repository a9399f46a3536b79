"""A folder for DeepStream: a graph that `nvinfer` can feed, its configuration, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fgdeploy.bundle import GRAPHS, Bundle
from fgdeploy.core import atomic
from fgdeploy.core.errors import DataError, UsageError
from fgdeploy.core.numbers import as_whole
from fgdeploy.core.text import shown
from fgdeploy.engines.build_settings import MAX_BATCH
from fgdeploy.triton import nvinfer_config, nvinfer_graph

CONFIG, MODEL, README = "config_infer.txt", "model.onnx", "README.md"
_CHOICES = {"int8": ("int8-fp16", "int8")}
_EXAMPLE = (1920, 1080)

_TEXT = """# {name} for DeepStream

Written by fgdeploy from the documentation of DeepStream 9.2. **Never run on hardware.** Nothing
here has met a GPU or DeepStream; the tests run the graph on a CPU only.

1. Build the plan where it will run; it is of that GPU and that TensorRT:

       trtexec --onnx={model} --saveEngine={plan} --stronglyTyped \\
         --minShapes=pixels:1x3x{size}x{size} --optShapes=pixels:{batch}x3x{size}x{size} \\
         --maxShapes=pixels:{batch}x3x{size}x{size}

   TensorRT 11 types every network strongly and needs no `--stronglyTyped`. `nvinfer` is given no
   ONNX file: without the plan it stops, where it would else choose precisions of its own.
2. Crop before `nvstreammux`, as the bundle does; for {width} x {height}:

       nvvideoconvert src-crop={left}:{top}:{across}:{down}

3. `nvinfer config-file-path={config}`. For the objects of a detector: `process-mode=2`,
   `operate-on-gie-id`; then each object's box is what is stretched.
4. Read `hash` in a probe behind it, and pack it; no custom parser is needed:

       def code_of(user_meta):
           tensors = pyds.NvDsInferTensorMeta.cast(user_meta.user_meta_data)
           for number in range(tensors.num_output_layers):
               layer = pyds.get_nvds_LayerInfo(tensors, number)
               if layer.layerName == "hash":
                   floats = ctypes.cast(pyds.get_ptr(layer.buffer), ctypes.POINTER(ctypes.c_float))
                   return numpy.packbits(numpy.ctypeslib.as_array(floats, ({bits},)) > 0)

   for each user meta of a frame whose `base_meta.meta_type` is `NVDSINFER_TENSOR_OUTPUT_META`.

## What differs from the bundle

{differences}

So codes differ from those that fgdeploy makes of the same picture, and by how much nobody has
measured. Fill the gallery through the same pipeline, or hold its codes to the bundle's first.

The graph is the bundle's `{graph}` graph but for its ends: `pixels` in, float32
(B, 3, {size}, {size}), RGB, 0 to 255, as `nvinfer` writes floats whatever the engine declares;
`code` is left out. Fingerprint: {fingerprint}
"""


@dataclass(frozen=True)
class DeepStreamFolder:
    """What was written: the folder, the graph's key, the batch size, and files by size."""

    path: Path
    graph: str
    batch: int
    files: dict[str, int]


def write(
    bundle: Bundle, target: Path, precision: str = "fp32", batch: int = 1, overwrite: bool = False
) -> DeepStreamFolder:
    """Write a folder for DeepStream. overwrite: replace one that fgdeploy wrote, and no other.

    Raises UsageError, BundleError, DataError, ExportError, MissingDependency or OSError.
    """
    number = as_whole(batch)
    if number is None or not 1 <= number <= MAX_BATCH:
        raise UsageError(f"--batch {shown(batch)}: expected 1 to {MAX_BATCH}")
    _check_place(target, overwrite)
    keys = _CHOICES.get(precision, (precision,))
    key = next((one for one in keys if GRAPHS.get(one) in bundle.manifest.files), precision)
    model = nvinfer_graph.for_nvinfer(bundle.graph(key))
    outputs = [name for name in bundle.manifest.outputs if name != "code"]
    files = {
        CONFIG: nvinfer_config.to_ini(bundle.manifest, outputs, number).encode(),
        MODEL: model,
        README: _readme(bundle, key, number).encode(),
    }
    with atomic.new_folder(target, replace=overwrite) as folder:
        for name, content in files.items():
            (folder / name).write_bytes(content)
    return DeepStreamFolder(target, key, number, {name: len(one) for name, one in files.items()})


def _check_place(target: Path, overwrite: bool) -> None:
    if not target.parent.is_dir():
        raise DataError(f"no folder {target.parent} to write {target.name} into; create it first")
    if not target.exists() and not target.is_symlink():
        return
    if not overwrite:
        raise DataError(f"{target} is there already; pass --overwrite, or another -o")
    held = {path.name for path in target.iterdir()} if target.is_dir() else set()
    ours = {CONFIG, MODEL, README, nvinfer_config.PLAN}
    if target.is_symlink() or CONFIG not in held or held - ours:
        raise DataError(f"{target} is not what fgdeploy wrote for DeepStream; give another -o")


def _readme(bundle: Bundle, graph: str, batch: int) -> str:
    manifest = bundle.manifest
    width, height = _EXAMPLE
    left, top, across, down = nvinfer_config.crop(manifest, width, height)
    return _TEXT.format(
        name=bundle.path.resolve().stem,
        model=MODEL,
        plan=nvinfer_config.PLAN,
        config=CONFIG,
        size=manifest.image_size,
        batch=batch,
        width=width,
        height=height,
        left=left,
        top=top,
        across=across,
        down=down,
        bits=manifest.bits,
        graph=graph,
        fingerprint=manifest.fingerprint,
        differences="\n".join(f"- {line}" for line in nvinfer_config.differences(manifest)),
    )
