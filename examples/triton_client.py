"""Ask Triton what is on photos:
python examples/triton_client.py localhost:8001 eet eet.fgd gallery.fgi PHOTO...

The server has what `fgdeploy triton-repo` wrote; frames are made and codes are searched here.
"""

import sys

import numpy as np
from tritonclient import grpc

from fgdeploy import Index
from fgdeploy.bundle import open_bundle
from fgdeploy.core.errors import UsageError


def main(address: str, model: str, bundle: str, gallery: str, *photos: str) -> None:
    manifest = open_bundle(bundle).manifest
    with grpc.InferenceServerClient(address) as server, Index.open(gallery) as index:
        version = max(server.get_model_metadata(model).versions, key=int)
        held = server.get_model_config(model, version).config.parameters
        served = held[f"fgdeploy.fingerprint.{version}"].string_value
        if served != manifest.fingerprint:
            raise UsageError(
                f"{address} serves another model than {bundle}; its codes do not compare"
            )
        index.require(served, manifest.bits)
        for photo in photos:
            frames = manifest.preprocess.frame(photo)[None]
            given = grpc.InferInput("frames", frames.shape, "UINT8")
            given.set_data_from_numpy(frames)
            wanted = [grpc.InferRequestedOutput("code")]
            answer = server.infer(model, [given], version, outputs=wanted, client_timeout=10)
            code = np.asarray(answer.as_numpy("code"), np.uint8)
            for hit in index.search(code, 3)[0]:
                print(f"{photo} {hit.distance} {hit.label} {hit.path}")


main(*sys.argv[1:])
