"""``sammed3d evaluate`` hands over to SAMMed3DTrainingLib, or says that it is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from SAMMed3DLib.cli import main

ROOT = Path(__file__).resolve().parents[2]


def test_the_options_are_those_of_test_py(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", "--help"])
    told = capsys.readouterr().out
    assert stopped.value.code == 0 and "usage: sammed3d evaluate" in told and "--num_clicks" in told


def test_wrong_input_ends_with_code_2(tmp_path, capsys):
    assert main(["evaluate", "-tdp", str(tmp_path / "gone")]) == 2
    assert "sammed3d evaluate: error:" in capsys.readouterr().err


def test_it_is_listed(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "evaluate" in capsys.readouterr().out


def test_without_the_training_library_the_cure_is_named(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "SAMMed3D")}
    # -S would lose an installed torch; an editable installation of this package is hidden by the finder instead.
    code = (
        "import sys; sys.modules['SAMMed3DTrainingLib'] = None; from SAMMed3DLib.cli import main; "
        "sys.exit(main(['evaluate', '-tdp', 'data']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 2 and "pip install ." in done.stderr and "Traceback" not in done.stderr
