"""A session of ONNX Runtime's CUDA provider, with its memory bound and its launches captured."""

from __future__ import annotations

import contextlib
import ctypes
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from fgdeploy.core.errors import EngineError

PROVIDER = "CUDAExecutionProvider"
INPUT = "frames"
# FP32 means FP32: no TF32, and norms sum in FP32 whatever they read.
# Attention by flash (1) or memory-efficient (2) kernels, not by cuDNN's: on an H100 that cost a
# pruning network 0.61 % of its bits in FP16 instead of 0.34 %, and was no faster.
SETTINGS = {
    "device_id": "0",
    "use_tf32": "0",
    "enable_skip_layer_norm_strict_mode": "1",
    "sdpa_kernel": "3",
}
_GRAPH = "gpu_graph_id"  # run option: which captured launch; -1 neither captures nor replays
_TYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32, "tensor(int64)": np.int64}


def start(graph: Path | bytes, options: Any, captures: bool = False) -> Any:
    """Start a session on the first GPU. Raises EngineError where CUDA or cuDNN do not load.

    captures: whether runs may be captured as CUDA graphs; what ONNX Runtime says where they
    cannot is raised as it is.
    """
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # it prints what it did not find
        if hasattr(onnxruntime, "preload_dlls"):  # since 1.21: CUDA from NVIDIA's wheels
            onnxruntime.preload_dlls()
    settings = {**SETTINGS, **({"enable_cuda_graph": "1"} if captures else {})}
    session = onnxruntime.InferenceSession(
        graph if isinstance(graph, bytes) else str(graph),
        options,
        providers=[(PROVIDER, settings)],
        enable_fallback=0,  # or it would print an error and take the CPU
    )
    if session.get_providers()[0] != PROVIDER:  # a library that does not load is a warning only
        why = " ".join(said.getvalue().split()) or "CUDA or cuDNN is missing, or of another version"
        raise EngineError(
            f"ONNX Runtime cannot start its {PROVIDER} here ({why[:200]}); run: pip install "
            '"onnxruntime-gpu[cuda,cudnn]"; see: fgdeploy doctor, or run with --backend onnxruntime'
        )
    return session


class Bound:
    """Runs of one batch size: tensors that stay where they are on the GPU, one captured launch.

    Run it in the thread that made it: ONNX Runtime keeps captured launches by thread.
    """

    def __init__(self, session: Any, batch: int, frame: tuple[int, ...]) -> None:
        self._session, self._batch = session, batch
        self._host = Pinned((batch, *frame))
        self._input = _on_gpu((batch, *frame), np.uint8)
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(INPUT, self._input)
        self._outputs = {}
        for output in session.get_outputs():
            shape = (batch, *output.shape[1:])
            self._outputs[output.name] = made = _on_gpu(shape, _TYPES[output.type])
            self._binding.bind_ortvalue_output(output.name, made)
        self._options = onnxruntime.RunOptions()
        self._options.add_run_config_entry(_GRAPH, str(batch))
        self.run(self._host.array)  # warms up, captures

    @property
    def pinned(self) -> bool:
        """Return whether frames are copied from memory that the GPU reads by itself."""
        return self._host.pinned

    def run(self, frames: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        """Return the outputs by name of as many frames as it was made for."""
        if frames is not self._host.array:
            self._host.array[:] = frames
        self._input.update_inplace(self._host.array)
        self.launch()
        return {name: value.numpy() for name, value in self._outputs.items()}

    def launch(self) -> None:
        """Run what lies in the GPU's memory, and wait for it."""
        self._session.run_with_iobinding(self._binding, self._options)

    def free(self) -> None:
        """Free the memory on the host."""
        self._host.free()


def run_uncaptured(session: Any, frames: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
    """Return the outputs by name of any number of frames, launched op by op."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry(_GRAPH, "-1")
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {INPUT: frames}, options), strict=True))


def _on_gpu(shape: Sequence[int], kind: Any) -> Any:
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), kind, "cuda", 0)


class Pinned:
    """An array uint8 whose pages stay in memory, so that the GPU copies it by itself.

    pinned: whether CUDA took it; where it does not, the array works all the same.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.array: npt.NDArray[np.uint8] = np.zeros(shape, np.uint8)
        self._runtime = _runtime()
        address, size = ctypes.c_void_p(self.array.ctypes.data), ctypes.c_size_t(self.array.nbytes)
        self.pinned = self._runtime is not None and not self._runtime.cudaHostRegister(
            address, size, ctypes.c_uint(0)
        )

    def free(self) -> None:
        """Let the pages go; twice does no harm."""
        if self.pinned and self._runtime is not None:
            self._runtime.cudaHostUnregister(ctypes.c_void_p(self.array.ctypes.data))
        self.pinned = False


def _runtime() -> Any:
    """Return CUDA's runtime library, the one that ONNX Runtime has loaded; None without it."""
    try:
        from onnxruntime.capi.build_and_package_info import cuda_version
    except ImportError:  # a build without CUDA
        return None
    with contextlib.suppress(OSError):
        return ctypes.CDLL(f"libcudart.so.{str(cuda_version).partition('.')[0]}")
    return None
