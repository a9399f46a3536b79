"""The bundle: a folder with a graph, what a device must know of it, and nothing that executes."""

from fgdeploy.bundle.folder import ENGINES, GRAPHS, Bundle, open_bundle, seal, sha256
from fgdeploy.bundle.manifest import MANIFEST, SCHEMA_VERSION, BlockRows, Manifest, Output

__all__ = [
    "ENGINES",
    "GRAPHS",
    "MANIFEST",
    "SCHEMA_VERSION",
    "BlockRows",
    "Bundle",
    "Manifest",
    "Output",
    "open_bundle",
    "seal",
    "sha256",
]
