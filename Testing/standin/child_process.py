"""Runs a folder's tests in a child process and reports each of them in this one.

Qt, VTK and PySide6 in one process may crash when the interpreter ends, after all work is done, and a stand-in for
``qt`` must not meet the other tests. So the tests run in a child that ends with os._exit, and the parent repeats their
reports. A crash or a hang fails the test in which it happened, with the stack of every thread; the next test gets a
new child.
"""

from __future__ import annotations

import faulthandler
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

import pytest

#: Set in the child: the file descriptor for its reports.
_REPORTS = "SAMMED3D_GUI_REPORTS"
_SECONDS_PER_TEST = 300


def is_child() -> bool:
    """Tells whether this is the process that runs the tests."""
    return _REPORTS in os.environ


class Child:
    """The child process, seen from the parent."""

    def __init__(self, config: pytest.Config, folder: Path) -> None:
        self._config = config
        self._tests = folder
        self._folder = tempfile.TemporaryDirectory(prefix="sammed3d-gui-")
        self._log = Path(self._folder.name) / "output.txt"
        self._process: subprocess.Popen[str] | None = None

    def run(self, item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.TestReport]:
        """Returns a test's reports: setup, call, teardown; or one failure when the child died of it.

        Args:
            item: the test.
            nextitem: the test after it, so that pytest knows which fixtures to keep.
        """
        process = self._process or self._start()
        requests, answers = _pipes(process)
        following = nextitem.nodeid if nextitem is not None and self._tests in nextitem.path.parents else None
        reports: list[pytest.TestReport] = []
        try:
            requests.write(json.dumps([item.nodeid, following]) + "\n")
            requests.flush()
        except OSError:
            return [self._crashed(item)]
        for line in answers:
            data = json.loads(line)
            assert data["nodeid"] == item.nodeid, "the child runs the test that it was asked to run"
            if isinstance(data["longrepr"], list):  # of a skip: pytest insists on a tuple, JSON has none
                data["longrepr"] = tuple(data["longrepr"])
            reports.append(self._config.hook.pytest_report_from_serializable(config=self._config, data=data))
            if data["when"] == "teardown":
                return reports
        return [*reports, self._crashed(item)]

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "standin.child_process", str(self._tests)]
        paths = os.pathsep.join([str(Path(__file__).resolve().parents[1]), *filter(None, sys.path)])
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._config.rootpath,
                env=os.environ | {"PYTHONPATH": paths},
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                encoding="utf-8",
            )
        return self._process

    def _crashed(self, item: pytest.Item) -> pytest.TestReport:
        assert self._process is not None
        code = self._process.wait()
        self._process = None
        # what faulthandler lists after the stacks, modules without an end, would hide them
        words = self._log.read_text(encoding="utf-8", errors="replace").partition("\nExtension modules:")[0]
        tail = words[-8000:]
        text = f"the process of the GUI tests ended with code {code} in {item.nodeid}; its last words:\n{tail}"
        return pytest.TestReport(item.nodeid, item.location, dict(item.keywords), "failed", text, "call")

    def close(self) -> None:
        """Ends the child if it still runs."""
        if self._process is not None:
            requests, _ = _pipes(self._process)
            requests.close()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._folder.cleanup()


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None and process.stdout is not None
    return process.stdin, process.stdout


class Reporter:
    """The plugin of the child: runs the tests that the parent names and writes each report as a line of JSON."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._pipe = os.fdopen(int(os.environ[_REPORTS]), "w", encoding="utf-8")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        for line in sys.__stdin__ or ():
            name, following = json.loads(line)
            item = items[name]
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=items.get(following))
        return True

    def pytest_runtest_logstart(self) -> None:
        faulthandler.dump_traceback_later(_SECONDS_PER_TEST * _busy(), exit=True, file=sys.__stderr__)

    def pytest_runtest_logfinish(self) -> None:
        faulthandler.cancel_dump_traceback_later()

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


def _busy() -> float:
    """How many processes share a core, at least 1: a test may take that much longer before it counts as hanging."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 1.0
    return max(load / (os.cpu_count() or 1), 1.0)


def _main(folder: str) -> int:
    """Runs in the child. Reports go where standard output went; what the tests print goes to standard error."""
    os.environ[_REPORTS] = str(os.dup(1))
    os.dup2(2, 1)
    faulthandler.enable(sys.__stderr__)
    # Captured "sys", not "fd": a stack that faulthandler writes must reach the log.
    return int(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--capture=sys", folder]))


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
