"""Loads a .ui file as slicer.util.loadUI does, refusing what Slicer would silently drop.

Refused: unknown widget classes, properties that the class does not have, and connections between signals and slots
that do not exist.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from PySide6 import QtCore, QtUiTools, QtWidgets

from standin import contract, pythonqt


class UiError(RuntimeError):
    """The file does not fit Slicer's classes."""


class _Loader(QtUiTools.QUiLoader):
    def __init__(self, classes: dict[str, type]) -> None:
        super().__init__()
        self._classes = classes
        self.unknown: list[str] = []

    def createWidget(self, class_name: str, parent: Any = None, name: str = "") -> QtWidgets.QWidget:
        if class_name in self._classes:
            widget = self._classes[class_name](parent)
            widget.setObjectName(name)
            return widget
        if class_name not in self.availableWidgets():
            self.unknown.append(class_name)
            return QtWidgets.QWidget(parent)
        return super().createWidget(class_name, parent, name)


def load(path: str, classes: dict[str, type]) -> QtWidgets.QWidget:
    """The widget of a file. Raises UiError."""
    tree = ElementTree.parse(path)
    root = tree.getroot()
    _check_properties(root)
    connections = root.find("connections")
    if connections is not None:
        root.remove(connections)
    loader = _Loader(classes)
    buffer = QtCore.QBuffer()
    buffer.setData(ElementTree.tostring(root))
    buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
    widget = loader.load(buffer)
    if loader.unknown:
        raise UiError(f"{Path(path).name}: unknown widget classes {sorted(set(loader.unknown))}")
    for connection in connections if connections is not None else ():
        _connect(widget, connection)
    return widget


def _check_properties(root: ElementTree.Element) -> None:
    for widget in root.iter("widget"):
        class_name = widget.get("class", "")
        if not contract.known(class_name):
            continue  # reported as an unknown class
        known = contract.members(class_name).properties
        for entry in widget.findall("property"):
            name = entry.get("name", "")
            if name not in known and entry.get("stdset") != "0" and not (class_name == "Line" or name == "orientation"):
                raise UiError(f"{class_name} '{widget.get('name')}' has no property '{name}'")


def _connect(widget: QtWidgets.QWidget, connection: ElementTree.Element) -> None:
    parts = {part: connection.findtext(part, "") for part in ("sender", "signal", "receiver", "slot")}
    ends = {}
    for part in ("sender", "receiver"):
        found = widget if widget.objectName() == parts[part] else widget.findChild(QtCore.QObject, parts[part])
        if found is None:
            raise UiError(f"connection {parts}: no widget is called '{parts[part]}'")
        ends[part] = pythonqt.wrap(found)
    slot = parts["slot"].partition("(")[0]
    if slot not in contract.members(ends["receiver"].className()).methods:
        raise UiError(f"connection {parts}: {ends['receiver'].className()} has no slot '{parts['slot']}'")
    ends["sender"].connect(parts["signal"], ends["receiver"], parts["slot"])
