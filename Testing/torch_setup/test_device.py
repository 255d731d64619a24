"""The device line, with this machine's torch and with stand-ins for others."""

from __future__ import annotations

import builtins
import subprocess
import sys

import pytest
import torch

from SAMMed3DLib.torch_setup import device as module
from SAMMed3DLib.torch_setup.device import DeviceReport, report_device


def test_this_machine_reports_its_cpu() -> None:
    report = report_device("cpu", "fp32")
    assert (report.torch, report.device, report.precision) == (torch.__version__, "cpu", "fp32")
    assert report.name and report.problem == ""
    assert report.free_bytes is None or report.free_bytes > 0
    assert f"PyTorch {torch.__version__}, CPU {report.name}" in report.text
    assert report.details.startswith(report.text)
    assert "Python 3." in report.details


def test_a_device_that_is_not_there_is_the_cpu_with_the_reason() -> None:
    report = report_device("cuda:99")
    assert report.device == "cpu"
    assert "cuda" in report.problem.lower()
    assert report.problem in report.text


def test_a_graphics_card_is_reported_with_its_memory(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (6 << 30, 8 << 30))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "RTX 3070")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    monkeypatch.setattr(module, "cuda_problem", lambda: "")
    report = report_device()
    assert (report.device, report.precision) == ("cuda", "bf16")
    assert "CUDA RTX 3070, 6.0 of 8.0 GB free, bf16" in report.text

    def driver(device: object) -> tuple[int, int]:
        raise RuntimeError("CUDA error: no kernel image is available\nmore")

    monkeypatch.setattr(torch.cuda, "mem_get_info", driver)
    report = report_device("cuda", "fp32")
    assert (report.device, report.problem) == ("cpu", "CUDA error: no kernel image is available")


def test_a_card_that_does_not_compute_is_not_used(monkeypatch) -> None:
    def zeros(*shape: int, device: str) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", zeros)
    module.cuda_problem.cache_clear()
    try:
        assert module.auto_device() == "cpu"
        report = report_device(precision="fp32")
    finally:
        module.cuda_problem.cache_clear()
    assert report.device == "cpu"
    assert report.problem == "CUDA error: no kernel image is available for execution on the device"


def test_a_broken_torch_is_reported(monkeypatch) -> None:
    whole = builtins.__import__

    def broken(name: str, *rest: object) -> object:
        if name == "torch":
            raise OSError("[WinError 126] c10.dll")
        return whole(name, *rest)

    monkeypatch.setattr(builtins, "__import__", broken)
    report = report_device()
    assert report.text == "PyTorch does not work here: [WinError 126] c10.dll"


def test_unknown_memory_is_left_out() -> None:
    report = DeviceReport("2.9", None, "mps", "GPU of Apple M2", None, None, "fp32", 8)
    assert report.text == "PyTorch 2.9, MPS GPU of Apple M2, fp32"


def test_a_mac_tells_its_processor_and_memory(monkeypatch) -> None:
    answers = {
        "sysctl": "Apple M2\n",
        "vm_stat": "Mach Virtual Memory Statistics: (page size of 16384 bytes)\nPages free:      100.\n"
        "Pages active:   999.\nPages inactive:   20.\nPages speculative:  3.\nPages purgeable:   1.\n",
    }
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(module, "_output", lambda command, *rest: answers[command])
    assert module.cpu_name() == "Apple M2"
    assert module.free_memory() == 16384 * 124
    monkeypatch.setattr(module, "_output", lambda command, *rest: "")
    assert module.free_memory() is None
    assert module.cpu_name(), "the architecture at least"


def test_commands_that_fail_or_hang_are_no_reason_to_fail() -> None:
    with pytest.raises(OSError, match="exit status"):
        module._output(sys.executable, "-c", "raise SystemExit(3)")
    assert issubclass(subprocess.TimeoutExpired, subprocess.SubprocessError)


def test_importing_it_does_not_import_torch() -> None:
    code = "import sys, SAMMed3DLib.torch_setup.device as d; print('torch' in sys.modules)"
    source = module.__file__.rpartition("SAMMed3DLib")[0]
    run = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
