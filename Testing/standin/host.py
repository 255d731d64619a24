"""Puts the simulation in place of Slicer's modules and opens a scripted module in it."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

import slicer
import slicer.util
from PySide6 import QtCore, QtWidgets

from slicer_scene import SlicerScene
from standin import (
    application,
    ctk_widgets,
    failures,
    modules,
    node_combo_box,
    parameter_node,
    pythonqt,
    qt_module,
    scripted_module,
    ui_loader,
)

#: PySide6's functions without a result give back None without counting it (6.10, Python 3.11, where None can die): each
#: turn of the event loop takes some references away. These are enough for hours.
_NONES = [None] * 4_000_000 if sys.version_info < (3, 12) else []

_CLASSES: dict[str, type] = {
    cls.__name__: cls for source in (ctk_widgets, node_combo_box, application, modules) for cls in source.CLASSES
}


class _UiLoader:
    """``qt.QUiLoader`` as slicer.util.loadUI uses it."""

    def load(self, file: Any) -> Any:
        """The widget of an open QFile."""
        return pythonqt.wrap(ui_loader.load(file.fileName(), _CLASSES))


def install() -> application.qSlicerApplication:
    """Makes ``qt``, ``ctk`` and the missing parts of ``slicer``; once a process."""
    existing = QtWidgets.QApplication.instance()
    if isinstance(existing, application.qSlicerApplication):
        return existing
    app = application.qSlicerApplication()
    sys.modules["qt"] = qt_module.make()
    sys.modules["qt"].QUiLoader = _UiLoader  # type: ignore[attr-defined]
    ctk = types.ModuleType("ctk", "Simulated by PySide6 with PythonQt's rules.")
    for name, cls in _CLASSES.items():
        setattr(ctk if name.startswith("ctk") else slicer, name, pythonqt.python_class(cls))
    sys.modules["ctk"] = ctk
    _submodule("i18n", tr=_tr, translate=lambda context, text: text)
    _submodule("ScriptedLoadableModule", **_public(scripted_module, "ScriptedLoadableModule"))
    _submodule(
        "parameterNodeWrapper",
        **{
            name: getattr(parameter_node, name) for name in ("parameterNodeWrapper", "WithinRange", "Choice", "Default")
        },
    )
    slicer.util.delayDisplay = lambda text, *_, **__: qt_module.messages.append(text)
    return app


def _submodule(name: str, **members: Any) -> None:
    module = types.ModuleType(f"slicer.{name}")
    vars(module).update(members, __all__=[key for key in members if not key.startswith("_")])
    sys.modules[f"slicer.{name}"] = module
    setattr(slicer, name, module)


def _public(module: Any, prefix: str) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name.startswith(prefix)}


def _tr(text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"only a literal text can be translated, not {text!r}")
    return text


class Host:
    """The application with a fresh scene, and the modules loaded into it.

    Attributes:
        scene: the SlicerScene of ring B.
        app: the simulated qSlicerApplication (its PySide6 object).
    """

    def __init__(self, *, with_layout: bool = True, testing: bool = False) -> None:
        self.app = install()
        self.scene = SlicerScene()
        self.app.open(self.scene, with_layout=with_layout)
        self.app.testing = testing
        slicer.app = pythonqt.wrap(self.app)
        slicer.util.selectModule = self.select
        slicer.util.saveScene = self._save
        slicer.util.loadScene = self._load
        self._entered: Any = None
        self._folders: list[str] = []
        self._window: QtWidgets.QMainWindow | None = None
        if with_layout:
            self._window = QtWidgets.QMainWindow()
            self._window.setObjectName("qSlicerMainWindow")
            self._panels = QtWidgets.QStackedWidget()
            self._window.setCentralWidget(self._panels)

    def load(self, path: Path) -> Any:
        """What the module factory does: imports the file, makes the module object; ``slicer.modules.name`` is there."""
        name = path.stem
        if str(path.parent) not in sys.path:
            sys.path.insert(0, str(path.parent))
            self._folders.append(str(path.parent))
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        source = importlib.util.module_from_spec(spec)
        sys.modules[name] = source
        spec.loader.exec_module(source)
        module = modules.qSlicerScriptedLoadableModule(name, str(path))
        module.make_representation = lambda: self._representation(name)
        wrapper = pythonqt.wrap(module)
        getattr(source, name)(wrapper)
        self.app.moduleManager().loaded[name] = module
        setattr(slicer.modules, name.lower(), wrapper)
        return wrapper

    def _representation(self, name: str) -> modules.qSlicerScriptedLoadableModuleWidget:
        frame = modules.qSlicerScriptedLoadableModuleWidget(name)
        frame.make_python_self = lambda: self._python_widget(name, frame)
        frame.reload()
        frame.setMRMLScene(slicer.mrmlScene)
        if self._window is not None:
            self._panels.addWidget(frame)
            self._window.resize(480, 1000)
            self._window.show()
        return frame

    @staticmethod
    def _python_widget(name: str, frame: modules.qSlicerScriptedLoadableModuleWidget) -> Any:
        widget = getattr(sys.modules[name], f"{name}Widget")(pythonqt.wrap(frame))
        setattr(slicer.modules, f"{name}Widget", widget)
        return widget

    def select(self, name: str | None) -> Any:
        """What the module selector does; None leaves the current module. Returns the Python widget."""
        if self._entered is not None:
            self._entered.exit()
            self._entered = None
        if name is None:
            return None
        self._entered = self.app.moduleManager().module(name).widgetRepresentation()
        if self._window is not None:
            self._panels.setCurrentWidget(self._entered)
        self._entered.enter()
        return self.widget(name)

    def widget(self, name: str) -> Any:
        """The Python widget object, which is another one after a reload."""
        return getattr(slicer.modules, f"{name}Widget")

    def _save(self, path: str, properties: Any = None) -> bool:
        self.scene.save(Path(path))
        return True

    def _load(self, path: str, properties: Any = None) -> None:
        self.scene.load(Path(path))

    def process(self, seconds: float = 0.0) -> None:
        """Runs the event loop once, or for some time."""
        end = time.monotonic() + seconds
        while True:
            self.app.processEvents()
            self.app.sendPostedEvents(None, int(QtCore.QEvent.Type.DeferredDelete.value))
            if time.monotonic() >= end:
                return
            time.sleep(0.002)

    def wait(self, condition: Callable[[], Any], seconds: float = 20.0) -> None:
        """Runs the event loop until something holds. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError("what the test waits for did not happen")
            self.process()
            time.sleep(0.001)

    def close(self) -> list[str]:
        """Unloads the modules and ends the scene. Returns exceptions of slots that nobody has taken."""
        self.select(None)
        for name in list(self.app.moduleManager().loaded):
            self.app.moduleManager().moduleAboutToBeUnloaded.emit(name)
        self.process()
        if self._window is not None:
            self._window.close()
            self._window.deleteLater()
        self.process()
        self.app.close_scene()
        self.process()
        self.scene.close()
        for folder in self._folders:
            sys.path.remove(folder)
        return failures.take()
