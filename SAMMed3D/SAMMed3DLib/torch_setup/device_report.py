"""Where the model runs: one line for the panel and for bug reports. Call it on a worker thread: it imports torch."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from .machine import cpu_name, free_memory
from .torch_loading import load_torch


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
            f"PyTorch {self.torch}", f"{self.device.partition(':')[0].upper()} {self.name}", free, self.precision,
            f"{self.threads} threads" if self.device == "cpu" else "", self.problem,
        ]
        return ", ".join(part for part in parts if part)

    @property
    def details(self) -> str:
        """Several lines to copy into a report of a problem."""
        return f"{self.text}\nCUDA of PyTorch: {self.cuda or 'none'}\n{platform.platform()}, Python " \
               f"{platform.python_version()}"


def report_device(device: str = "auto", precision: str = "auto") -> DeviceReport:
    """What is used when this device and precision are asked for. Takes seconds the first time: it imports torch.

    Args:
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        precision: "auto", "fp32", "bf16" or "fp16".

    A device or precision that is not there is reported as the CPU with the reason; so is a broken PyTorch.
    """
    try:
        load_torch()
        import torch

        from ..model.precision import DeviceError, resolve_device, resolve_precision
        from .cuda_check import auto_device, cuda_problem
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
        torch.__version__, torch.version.cuda, str(resolved), name, free, total, precision, torch.get_num_threads(),
        problem,
    )


def _memory(torch, device) -> tuple[str, int | None, int | None]:  # noqa: ANN001 - torch is only known in here
    """Name, free and total bytes of a device. Raises RuntimeError where the driver refuses."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return torch.cuda.get_device_name(device), free, total
    return ("GPU of " if device.type == "mps" else "") + cpu_name(), free_memory(), None
