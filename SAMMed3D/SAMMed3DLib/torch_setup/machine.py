"""The name of this computer's processor and its free memory, without any package."""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path


def cpu_name() -> str:
    """What the processor calls itself, such as "AMD Ryzen 7 5800X 8-Core Processor"; else its architecture."""
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
    """From the output of macOS' vm_stat: pages that are free, or kept only because nobody needed them."""
    size = re.search(r"page size of (\d+) bytes", vm_stat)
    pages = re.findall(r"^Pages (?:free|inactive|speculative|purgeable):\s*(\d+)\.", vm_stat, re.M)
    return int(size[1]) * sum(map(int, pages)) if size and pages else None


def _windows_free_memory() -> int | None:
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ulong), ("load", ctypes.c_ulong)] + [
            (name, ctypes.c_ulonglong) for name in
            ("total", "free", "total_page", "free_page", "total_virtual", "free_virtual", "free_extended")
        ]

    status = Status(length=ctypes.sizeof(Status))
    return status.free if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)) else None


def _output(*command: str) -> str:
    import subprocess

    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout
    except subprocess.SubprocessError as error:
        raise OSError(str(error)) from error
