"""The choice of device and arithmetic, on machines that this one is not."""

from __future__ import annotations

import pytest
import torch

from fgdeploy.core.errors import UsageError
from fgdeploy.training.precision import Precision, choose
from tests.checks import refused

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def _machine(
    monkeypatch: pytest.MonkeyPatch, *capabilities: str, cuda: bool = False, gpu_bf16: bool = False
) -> None:
    """Let torch report a machine with these instructions of a CPU, and with or without a GPU."""

    def has_bf16(including_emulation: bool = True) -> bool:
        return gpu_bf16 or including_emulation  # emulated, every GPU has it

    names = ("avx512_bf16", "amx_bf16", "bf16", "avx2", "amx_int8")
    has = {name: name in capabilities for name in names} | {"architecture": "x86_64"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", has_bf16)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        (("avx512_bf16",), "bf16"),
        (("amx_bf16",), "bf16"),
        (("bf16",), "bf16"),  # Arm
        (("avx2", "avx512_bf16", "amx_bf16"), "bf16"),
        ((), "fp32"),
        (("avx2", "amx_int8"), "fp32"),  # a truthy `architecture` is no instruction either
    ],
)
def test_auto_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, capabilities: tuple[str, ...], expected: str
) -> None:
    _machine(monkeypatch, *capabilities)
    assert choose("auto") == Precision(torch.device("cpu"), expected)


def test_auto_on_a_cpu_that_reports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch)
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert choose("auto").name == "fp32"


@pytest.mark.parametrize(("gpu_bf16", "expected"), [(True, "bf16"), (False, "fp16")])
def test_auto_on_a_gpu_takes_no_emulated_bf16(
    monkeypatch: pytest.MonkeyPatch, gpu_bf16: bool, expected: str
) -> None:
    _machine(monkeypatch, cuda=True, gpu_bf16=gpu_bf16)
    assert choose("auto") == Precision(torch.device("cuda"), expected)


@pytest.mark.parametrize("wanted", ["fp32", "bf16"])
@pytest.mark.parametrize("capabilities", [(), ("avx512_bf16",)])
def test_a_cpu_does_as_it_is_told(
    monkeypatch: pytest.MonkeyPatch, wanted: str, capabilities: tuple[str, ...]
) -> None:
    _machine(monkeypatch, *capabilities)
    assert choose(wanted) == Precision(torch.device("cpu"), wanted)


@pytest.mark.parametrize("wanted", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("gpu_bf16", [True, False])
def test_a_gpu_does_as_it_is_told(
    monkeypatch: pytest.MonkeyPatch, wanted: str, gpu_bf16: bool
) -> None:
    _machine(monkeypatch, cuda=True, gpu_bf16=gpu_bf16)
    assert choose(wanted) == Precision(torch.device("cuda"), wanted)


def test_fp16_on_a_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, "avx512_bf16", "amx_bf16", "bf16")
    words = "^--precision fp16 needs a CUDA GPU; on a CPU choose bf16 or fp32$"
    with refused(UsageError, words):
        choose("fp16")


@pytest.mark.parametrize(("name", "dtype"), DTYPES.items())
def test_products_run_in_the_precision_and_weights_stay(name: str, dtype: torch.dtype) -> None:
    linear = torch.nn.Linear(4, 3)
    with Precision(torch.device("cpu"), name).autocast():
        assert linear(torch.ones(2, 4)).dtype == dtype
    assert linear(torch.ones(2, 4)).dtype == torch.float32
    assert linear.weight.dtype == torch.float32


@pytest.mark.parametrize(("name", "scales"), [("fp32", False), ("bf16", False), ("fp16", True)])
def test_only_fp16_scales_its_loss(name: str, scales: bool) -> None:
    scaler = Precision(torch.device("cpu"), name).scaler()
    assert scaler.is_enabled() is scales
    loss = scaler.scale(torch.tensor(2.0))
    assert (loss.item() > 2.0) is scales


def test_it_says_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(Precision(torch.device("cpu"), "bf16")) == "bf16 on CPU"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA Jetson Orin")
    assert str(Precision(torch.device("cuda"), "fp16")) == "fp16 on NVIDIA Jetson Orin"
