"""Sets up everything in a virtual environment inside the checkout, then runs one command. Needs nothing but Python.

    python3 Testing/bootstrap.py demo              any `sammed3d` command with its options
    python3 Testing/bootstrap.py segment CT.nii.gz --point -45.2,10,-300
    python3 Testing/bootstrap.py test              ruff, mypy and pytest; further options go to pytest

The environment is `.venv` in the checkout (or $SAMMED3D_VENV); it is made once and brought up to date when
pyproject.toml changes. Delete the folder to start afresh.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST = (3, 10)
PYTHONS = ("python3.13", "python3.12", "python3.11", "python3.10")
TORCH = "torch>=2.5"
LEAST_FREE_BYTES = 1_500_000_000
TORCH_CPU_HOST = "download.pytorch.org"
#: What `test` runs beside the tests.
CHECKS = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",))
#: The tests of a file stay together, in one process a core.
DIVIDED = ("--numprocesses=auto", "--dist=loadfile")
# What the tests of the Slicer parts load to draw without a screen -> its Debian and Ubuntu package.
SYSTEM_LIBRARIES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    # Qt, for the tests of the panel
    "libX11.so.6": "libx11-6",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libxkbcommon.so.0": "libxkbcommon0",
    "libzstd.so.1": "libzstd1",
}


class SetupError(RuntimeError):
    """Setting up failed; the message names the cure."""


def main(arguments: list[str]) -> int:
    """Runs one command in the environment, making it first when needed. Returns the command's exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print((__doc__ or "").strip())
        return 0
    if sys.version_info < OLDEST:
        return _run_with_newer_python(arguments)
    testing = arguments[0] == "test"
    try:
        folder = Path(os.environ.get("SAMMED3D_VENV") or ROOT / ".venv").expanduser()
        python = prepare(folder, "test" if testing else "")
    except (SetupError, OSError) as error:
        print(f"bootstrap: error: {error}", file=sys.stderr)
        return 1
    if not testing:
        return subprocess.call([python, "-m", "SAMMed3DLib.cli", *arguments])
    install_system_libraries()
    checks = [subprocess.call([python, "-m", *check], cwd=ROOT) for check in CHECKS]
    tests = subprocess.call([python, "-m", "pytest", *DIVIDED, *arguments[1:]], cwd=ROOT)
    return tests or max(checks)


def prepare(folder: Path, extra: str) -> str:
    """The Python of an environment in which the package is installed, editable, with an optional extra.

    Raises SetupError.
    """
    python = str(folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + str(ROOT).encode()).hexdigest()
    stamp = folder / f"sammed3d-installed-{extra or 'plain'}"
    if Path(python).is_file() and stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    _check_place(folder)
    if not Path(python).is_file():
        _say(f"making a virtual environment in {folder}")
        _make_environment(folder)
    if not _has_module(python, "torch"):
        _install_torch(python)
    _say("installing SAMMed3D and what it needs (some minutes the first time)")
    if _pip(python, "install", "--editable", f"{ROOT}[{extra}]" if extra else str(ROOT)) != 0:
        raise SetupError(
            "pip could not install the packages (its message is above). Check the network connection, a proxy "
            "(HTTPS_PROXY) and the free disk space (2 GB), then run the same command again."
        )
    stamp.write_text(wanted)
    return python


def _check_place(folder: Path) -> None:
    """Raises SetupError where the environment cannot be made: a read-only or full place has another cure than pip's."""
    place = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    elsewhere = "set SAMMED3D_VENV to a folder in a place of yours, such as SAMMED3D_VENV=~/sammed3d-venv"
    if not (place.is_dir() and os.access(place, os.W_OK)):
        raise SetupError(f"the environment cannot be made in {folder}: {place} may not be written; {elsewhere}")
    free = shutil.disk_usage(place).free
    if free < LEAST_FREE_BYTES and not (folder / "pyvenv.cfg").is_file():
        raise SetupError(
            f"the environment needs about 2 GB, and {place} has {free / 1e9:.1f} GB left: "
            f"free some space, or {elsewhere}"
        )


