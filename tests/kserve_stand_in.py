"""A stand-in for Triton: KServe v2 over gRPC on loopback, a written repository behind it.

It is no proof that Triton loads the repository; it runs the client against real answers of the real
graph, and reads the configuration that was written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np


@contextlib.contextmanager
def serving(repository: Path) -> Iterator[str]:
    """Serve a repository's models with ONNX Runtime; gives the address."""
    import grpc
    import onnxruntime
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

    def config(name: str) -> Any:
        text = (repository / name / "config.pbtxt").read_text(encoding="utf-8")
        return text_format.Parse(text, model_config_pb2.ModelConfig())

    class StandIn(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
        def ModelMetadata(self, request: Any, context: Any) -> Any:
            versions = [path.name for path in (repository / request.name).glob("[0-9]*")]
            return service_pb2.ModelMetadataResponse(name=request.name, versions=versions)

        def ModelConfig(self, request: Any, context: Any) -> Any:
            return service_pb2.ModelConfigResponse(config=config(request.name))

        def ModelInfer(self, request: Any, context: Any) -> Any:
            held = config(request.model_name)
            place = repository / request.model_name / request.model_version
            session = onnxruntime.InferenceSession(place / held.default_model_filename)
            (given,) = request.inputs
            assert (given.name, given.datatype) == ("frames", "UINT8")
            assert list(given.shape[1:]) == list(held.input[0].dims)
            frames = np.frombuffer(request.raw_input_contents[0], np.uint8)
            names = [one.name for one in request.outputs]
            found = session.run(names, {"frames": frames.reshape(tuple(given.shape))})
            answer = service_pb2.ModelInferResponse(
                model_name=request.model_name, model_version=request.model_version
            )
            for name, array in zip(names, found, strict=True):
                kind = "UINT8" if array.dtype == np.uint8 else "FP32"
                answer.outputs.add(name=name, datatype=kind, shape=array.shape)
                answer.raw_output_contents.append(array.tobytes())
            return answer

    server = grpc.server(ThreadPoolExecutor(2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(StandIn(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait(10)
