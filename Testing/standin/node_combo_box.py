"""Stand-in for qMRMLNodeComboBox: which nodes it lists, what it selects and the order of its signals.

Facts from qMRMLNodeComboBox.cxx and qMRMLSceneModel.cxx: without a "None" entry and without menu actions the first
node that appears is selected; a removed current node gives way to a neighbor, or to None; while the scene closes rows
stay until it is closed; each change emits currentNodeChanged(vtkMRMLNode*), currentNodeChanged(bool) and
currentNodeIDChanged(QString), in this order.
"""

from __future__ import annotations

import weakref
from typing import Any

import vtk
from PySide6 import QtCore, QtWidgets

_ID_ROLE = QtCore.Qt.ItemDataRole.UserRole


class _SceneObservers:
    """Observers of a scene that neither keep the widget alive nor outlive it."""

    def __init__(self) -> None:
        self._scene: Any = None
        self._tags: list[int] = []

    def watch(self, scene: Any, box: qMRMLNodeComboBox) -> None:
        """Calls the box at changes of the scene."""
        reference = weakref.ref(box)

        def refresh(*_: Any) -> None:
            if reference() is not None:
                reference()._refresh()

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def added(_scene: Any, _event: str, node: Any) -> None:
            if reference() is not None:
                reference()._node_added(node)

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def removed(_scene: Any, _event: str, node: Any) -> None:
            if reference() is not None:
                reference()._node_about_to_be_removed(node)

        self._scene = scene
        self._tags = [
            scene.AddObserver(scene.NodeAddedEvent, added),
            scene.AddObserver(scene.NodeAboutToBeRemovedEvent, removed),
        ]
        for event in (scene.EndCloseEvent, scene.EndImportEvent, scene.EndBatchProcessEvent):
            self._tags.append(scene.AddObserver(event, refresh))

    def close(self, *_: Any) -> None:
        """Stops watching."""
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._tags, self._scene = [], None