def install_system_libraries() -> None:
    """Libraries for drawing without a screen; with apt-get where this runs as root, else it says what to install.

    Never asks for a password and never fails: the tests that need them say so and are skipped.
    """
    missing = [package for name, package in SYSTEM_LIBRARIES.items() if not _has_library(name)]
    if platform.system() != "Linux" or not missing:
        return
    packages = " ".join(missing)
    if shutil.which("apt-get") and os.geteuid() == 0:
        _say(f"installing {packages} with apt-get, for the tests that draw")
        settings = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
        install = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", *missing]
        update = ["apt-get", "update", "--quiet"]
        # Fresh images have no package lists, old ones name packages that are gone.
        for steps in ([install], [update, install]):
            if all(subprocess.call(step, env=settings) == 0 for step in steps):
                return
    _say(
        "some libraries for drawing without a screen are missing: tests that draw are skipped. On Debian and Ubuntu "
        f"install them as root: apt-get install {packages} (elsewhere: Mesa's EGL and GL libraries)"
    )


def _has_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _make_environment(folder: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(folder)], capture_output=True, text=True, check=False
    )
    if made.returncode == 0:
        return
    if _has_module(sys.executable, "virtualenv"):
        if subprocess.call([sys.executable, "-m", "virtualenv", "--clear", "--quiet", str(folder)]) == 0:
            return
    elif folder.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
    detail = (made.stderr or made.stdout).strip()
    raise SetupError(
        f"no virtual environment could be made with {sys.executable}:\n{detail}\n"
        "On Debian and Ubuntu install it with 'apt-get install python3-venv'; elsewhere use the Python of python.org."
    )


def _install_torch(python: str) -> None:
    """PyTorch first, so that a machine without an NVIDIA GPU is spared several GB of CUDA packages.

    A wheel lying on this machine (pip's find-links) comes first, then, on Linux without a GPU, PyTorch's own index of
    CPU builds where it can be reached. Where neither works, the package's requirements install the usual build.
    """
    if _pip(python, "install", "--quiet", "--no-index", "--no-deps", TORCH, quiet=True) == 0:
        _say("installed PyTorch from a wheel on this machine")
        return
    if platform.system() != "Linux" or shutil.which("nvidia-smi"):
        return
    if platform.machine() in ("x86_64", "AMD64") and _reachable(TORCH_CPU_HOST):
        _say("installing PyTorch's CPU build, about 200 MB")
        if _pip(python, "install", "--index-url", f"https://{TORCH_CPU_HOST}/whl/cpu", TORCH) == 0:
            return
    _say("no CPU build of PyTorch within reach: the usual one comes instead, with some GB of GPU libraries")


def _reachable(host: str) -> bool:
    try:
        with socket.create_connection((host, 443), timeout=5):
            return True
    except OSError:
        return False


def _pip(python: str, *arguments: str, quiet: bool = False) -> int:
    sink = subprocess.DEVNULL if quiet else None
    command = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    return subprocess.call(command, stdout=sink, stderr=sink)


def _has_module(python: str, name: str) -> bool:
    found = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is None)"
    return subprocess.call([python, "-c", found]) == 0


def _run_with_newer_python(arguments: list[str]) -> int:
    for name in PYTHONS:
        found = shutil.which(name)
        if found:
            return subprocess.call([found, __file__, *arguments])
    version = ".".join(str(number) for number in sys.version_info[:3])
    print(
        f"bootstrap: error: Python {version} is too old: SAMMed3D needs {OLDEST[0]}.{OLDEST[1]} or newer. "
        "Install a newer one and start this script with it.",
        file=sys.stderr,
    )
    return 1


def _say(message: str) -> None:
    print(f"bootstrap: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
