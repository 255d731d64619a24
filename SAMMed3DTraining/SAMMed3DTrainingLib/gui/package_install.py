"""The button that installs what training needs: a clear list first, and nothing that is there is replaced."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from SAMMed3DLib.torch_setup.install import Outcome, TorchInstaller


def installPackages(state: Any, folder: Path, parent: Any) -> str:
    """Asks and installs. Returns what went wrong, "" where nothing did or the user said no.

    Args:
        state: runs.packages_check.PackageState.
        folder: for the file that keeps pip from replacing anything.
    """
    if state.needs_torch:
        result = TorchInstaller().install()
        if result.outcome is not Outcome.READY:
            return str(result.message)
    if not state.requirements:
        return ""
    wanted = [each for each in (*state.missing, *state.optional_missing) if each.requirement in state.requirements]
    lines = "\n".join(f"  {package.requirement}: {package.purpose}" for package in wanted)
    question = _("Install these packages into Slicer's Python? Nothing that is there is replaced.\n\n{packages}")
    if not slicer.util.confirmOkCancelDisplay(question.format(packages=lines), parent=parent):
        return ""
    from ..runs.packages_check import write_constraints

    constraints = folder / "constraints.txt"
    write_constraints(constraints)
    try:
        slicer.util.pip_install([*state.requirements, "-c", str(constraints)])
    except (subprocess.CalledProcessError, RuntimeError, OSError) as error:
        return _("The packages could not be installed: {error}. Slicer's Python console has the details.").format(
            error=error
        )
    return ""
