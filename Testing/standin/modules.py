"""Stand-ins for the C++ side of a scripted module: the module object and the widget that holds its panel."""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

from standin import failures


class qSlicerScriptedLoadableModule(QtCore.QObject):
    """What ``parent`` is in a ScriptedLoadableModule's constructor."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__()
        self._values: dict[str, Any] = {
            "name": name,
            "path": path,
            "title": name,
            "helpText": "",
            "acknowledgementText": "",
            "categories": [],
            "dependencies": [],
            "contributors": [],
            "associatedNodeTypes": [],
            "hidden": False,
            "index": -1,
        }
        self._icon = QtGui.QIcon()
        self._representation: Any = None
        self.make_representation: Any = None
        self.python_logic: Any = None

    def widgetRepresentation(self) -> Any:
        """The module's panel, made when it is asked for."""
        if self._representation is None and self.make_representation is not None:
            self._representation = self.make_representation()
        return self._representation

    def logic(self) -> Any:
        """The C++ logic of a scripted module says nothing."""
        return None

    def _value(kind: Any, name: str, writable: bool = True) -> QtCore.Property:  # noqa: N805
        def get(self: qSlicerScriptedLoadableModule) -> Any:
            return self._values[name]

        def set_(self: qSlicerScriptedLoadableModule, value: Any) -> None:
            wanted = (list, tuple) if kind == "QStringList" else kind
            if not isinstance(value, wanted):
                raise AttributeError(f"Property '{name}' does not accept {value!r}")
            self._values[name] = value

        return QtCore.Property(kind, get, set_ if writable else None)

    name = _value(str, "name", writable=False)
    path = _value(str, "path", writable=False)
    title = _value(str, "title")
    helpText = _value(str, "helpText")
    acknowledgementText = _value(str, "acknowledgementText")
    categories = _value("QStringList", "categories")
    dependencies = _value("QStringList", "dependencies")
    contributors = _value("QStringList", "contributors")
    associatedNodeTypes = _value("QStringList", "associatedNodeTypes")
    hidden = _value(bool, "hidden")
    index = _value(int, "index")
    icon = QtCore.Property(QtGui.QIcon, lambda self: self._icon, lambda self, icon: setattr(self, "_icon", icon))


class qSlicerScriptedLoadableModuleWidget(QtWidgets.QWidget):
    """The panel's frame: calls ``setup``, ``enter`` and ``exit`` of the Python widget, as the module panel does."""

    mrmlSceneChanged = QtCore.Signal(object)
    SIGNATURES = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}

    def __init__(self, name: str) -> None:
        super().__init__()
        QtWidgets.QVBoxLayout(self)
        self._name = name
        self._entered = False
        self.python_self: Any = None
        self.make_python_self: Any = None

    def self(self) -> Any:
        """The Python widget object."""
        return self.python_self

    def reload(self) -> None:
        """Makes the Python widget, of the class that the module's file has now, and sets it up."""
        self.python_self = self.make_python_self()
        self.python_self.setup()

    def setMRMLScene(self, scene: Any) -> None:
        """Slot."""
        self.mrmlSceneChanged.emit(scene)

    def enter(self) -> None:
        """What selecting the module does."""
        self._entered = True
        self._call("enter")

    def exit(self) -> None:
        """What leaving the module does."""
        self._entered = False
        self._call("exit")

    def _call(self, name: str) -> None:
        function = getattr(self.python_self, name, None)
        if function is not None:
            try:
                function()
            except Exception as error:  # Slicer prints it and goes on
                failures.record(error, name)

    isEntered = QtCore.Property(bool, lambda self: self._entered)
    moduleName = QtCore.Property(str, lambda self: self._name)


CLASSES = (qSlicerScriptedLoadableModule, qSlicerScriptedLoadableModuleWidget)
