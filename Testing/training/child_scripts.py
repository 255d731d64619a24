"""Small Python programs that tests start as child processes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

TIMEOUT = 60

#: Writes its number and that of a grandchild in a session of its own, as torchrun's workers are, into a file.
WITH_GRANDCHILD = """
import os, subprocess, sys, time
more = {} if os.name == "nt" else {"start_new_session": True}
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], **more)
open(sys.argv[1] + ".part", "w").write(f"{os.getpid()} {child.pid}")
os.replace(sys.argv[1] + ".part", sys.argv[1])
time.sleep(600 if sys.argv[2] == "stays" else 0)
"""

#: Does not hear SIGTERM.
STUBBORN = """
import signal, sys, time, os
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1] + ".part", "w").write(str(os.getpid()))
os.replace(sys.argv[1] + ".part", sys.argv[1])
time.sleep(600)
"""


def command(script: str, *arguments: str) -> list[str]:
    """To start a program; -S -E: without looking for packages, which takes longest."""
    return [sys.executable, "-S", "-E", "-c", script, *arguments]


def until(condition: Callable[[], bool], what: str = "") -> None:
    """Waits for a condition; fails after a minute."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, what or "it never came"
        time.sleep(0.01)


def numbers(path: Path) -> list[int]:
    """What such a program has written."""
    until(path.exists, f"{path} was not written")
    return [int(word) for word in path.read_text(encoding="utf-8").split()]


def environment() -> dict[str, str]:
    """Of a child."""
    return dict(os.environ)
