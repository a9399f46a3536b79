"""Names in files of timm's Eva that was trained to pool its patches, for one that reads CLS."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

_POOLED, _NORM = "fc_norm.", "norm."


def read_by_cls(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a file for a network that has those of `wanted`.

    The norm behind the pooled patches (EVA, EVA-02) becomes that of all rows, where the file has no
    other; the attention that pools (Perception Encoder) is left out. Files of other kinds come back
    as they are.
    """
    pooled = any(name.startswith(_POOLED) for name in given)
    own = any(name.startswith(_NORM) for name in given)
    found = {}
    for name, tensor in given.items():
        if name.startswith("attn_pool.") and name not in wanted:
            continue
        if pooled and not own and name.startswith(_POOLED):
            name = _NORM + name.removeprefix(_POOLED)
        found[name] = tensor
    return found
