"""Ring C: the module's panel in a simulation of Slicer (``standin``), clicked through offscreen.

The tests run in a child process (see standin/child_process.py); skipped where PySide6 or slicer-core is missing.
"""

from __future__ import annotations

import gc
import importlib.util
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from standin import child_process

if TYPE_CHECKING:
    from gui.fake_engine import FakeEngine
    from gui.slicer_user import User
    from standin.host import Host

_FOLDER = Path(__file__).parent
_MISSING = [name for name in ("PySide6", "slicer") if importlib.util.find_spec(name) is None]
_CHILD = pytest.StashKey[child_process.Child]()


def pytest_configure(config: pytest.Config) -> None:
    """In the child: reports go to the parent."""
    if child_process.is_child():
        config.pluginmanager.register(child_process.Reporter(config))


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """In the parent: repeats what the child reports. Pytest asks this file about the other folders' tests as well."""
    if child_process.is_child() or _MISSING or _FOLDER not in item.path.parents:
        return None
    config = item.config
    if _CHILD not in config.stash:
        config.stash[_CHILD] = child_process.Child(config, _FOLDER)
        config.add_cleanup(config.stash[_CHILD].close)
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in config.stash[_CHILD].run(item, nextitem):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.fixture(autouse=True)
def needs_qt() -> None:
    """Says why nothing runs here."""
    if _MISSING:
        pytest.skip(f"not installed: {', '.join(_MISSING)}")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """The simulated application with an empty scene.

    Exceptions in slots, timers and observers fail the test, and so does what VTK complains about.
    """
    from standin import failures, qt_module
    from standin.host import Host
    from vtk_complaints import no_vtk_complaints

    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: failures.record(error, "callback"))
    monkeypatch.setattr(threading, "excepthook", lambda info: failures.record(info.exc_value, "thread"))
    monkeypatch.setattr(sys, "unraisablehook", lambda info: failures.record(info.exc_value, "destructor"))
    failures.take()
    qt_module.reset()
    with no_vtk_complaints():
        host = Host()
        yield host
        errors = host.close() + failures.take()
    # widgets in reference cycles must die here, in their own thread: a later test's worker may run the collector
    gc.collect()
    assert not errors, "\n".join(errors)
    assert not qt_module.leftovers(), f"answers that no dialog asked for: {qt_module.leftovers()}"


@pytest.fixture
def engine() -> FakeEngine:
    """Answers at once with balls; see there how to keep it waiting or failing."""
    from gui.fake_engine import FakeEngine

    return FakeEngine()


@pytest.fixture
def user(host: Host, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> User:
    """The module is loaded, not yet opened; no network behind it, and PyTorch counts as installed."""
    import SAMMed3DLib.gui.panel
    from gui.slicer_user import MODULE, User

    monkeypatch.setattr(SAMMed3DLib.gui.panel, "Engine", lambda: engine)
    host.load(MODULE)
    return User(host, engine)
