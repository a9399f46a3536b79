"""Bundles as other servers want them: model repositories of NVIDIA Triton, DeepStream."""

from fgdeploy.triton.deepstream_folder import DeepStreamFolder
from fgdeploy.triton.deepstream_folder import write as write_deepstream
from fgdeploy.triton.model_repository import WrittenModel
from fgdeploy.triton.model_repository import write as write_repository
from fgdeploy.triton.serving_settings import ServingSettings

__all__ = [
    "DeepStreamFolder",
    "ServingSettings",
    "WrittenModel",
    "write_deepstream",
    "write_repository",
]
