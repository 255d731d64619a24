"""A GUI test that kills or blocks its process fails alone, and says where."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CONFTEST = """
import pytest
from pathlib import Path
from standin import child_process

child_process._SECONDS_PER_TEST = 2.0
FOLDER = Path(__file__).parent
CHILD = pytest.StashKey()

def pytest_configure(config):
    if child_process.is_child():
        config.pluginmanager.register(child_process.Reporter(config))

def pytest_runtest_protocol(item, nextitem):
    if child_process.is_child():
        return None
    if CHILD not in item.config.stash:
        item.config.stash[CHILD] = child_process.Child(item.config, FOLDER)
        item.config.add_cleanup(item.config.stash[CHILD].close)
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in item.config.stash[CHILD].run(item, nextitem):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
"""
TESTS = """
import os, time, pytest
def test_first(): print("printed"); assert "SAMMED3D_GUI_REPORTS" in os.environ
def _abort_here(): os.abort()
def test_crash(): _abort_here()
def test_after_the_crash(): pass
def _wait_here(): time.sleep(600)
def test_hang(): _wait_here()
def test_after_the_hang(): pass
@pytest.mark.skip(reason="why not")
def test_skipped(): pass
def test_false(): assert 1 == 2
"""


def test_a_crash_and_a_hang_fail_alone_and_say_where(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (tmp_path / "test_some.py").write_text(TESTS, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    testing = str(Path(__file__).resolve().parent)
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {testing!r}); import pytest; "
        f"sys.exit(pytest.main(['-p', 'no:cacheprovider', '-rA', {str(tmp_path)!r}]))",
    ]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    output = run.stdout + run.stderr
    outcomes = {
        line.split(" ")[1].rpartition("::")[2]: line.split(" ")[0]
        for line in output.splitlines()
        if line.startswith(("PASSED ", "FAILED "))
    }
    assert outcomes == {
        "test_first": "PASSED",
        "test_crash": "FAILED",
        "test_after_the_crash": "PASSED",
        "test_hang": "FAILED",
        "test_after_the_hang": "PASSED",
        "test_false": "FAILED",
    }, output
    assert "3 failed, 3 passed, 1 skipped" in output
    assert "in test_some.py::test_crash" in output and "_abort_here" in output
    assert "in test_some.py::test_hang" in output and "Timeout" in output and "_wait_here" in output
