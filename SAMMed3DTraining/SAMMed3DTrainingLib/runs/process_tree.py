"""Finds and ends all processes that a process started, also where those in between are gone.

On Linux a process belongs to a session when the session's name is in its environment, which children inherit: that
finds those whose parents have died and that made process groups of their own (torchrun's workers do). Elsewhere it is
parents and process groups.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .run_files import SESSION

_ROUND_SECONDS = 0.02
#: A process with gigabytes of memory takes a moment to die.
_DEATH_SECONDS = 3.0


@dataclass(frozen=True)
class Process:
    """One line of the system's list.

    Attributes:
        group: process group; 0 where there are none.
        started: when, in a unit of the system's; 0 where parents are always true.
    """

    pid: int
    parent: int
    group: int = 0
    started: int = 0


def processes() -> list[Process]:
    """Every process that is alive."""
    if os.name == "nt":
        return _windows_processes()
    if Path("/proc/self/stat").exists():
        return _linux_processes()
    return _listed_processes()


def tree(root: int, session: str = "") -> set[int]:
    """The process ``root``, if alive, and all that come from it; never this process or one that it comes from.

    Args:
        root: process ID. On POSIX also the process group of that number is meant.
        session: name in the environment of all of them; "" where there is none.
    """
    listed = processes()
    found = {each.pid for each in listed if root in (each.pid, each.group)}
    if session:
        found |= {each.pid for each in listed if _is_of_session(each.pid, session)}
    started = {each.pid: each.started for each in listed}
    todo = list(found)
    while todo:
        parent = todo.pop()
        # Windows gives numbers again: whoever is older than its parent is the child of another one of that number.
        new = [
            each.pid
            for each in listed
            if each.parent == parent and each.pid not in found and each.started >= started[parent]
        ]
        found.update(new)
        todo += new
    return found - _own_line(listed)


def end_tree(
    root: int,
    session: str = "",
    grace_s: float = 0.0,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> set[int]:
    """Ends a process and all that come from it. Returns those that still live (of another user, say).

    Args:
        root, session: as :func:`tree`.
        grace_s: seconds that they get to end by themselves after a polite signal (POSIX); 0 ends them at once.
        sleep, clock: wait and measure.
    """
    alive = tree(root, session)
    if grace_s > 0 and os.name != "nt":
        _signal(alive, signal.SIGTERM)
        deadline = clock() + grace_s
        while alive and clock() < deadline:
            sleep(_ROUND_SECONDS)
            alive = tree(root, session)
    deadline = clock() + _DEATH_SECONDS
    while alive and clock() < deadline:  # again and again: processes may start others while they are being ended
        # Windows knows no signals: any other than Ctrl+C ends the process.
        _signal(alive, getattr(signal, "SIGKILL", signal.SIGTERM))
        sleep(_ROUND_SECONDS)
        alive = tree(root, session)
    return alive


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with suppress(OSError):  # it has ended, or belongs to someone else
            os.kill(pid, number)


def _own_line(listed: list[Process]) -> set[int]:
    """This process and those that it comes from."""
    parents = {each.pid: each.parent for each in listed}
    line, pid = {os.getpid()}, os.getpid()
    while (pid := parents.get(pid, 0)) > 1 and pid not in line:
        line.add(pid)
    return line


def _is_of_session(pid: int, session: str) -> bool:
    """Whether a process belongs to a session; known on Linux only, False elsewhere."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"{SESSION}={session}".encode() in environment.split(b"\0")


def _linux_processes() -> list[Process]:
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            text = Path(entry.path, "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        state, parent, group = text[text.rindex(")") + 2 :].split()[:3]  # the name may hold blanks and parentheses
        if state not in "ZX":
            found.append(Process(int(entry.name), int(parent), int(group)))
    return found


def _listed_processes() -> list[Process]:
    """The processes as ``ps`` lists them, on macOS and other POSIX systems."""
    listing = subprocess.run(
        ["ps", "-axo", "pid=,ppid=,pgid=,stat="], capture_output=True, text=True, check=False
    ).stdout
    rows = [line.split() for line in listing.splitlines()]
    return [Process(int(row[0]), int(row[1]), int(row[2])) for row in rows if len(row) > 3 and row[3][0] != "Z"]


def _windows_processes() -> list[Process]:
    """The processes of Windows, by the Tool Help library (CreateToolhelp32Snapshot)."""
    if sys.platform != "win32":
        return []
    import ctypes
    from ctypes import wintypes

    class Entry(ctypes.Structure):
        _fields_ = [
            ("dwSize", wintypes.DWORD),
            ("cntUsage", wintypes.DWORD),
            ("th32ProcessID", wintypes.DWORD),
            ("th32DefaultHeapID", ctypes.c_size_t),
            ("th32ModuleID", wintypes.DWORD),
            ("cntThreads", wintypes.DWORD),
            ("th32ParentProcessID", wintypes.DWORD),
            ("pcPriClassBase", wintypes.LONG),
            ("dwFlags", wintypes.DWORD),
            ("szExeFile", wintypes.WCHAR * 260),
        ]

    library = ctypes.WinDLL("kernel32", use_last_error=True)
    library.CreateToolhelp32Snapshot.restype = wintypes.HANDLE
    library.CreateToolhelp32Snapshot.argtypes = [wintypes.DWORD, wintypes.DWORD]
    for name in ("Process32FirstW", "Process32NextW"):
        getattr(library, name).argtypes = [wintypes.HANDLE, ctypes.POINTER(Entry)]
    library.CloseHandle.argtypes = [wintypes.HANDLE]
    library.OpenProcess.restype = wintypes.HANDLE
    library.OpenProcess.argtypes = [wintypes.DWORD, wintypes.BOOL, wintypes.DWORD]
    library.GetProcessTimes.argtypes = [wintypes.HANDLE, *[ctypes.POINTER(wintypes.FILETIME)] * 4]

    def started(pid: int) -> int:
        """The start of a process in 100 ns since 1601; 0 for a process of the system."""
        handle = library.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
        if not handle:
            return 0
        times = [wintypes.FILETIME() for _ in range(4)]
        known = library.GetProcessTimes(handle, *map(ctypes.byref, times))
        library.CloseHandle(handle)
        return (times[0].dwHighDateTime << 32 | times[0].dwLowDateTime) if known else 0

    snapshot = library.CreateToolhelp32Snapshot(2, 0)  # TH32CS_SNAPPROCESS
    if snapshot == wintypes.HANDLE(-1).value:
        return []
    try:
        entry, found = Entry(dwSize=ctypes.sizeof(Entry)), []
        more = library.Process32FirstW(snapshot, ctypes.byref(entry))
        while more:
            pid = entry.th32ProcessID
            found.append(Process(pid, entry.th32ParentProcessID, started=started(pid)))
            more = library.Process32NextW(snapshot, ctypes.byref(entry))
    finally:
        library.CloseHandle(snapshot)
    return found
