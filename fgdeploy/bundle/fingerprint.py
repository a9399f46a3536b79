"""The fingerprint of a model: equal for equal codes, and so what indexes compare bundles by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from fgdeploy.photos import Preprocess

# The name under which an exported graph says of which model it is.
GRAPH_NOTE = "fgdeploy.fingerprint"


def fingerprint(
    method: str,
    backbone: str,
    deciding: Mapping[str, Any],
    preprocess: Preprocess,
    weights_sha256: str,
) -> str:
    """Return the sha256 over all that decides a code: not tool versions, opset or precision.

    backbone: its number of heads, say, shows in no weight. deciding: what of the method's options
    decides (`Options.deciding`). Written as in all bundles so far, so that their indexes stay.
    """
    facts = {
        **deciding,
        "method": method,
        "backbone": backbone,
        "preprocess": preprocess.to_json(),
        "weights": weights_sha256,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