class qMRMLNodeComboBox(QtWidgets.QWidget):
    """A combo box of the scene's nodes of some classes."""

    nodeChanged = QtCore.Signal(object)
    validChanged = QtCore.Signal(bool)
    currentNodeIDChanged = QtCore.Signal(str)
    activated = QtCore.Signal(object)
    added = QtCore.Signal(object)
    addedByUser = QtCore.Signal(object)
    addedByUserAction = QtCore.Signal(object)
    aboutToBeRemoved = QtCore.Signal(object)
    currentNodeRenamed = QtCore.Signal(str)
    aboutToBeEdited = QtCore.Signal(object)
    SIGNATURES = {
        "currentNodeChanged(vtkMRMLNode*)": "nodeChanged",
        "currentNodeChanged(bool)": "validChanged",
        "currentNodeIDChanged(QString)": "currentNodeIDChanged",
        "nodeActivated(vtkMRMLNode*)": "activated",
        "nodeAdded(vtkMRMLNode*)": "added",
        "nodeAddedByUser(vtkMRMLNode*)": "addedByUser",
        "nodeAddedByUserAction(vtkMRMLNode*)": "addedByUserAction",
        "nodeAboutToBeRemoved(vtkMRMLNode*)": "aboutToBeRemoved",
        "currentNodeRenamed(QString)": "currentNodeRenamed",
        "nodeAboutToBeEdited(vtkMRMLNode*)": "aboutToBeEdited",
    }

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None
        self._observers = _SceneObservers()
        self.destroyed.connect(self._observers.close)
        self._options: dict[str, Any] = {
            "nodeTypes": [],
            "hideChildNodeTypes": [],
            "showChildNodeTypes": True,
            "showHidden": False,
            "baseName": "",
            "noneEnabled": False,
            "addEnabled": True,
            "removeEnabled": True,
            "editEnabled": False,
            "renameEnabled": False,
            "selectNodeUponCreation": True,
            "noneDisplay": "None",
            "interactionNodeSingletonTag": "",
        }
        self._attributes: list[tuple[str, str, Any]] = []
        self._box = QtWidgets.QComboBox()
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self._box.currentIndexChanged.connect(self._index_changed)
        self._box.activated.connect(self._picked)
        self._last: str | None = None
        self._switching = False
        self.setEnabled(False)

    # -- scene

    def mrmlScene(self) -> Any:
        """The scene."""
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        """Slot."""
        if scene is self._scene:
            return
        self._observers.close()
        self._scene = scene
        if scene is not None:
            self._observers.watch(scene, self)
        self._switching = True
        self._fill(self._current_id())
        self._switching = False
        self._index_changed()
        self.setEnabled(scene is not None)

    def _refresh(self) -> None:
        self._fill(self._current_id())
        self._index_changed()

    def _node_added(self, node: Any) -> None:
        if self._listed(node):
            self._box.blockSignals(True)
            self._fill(self._current_id())
            self._box.blockSignals(False)
            self._index_changed()
            self.added.emit(node)

    def _node_about_to_be_removed(self, node: Any) -> None:
        row = self._box.findData(node.GetID(), _ID_ROLE)
        if row >= 0 and not self._scene.IsClosing():
            self.aboutToBeRemoved.emit(node)
            self._box.blockSignals(True)
            self._box.removeItem(row)
            if self.currentNode() is None:  # Qt chose None or a menu action
                last = None if self._box.currentIndex() == 0 else self.nodeFromIndex(self.nodeCount() - 1)
                self._select("" if last is None else last.GetID())
            self._box.blockSignals(False)
            self._index_changed()

    # -- rows

    def _listed(self, node: Any) -> bool:
        options = self._options
        fits = node.IsA if options["showChildNodeTypes"] else (lambda kind: node.GetClassName() == kind)
        if not any(map(fits, options["nodeTypes"])) or any(map(node.IsA, options["hideChildNodeTypes"])):
            return False
        for kind, name, value in self._attributes:
            has = node.GetAttribute(name)
            if node.IsA(kind) and (has is None or (value is not None and has != str(value))):
                return False
        return bool(options["showHidden"] or not node.GetHideFromEditors())

    def _fill(self, keep: str) -> None:
        """Makes the rows anew, keeping the selection where it is still there."""
        was_blocked = self._box.blockSignals(True)
        self._box.clear()
        if self._options["noneEnabled"]:
            self._box.addItem(self._options["noneDisplay"], None)
        nodes = [self._scene.GetNthNode(i) for i in range(self._scene.GetNumberOfNodes())] if self._scene else []
        for node in nodes:
            if self._listed(node):
                self._box.addItem(node.GetName(), node.GetID())
        actions = [name for name in ("rename", "edit", "add", "remove") if self._options[f"{name}Enabled"]]
        row = self._box.findData(keep, _ID_ROLE) if keep else -1
        first = self._options["noneEnabled"] or actions or not self._box.count()
        self._box.setCurrentIndex(row if row >= 0 else ((0 if self._options["noneEnabled"] else -1) if first else 0))
        for action in actions if self._scene is not None else []:
            self._box.addItem(f"{action} node", f"action:{action}")
        self._box.blockSignals(was_blocked)

    def _current_id(self) -> str:
        data = self._box.currentData(_ID_ROLE)
        return data if data and not data.startswith("action:") else ""

    def _select(self, node_id: str) -> None:
        row = self._box.findData(node_id, _ID_ROLE) if node_id else -1
        self._box.setCurrentIndex(row if row >= 0 else (0 if self._options["noneEnabled"] else -1))

    def _index_changed(self, *_: Any) -> None:
        if self._switching or self._box.signalsBlocked() or self._last == self._current_id():
            return
        if self._last is None and not self._current_id():
            self._last = ""
            return
        self._last = self._current_id()
        node = self.currentNode()
        self.nodeChanged.emit(node)
        self.validChanged.emit(node is not None)
        self.currentNodeIDChanged.emit(self._last)

    def _picked(self, row: int) -> None:
        data = self._box.itemData(row, _ID_ROLE)
        if not data or not data.startswith("action:"):
            self.activated.emit(self.currentNode())
            return
        self._select(self._last or "")
        action = data.partition(":")[2]
        if action == "add":
            self.addedByUserAction.emit(self.addNode())
        elif action == "remove":
            self.removeCurrentNode()
        elif action == "edit":
            self.aboutToBeEdited.emit(self.currentNode())

    # -- the C++ interface

    def currentNode(self) -> Any:
        """The selected node or None."""
        node_id = self._current_id()
        return self._scene.GetNodeByID(node_id) if node_id and self._scene else None

    def setCurrentNode(self, node: Any) -> None:
        """Slot: a node, its ID, or None."""
        self._select(node if isinstance(node, str) else (node.GetID() if node is not None else ""))

    def setCurrentNodeID(self, node_id: str) -> None:
        """Slot."""
        self._select(node_id)

    def setCurrentNodeIndex(self, index: int) -> None:
        """Slot."""
        count = self.nodeCount()
        self._box.setCurrentIndex((index if index < count else -1) + bool(self._options["noneEnabled"]))

    def nodeCount(self) -> int:
        """Number of listed nodes."""
        data = [self._box.itemData(row, _ID_ROLE) for row in range(self._box.count())]
        return sum(bool(entry) and not entry.startswith("action:") for entry in data)

    def nodeFromIndex(self, index: int) -> Any:
        """The node of a row."""
        data = self._box.itemData(index + bool(self._options["noneEnabled"]), _ID_ROLE)
        return self._scene.GetNodeByID(data) if data and not data.startswith("action:") else None

    def addAttribute(self, kind: str, name: str, value: Any = None) -> None:
        """Lists only nodes that have an attribute."""
        self._attributes.append((kind, name, value))
        self._refresh()

    def removeAttribute(self, kind: str, name: str) -> None:
        """The opposite of addAttribute."""
        self._attributes = [entry for entry in self._attributes if entry[:2] != (kind, name)]
        self._refresh()

    def addNode(self, kind: str = "") -> Any:
        """Slot: what the entry 'Create new ...' does. Emits nodeAddedByUser."""
        kinds = self._options["nodeTypes"]
        if not kinds or (kind and kind not in kinds):
            return None
        kind = kind or kinds[0]
        name = self._options["baseName"] or self._scene.GetTypeDisplayNameByClassName(kind) or "Node"
        node = self._scene.AddNewNodeByClass(kind, self._scene.GenerateUniqueName(name))
        if self._options["selectNodeUponCreation"]:
            self.setCurrentNode(node)
        self.addedByUser.emit(node)
        return node

    def removeCurrentNode(self) -> None:
        """Slot: what the entry 'Delete current ...' does."""
        self._scene.RemoveNode(self.currentNode())

    def sortFilterProxyModel(self) -> Any:
        """Not simulated."""
        raise NotImplementedError("sortFilterProxyModel")

    def _option(kind: Any, name: str) -> QtCore.Property:  # noqa: N805
        def get(self: qMRMLNodeComboBox) -> Any:
            return self._options[name]

        def set_(self: qMRMLNodeComboBox, value: Any) -> None:
            self._options[name] = list(value) if kind == "QStringList" else value
            self._refresh()

        return QtCore.Property(kind, get, set_)

    nodeTypes = _option("QStringList", "nodeTypes")
    hideChildNodeTypes = _option("QStringList", "hideChildNodeTypes")
    showChildNodeTypes = _option(bool, "showChildNodeTypes")
    showHidden = _option(bool, "showHidden")
    baseName = _option(str, "baseName")
    noneEnabled = _option(bool, "noneEnabled")
    addEnabled = _option(bool, "addEnabled")
    removeEnabled = _option(bool, "removeEnabled")
    editEnabled = _option(bool, "editEnabled")
    renameEnabled = _option(bool, "renameEnabled")
    selectNodeUponCreation = _option(bool, "selectNodeUponCreation")
    noneDisplay = _option(str, "noneDisplay")
    currentNodeID = QtCore.Property(str, _current_id, _select)


CLASSES = (qMRMLNodeComboBox,)
