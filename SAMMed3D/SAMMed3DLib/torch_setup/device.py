"""Chooses the device of the model: checks that the graphics card really computes, and describes it in one line.

Functions that import torch belong on a worker thread.
"""

from __future__ import annotations

import functools
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from .loading import load_torch


@dataclass(frozen=True)
class DeviceReport:
    """Attributes:
    torch: version of PyTorch, such as "2.9.0+cu128"; "" where it does not work.
    cuda: version of CUDA that this PyTorch was built for, or None.
    device: "cpu", "cuda:0", "mps".
    name: of the processor or graphics card.
    free_bytes: memory that is free there, None where unknown.
    total_bytes: memory of a graphics card, else None.
    precision: number format of the image encoder.
    threads: of the CPU that PyTorch uses.
    problem: why the device asked for is not used, or "".
    """

    torch: str
    cuda: str | None
    device: str
    name: str
    free_bytes: int | None
    total_bytes: int | None
    precision: str
    threads: int
    problem: str = ""

    @property
    def text(self) -> str:
        """One line for users; nothing personal in it."""
        if not self.torch:
            return f"PyTorch does not work here: {self.problem}"
        free = "" if self.free_bytes is None else f"{self.free_bytes / 2**30:.1f} GB free"
        if free and self.total_bytes:
            free = free.replace(" GB", f" of {self.total_bytes / 2**30:.1f} GB")
        parts = [
            f"PyTorch {self.torch}",
            f"{self.device.partition(':')[0].upper()} {self.name}",
            free,
            self.precision,
            f"{self.threads} threads" if self.device == "cpu" else "",
            self.problem,
        ]
        return ", ".join(part for part in parts if part)

    @property
    def details(self) -> str:
        """Several lines to copy into a report of a problem."""
        return (
            f"{self.text}\nCUDA of PyTorch: {self.cuda or 'none'}\n{platform.platform()}, Python "
            f"{platform.python_version()}"
        )


def report_device(device: str = "auto", precision: str = "auto") -> DeviceReport:
    """Resolves a wanted device and precision. Takes seconds the first time: it imports torch.

    Args:
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: "auto", "fp32", "bf16" or "fp16".

    A device or precision that is not there is reported as the CPU with the reason; so is a broken PyTorch.
    """
    try:
        load_torch()
        import torch

        from ..model.precision import DeviceError, resolve_device, resolve_precision
    except (ImportError, OSError) as error:
        return DeviceReport("", None, "cpu", cpu_name(), free_memory(), None, "fp32", 0, str(error))
    problem = ""
    if device == "auto":
        device, problem = auto_device(), cuda_problem()
    try:
        resolved = resolve_device(device)
        precision = resolve_precision(precision, resolved)
        name, free, total = _memory(torch, resolved)
    except (DeviceError, RuntimeError) as error:  # RuntimeError: a driver that does not fit
        problem, resolved = str(error).strip().partition("\n")[0], torch.device("cpu")
        precision = resolve_precision("auto", resolved)
        name, free, total = _memory(torch, resolved)
    return DeviceReport(
        torch.__version__,
        torch.version.cuda,
        str(resolved),
        name,
        free,
        total,
        precision,
        torch.get_num_threads(),
        problem,
    )


def _memory(torch, device) -> tuple[str, int | None, int | None]:  # noqa: ANN001 - torch is only known in here
    """Name, free and total bytes of a device. Raises RuntimeError where the driver refuses."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return torch.cuda.get_device_name(device), free, total
    return ("GPU of " if device.type == "mps" else "") + cpu_name(), free_memory(), None


@functools.cache
def cuda_problem() -> str:
    """Returns why PyTorch cannot use the NVIDIA card of this machine; "" where it works or there is none.

    A driver and a build of PyTorch may each be fine and not fit together: ``torch.cuda.is_available()`` is also true
    for cards newer than the build. So one tiny computation is run there, which may take a second, once. Imports torch.
    """
    import torch

    try:
        if torch.cuda.is_available():
            torch.zeros(1, device="cuda").add_(1).cpu()
    except Exception as error:  # drivers raise RuntimeError, its kin, and sometimes others
        return str(error).strip().partition("\n")[0] or type(error).__name__
    return ""


def auto_device() -> str:
    """Resolves "auto": "cuda" where a card works, else "cpu". Imports torch."""
    import torch

    return "cuda" if torch.cuda.is_available() and not cuda_problem() else "cpu"


# -- this computer, without any package -------------------------------------------------------------------------------


def cpu_name() -> str:
    """The processor's name, such as "AMD Ryzen 7 5800X 8-Core Processor"; else its architecture."""
    try:
        if sys.platform == "win32":
            import winreg

            place = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, place) as key:
                name = str(winreg.QueryValueEx(key, "ProcessorNameString")[0])
        elif sys.platform == "darwin":
            name = _output("sysctl", "-n", "machdep.cpu.brand_string")
        else:
            found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.M)
            name = found[1] if found else ""
    except OSError:
        name = ""
    return " ".join(name.split()) or platform.machine() or "CPU"


def free_memory() -> int | None:
    """Bytes that a program can take without swapping; None where the system does not tell."""
    try:
        if sys.platform == "win32":
            return _windows_free_memory()
        if sys.platform == "darwin":
            return _free_pages(_output("vm_stat"))
        found = re.search(r"^MemAvailable:\s*(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"), re.M)
        return int(found[1]) << 10 if found else None
    except OSError:
        return None


def _free_pages(vm_stat: str) -> int | None:
    """Reads the output of macOS' vm_stat: pages that are free, or kept only because nobody needed them."""
    size = re.search(r"page size of (\d+) bytes", vm_stat)
    pages = re.findall(r"^Pages (?:free|inactive|speculative|purgeable):\s*(\d+)\.", vm_stat, re.M)
    return int(size[1]) * sum(map(int, pages)) if size and pages else None


def _windows_free_memory() -> int | None:
    if sys.platform != "win32":  # told to type checkers
        return None
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)] + [
            (name, ctypes.c_ulonglong)
            for name in ("total", "free", "total_page", "free_page", "total_virtual", "free_virtual", "free_extended")
        ]

    status = Status(length=ctypes.sizeof(Status))
    return status.free if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)) else None


def _output(*command: str) -> str:
    import subprocess

    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
    except subprocess.SubprocessError as error:
        raise OSError(str(error)) from error
