"""Read checkpoints without running anything that they hold, and fit them to a model."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fgdeploy.core.errors import CheckpointError
from fgdeploy.core.progress import Notify, silent
from fgdeploy.models.backbone.vit import ViT
from fgdeploy.models.weights import arguments, dinov2_keys, state_dicts, vit_pytorch_keys
from fgdeploy.models.weights.state_dicts import HEADS, Rename, StateDict


def read(
    path: Path, rename: Rename = dict, key: str | None = None, notify: Notify = silent
) -> StateDict:
    """Return the network in a file, its tensors renamed. Raises CheckpointError.

    rename, key, notify: as in `state_dicts.pick`; names of ViT-pytorch and DINOv2 are read as well.
    """
    return renamed(load(path), path.name, rename, key, notify)


def renamed(
    content: Any, name: str, rename: Rename = dict, key: str | None = None, notify: Notify = silent
) -> StateDict:
    """Return the network in what a file `name` holds, its tensors renamed. Raises CheckpointError.

    rename, key, notify: as in `state_dicts.pick`; names of ViT-pytorch and DINOv2 are read as well.
    """
    both = vit_pytorch_keys.then(dinov2_keys.then(rename))
    picked = state_dicts.pick(content, name, both, key, notify)
    if notes := vit_pytorch_keys.notes(picked):
        notify(f"{name}: {'; '.join(notes)}")
    return both(picked)


def load(path: Path) -> Any:
    """Return all that a .safetensors, .pth, .pt or .bin file holds. Raises CheckpointError.

    torch files are read with `weights_only=True`: pickled objects are refused, not run.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}; check --checkpoint")
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from None


def _read_torch(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(list(arguments.STAND_INS)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"Unsupported (?:global|class).*?GLOBAL (\S+)", str(error))
        if found is None:
            raise CheckpointError(
                f"{path} is not a whole PyTorch checkpoint; check the file, or copy it again"
            ) from None
        raise CheckpointError(
            f"{path} holds Python objects ({found[1]}), which fgdeploy never runs; where you trust "
            "it, load it yourself and torch.save(model.state_dict(), NEW)"
        ) from None
    except Exception as error:  # torch raises many kinds for a damaged file
        reason = " ".join(str(error).split())[:60] or type(error).__name__
        raise CheckpointError(
            f"{path} is not a whole PyTorch or safetensors checkpoint ({reason}); check the file"
        ) from None


def load_matching(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor], name: str) -> None:
    """Copy `given` into the tensors `wanted` if it has exactly their names and shapes.

    Raises CheckpointError that names the first missing, misshapen or unknown keys.
    """
    missing = [key for key in wanted if key not in given]
    shapes = [
        f"{key} {tuple(given[key].shape)}, expected {tuple(wanted[key].shape)}"
        for key in wanted
        if key in given and given[key].shape != wanted[key].shape
    ]
    unknown = [key for key in given if key not in wanted]
    for what, keys in (("lacks", missing), ("has misshapen", shapes), ("has unknown", unknown)):
        if keys:
            more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
            raise CheckpointError(
                f"{name} {what} {'; '.join(keys[:3])}{more}; it is of another backbone, size, "
                "method or option: check --backbone, --image-size, --method and --set"
            )
    broken = [key for key in wanted if not bool(torch.isfinite(given[key]).all())]
    if broken:
        raise CheckpointError(
            f"{name}: {broken[0]} holds NaN or infinite values; use another epoch"
        )
    with torch.no_grad():
        for key, tensor in wanted.items():
            tensor.copy_(given[key])


def without_heads(state: Mapping[str, Tensor], parts: Sequence[str] = HEADS) -> StateDict:
    """Return what is of no class or hash head; `parts`: first parts of the names of heads."""
    return {key: value for key, value in state.items() if key.split(".")[0] not in parts}


def read_by_cls(state: StateDict, name: str, notify: Notify = silent) -> StateDict:
    """Return a backbone's tensors, also of one that pools its patches, for one that reads CLS.

    Attention that pools (Perception Encoder) is left out. The last norm is `norm`, also where timm
    has `fc_norm`, as in ViTs that normalise the mean of their patches: a norm works row by row, so
    it is applied to the class token as it is. notify: told so, of the file `name`.
    """
    state = {key: value for key, value in state.items() if not key.startswith("attn_pool.")}
    if "fc_norm.weight" not in state or "norm.weight" in state:
        return state
    notify(
        f"{name}: its last norm (fc_norm) was trained on the mean of the patches; here it "
        "normalises the class token, so train before you judge"
    )
    return {re.sub(r"^fc_norm\.", "norm.", key): value for key, value in state.items()}


def resize_positions(position: Tensor, vit: ViT) -> Tensor:
    """Resize position rows to the model's grid, bilinear, other tokens' rows kept (EET's code)."""
    if position.ndim != 3 or position.shape[2] != vit.pos_embed.shape[2]:
        return position
    fixed = 0 if vit.no_embed_class else int(vit.num_prefix_tokens)
    return resize_grid(position, fixed, vit.patch_embed.grid_size)


def resize_grid(position: Tensor, fixed: int, grid: tuple[int, int]) -> Tensor:
    """Resize position rows [1, fixed + n n, D] to a grid of (rows, columns), bilinear.

    The first `fixed` rows stay. What is no square comes back as it is.
    """
    count = position.shape[1] - fixed
    side = round(max(count, 0) ** 0.5)
    if side * side != count or side == 0 or grid == (side, side):
        return position
    rows = position[:, fixed:].reshape(1, side, side, -1).permute(0, 3, 1, 2).float()
    resized = F.interpolate(rows, size=grid, mode="bilinear", align_corners=False)
    rows = resized.permute(0, 2, 3, 1).reshape(1, grid[0] * grid[1], -1)
    return torch.cat([position[:, :fixed], rows.to(position.dtype)], dim=1)


def digest(*groups: Mapping[str, Tensor]) -> str:
    """Return the sha256 of tensors: names, types, shapes, bytes; in order of name in each group."""
    whole = hashlib.sha256()
    for group in groups:
        for key, value in sorted(group.items()):
            array = value.detach().cpu().contiguous().numpy()
            whole.update(f"{key} {array.dtype} {array.shape}\n".encode())
            whole.update(array.tobytes())
    return whole.hexdigest()
