"""Runs a folder's tests in one child process and reports each of them in this one.

Qt, VTK and PySide6 in one process may crash when the interpreter ends, after all work is done, and a stand-in for
``qt`` must not meet the other tests. So the tests run in a child that ends with os._exit, and the parent repeats their
reports. A crash fails the test in which it happened and those after it, and nothing else.
"""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

#: Set in the child: the pipe for its reports.
_PIPE = "SAMMED3D_GUI_REPORTS"
_SECONDS_PER_TEST = 300


def is_child() -> bool:
    """Whether this is the process that runs the tests."""
    return _PIPE in os.environ


class Child:
    """The child process, seen from the parent."""

    def __init__(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        self._config = session.config
        self._folder = tempfile.TemporaryDirectory(prefix="sammed3d-gui-")
        self._log = Path(self._folder.name) / "output.txt"
        names = Path(self._folder.name) / "tests.txt"
        names.write_text("\n".join(item.nodeid for item in items), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"@{names}"]
        read, write = os.pipe()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=session.config.rootpath, env=dict(os.environ, **{_PIPE: str(write)}), pass_fds=[write],
                stdout=log, stderr=subprocess.STDOUT,
            )
        os.close(write)
        self._reports = os.fdopen(read, encoding="utf-8")

    def run(self, item: pytest.Item) -> list[pytest.TestReport]:
        """Reports of one test: setup, call, teardown; or one failure when the child is gone."""
        reports: list[pytest.TestReport] = []
        for line in self._reports:
            data = json.loads(line)
            assert data["nodeid"] == item.nodeid, "the child runs the tests in the parent's order"
            if isinstance(data["longrepr"], list):  # of a skip: pytest insists on a tuple, JSON has none
                data["longrepr"] = tuple(data["longrepr"])
            reports.append(self._config.hook.pytest_report_from_serializable(config=self._config, data=data))
            if data["when"] == "teardown":
                return reports
        return [*reports, self._crashed(item)]

    def _crashed(self, item: pytest.Item) -> pytest.TestReport:
        code = self._process.wait()
        tail = self._log.read_text(encoding="utf-8", errors="replace")[-6000:]
        text = f"the process of the GUI tests ended with code {code} before this test was done; its last words:\n{tail}"
        return pytest.TestReport(item.nodeid, item.location, dict(item.keywords), "failed", text, "call")

    def close(self) -> None:
        """Ends the child if it still runs."""
        if self._process.poll() is None:
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._reports.close()
        self._folder.cleanup()


class Reporter:
    """The plugin of the child: writes each report as a line of JSON."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._pipe = os.fdopen(int(os.environ[_PIPE]), "w", encoding="utf-8")

    def pytest_runtest_logstart(self) -> None:
        faulthandler.dump_traceback_later(_SECONDS_PER_TEST, exit=True)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._pipe.write(json.dumps(data) + "\n")
        self._pipe.flush()

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        self._pipe.flush()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
