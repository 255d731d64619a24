"""A double of ``slicer.parameterNodeWrapper``: the types and widgets that the modules use, with its rules.

Rules kept: values live in a vtkMRMLScriptedModuleNode as the real wrapper writes them, are read again whenever the node
is modified, and are checked; ``connectGui`` binds widgets by their SlicerParameterName, sets ranges from annotations,
and writes every bound widget at each modification. A type or widget that is not listed is refused.
"""

from __future__ import annotations

import contextlib
import enum
import typing
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import slicer
import slicer.util
import vtk

PROPERTY = "SlicerParameterName"


class WithinRange:
    """Annotation: smallest and largest value."""

    def __init__(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value: float) -> None:
        """Raises ValueError."""
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within range [{self.minimum}, {self.maximum}], is {value}")


class Choice:
    """Annotation: one of these values."""

    def __init__(self, choices: list[Any]) -> None:
        self.choices = choices

    def validate(self, value: Any) -> None:
        """Raises ValueError."""
        if value not in self.choices:
            raise ValueError(f"Value must be one of {self.choices}, is {value}")


class Default:
    """Annotation: the value to begin with."""

    def __init__(self, value: Any = None) -> None:
        self.value = value


class _Parameter:
    """One typed value in a parameter node."""

    def __init__(self, name: str, kind: Any, annotations: tuple[Any, ...], default: Any) -> None:
        self.name, self.kind = name, kind
        self.validators = [a for a in annotations if hasattr(a, "validate")]
        self.is_node = isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)
        self.is_enum = isinstance(kind, type) and issubclass(kind, enum.Enum)
        if not (self.is_node or self.is_enum or kind in (bool, int, float, str)):
            raise TypeError(f"the stand-in has no parameters of type {kind} ('{name}'); add it to parameter_node.py")
        self.default = default if default is not None or self.is_node else self._plain_default()

    def _plain_default(self) -> Any:
        return next(iter(self.kind)) if self.is_enum else self.kind()

    def write(self, node: Any, value: Any) -> None:
        accepted = (int, float) if self.kind is float else self.kind
        if not (value is None and self.is_node) and not isinstance(value, accepted):
            raise TypeError(f"parameter '{self.name}' must be of type {self.kind.__name__}, is {value!r}")
        for validator in self.validators:
            validator.validate(value)
        if self.is_node:
            node.SetParameter(self.name, "")
            node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
        else:
            node.SetParameter(self.name, value.name if self.is_enum else str(value))

    def read(self, node: Any) -> Any:
        if not node.HasParameter(self.name):  # cleared with the scene
            self.write(node, self.default)
        if self.is_node:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        if self.is_enum:
            return self.kind[text]
        return text == "True" if self.kind is bool else self.kind(text)


class _Value:
    """The parameter's value, read when the node changes."""

    def __init__(self, parameter: _Parameter, node: Any) -> None:
        self.parameter, self.node = parameter, node
        self.current = parameter.read(node)
        self.writing = False
        reference = weakref.ref(self)
        self._tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: reference()._modified())

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.node.RemoveObserver(self._tag)

    def _modified(self) -> None:
        if not self.writing:
            self.current = self.parameter.read(self.node)

    def write(self, value: Any) -> None:
        self.writing = True
        try:
            with slicer.util.NodeModify(self.node):
                self.parameter.write(self.node, value)
                self.current = self.parameter.read(self.node)
        finally:
            self.writing = False


class _Connector:
    """A widget and how its value is read, written and watched."""

    def __init__(self, widget: Any, parameter: _Parameter) -> None:
        import ctk
        import qt

        self.widget = widget
        kind = type(widget)
        self._read: Callable[[], Any]
        self._write: Callable[[Any], None]
        if parameter.kind is bool and kind in (qt.QCheckBox, qt.QPushButton):
            self._use("stateChanged(int)" if kind is qt.QCheckBox else "toggled(bool)", "checked")
        elif parameter.kind is int and kind in (qt.QSpinBox, qt.QSlider):
            self._use("valueChanged(int)", "value")
        elif parameter.kind in (int, float) and kind in (qt.QDoubleSpinBox, ctk.ctkSliderWidget):
            limits = next((v for v in parameter.validators if isinstance(v, WithinRange)), None)
            if limits is None and kind is ctk.ctkSliderWidget:
                raise RuntimeError("Cannot have a connection to ctkSliderWidget where the float types is unbounded.")
            if limits is not None:
                widget.minimum, widget.maximum = limits.minimum, limits.maximum
            self._use("valueChanged(double)", "value")
        elif parameter.is_enum and kind is qt.QComboBox:
            self._use_choices(list(parameter.kind))
        elif parameter.kind is str and kind in (qt.QLineEdit,):
            self._use("textChanged(QString)", "text")
        elif parameter.is_node and kind is slicer.qMRMLNodeComboBox:
            self.signal = "currentNodeChanged(vtkMRMLNode*)"
            self._read, self._write = widget.currentNode, widget.setCurrentNode
        else:
            raise RuntimeError(
                f"Unable to create GUI connector from datatype '{parameter.kind}' to widget type '{kind.__name__}'."
            )
        self._changed: Callable[[], None] | None = None

    def _use(self, signal: str, name: str) -> None:
        self.signal = signal
        self._read = lambda: getattr(self.widget, name)
        self._write = lambda value: setattr(self.widget, name, value)

    def _use_choices(self, choices: list[enum.Enum]) -> None:
        """A combo box with the enum's values, called as its method ``label`` says."""
        self.signal = "currentIndexChanged(int)"
        self._read = lambda: choices[self.widget.currentIndex]
        self._write = lambda value: self.widget.setCurrentIndex(choices.index(value))
        chosen = self._read()
        self.widget.clear()
        for choice in choices:
            self.widget.addItem(choice.label() if hasattr(choice, "label") else choice.name)
        self._write(chosen)

    def read(self) -> Any:
        return self._read()

    def write(self, value: Any) -> None:
        self._write(value)

    def watch(self, changed: Callable[[], None] | None) -> None:
        if self._changed is not None:
            self.widget.disconnect(self.signal, self._changed)
        self._changed = changed
        if changed is not None:
            self.widget.connect(self.signal, changed)


def parameterNodeWrapper(cls: type | None = None) -> Any:
    """Class decorator: typed attributes of a class become parameters of a node."""
    if cls is None:
        return parameterNodeWrapper
    parameters = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        kind, *annotations = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
        declared = next((a.value for a in annotations if isinstance(a, Default)), None)
        parameters[name] = _Parameter(name, kind, tuple(annotations), getattr(cls, name, declared))
        setattr(cls, name, _attribute(name))
    for name, function in vars(_Methods).items():
        if not name.startswith("__") or name == "__init__":
            if hasattr(cls, name) and name != "__init__":
                raise ValueError(f"Cannot use reserved name '{name}' in a parameterNodeWrapper")
            setattr(cls, name, function)
    cls.allParameters = parameters  # type: ignore[attr-defined]
    return cls


def _attribute(name: str) -> property:
    return property(lambda self: self._values[name].current, lambda self, value: self._values[name].write(value))


class _Methods:
    """What the decorator adds."""

    allParameters: dict[str, _Parameter]

    def __init__(self, parameterNode: Any) -> None:
        self.parameterNode = parameterNode
        self._values = {name: _Value(parameter, parameterNode) for name, parameter in self.allParameters.items()}
        self._guis: dict[int, tuple[dict[str, _Connector], int]] = {}
        self._next, self._updating = 0, False

    def connectGui(self, gui: Any) -> int:
        """Binds the widgets of an object (as childWidgetVariables makes it) or below a widget."""
        import qt

        widgets = gui.findChildren(qt.QWidget) if hasattr(gui, "findChildren") else list(vars(gui).values())
        mapping = {}
        for widget in widgets:
            name = widget.property(PROPERTY)
            if name:
                if name not in self.allParameters:
                    raise ValueError(f"Cannot find a param with the given name: {name}")
                mapping[name] = _Connector(widget, self.allParameters[name])
        for name, connector in mapping.items():
            connector.write(getattr(self, name))
            connector.watch(self._follow(name, connector))
        tag = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._updateGui())
        self._next += 1
        self._guis[self._next] = (mapping, tag)
        return self._next

    def disconnectGui(self, tag: int) -> None:
        """The opposite of :meth:`connectGui`."""
        mapping, observer = self._guis.pop(tag, ({}, None))
        for connector in mapping.values():
            connector.watch(None)
        if observer is not None:
            self.RemoveObserver(observer)

    def _follow(self, name: str, connector: _Connector) -> Callable[[], None]:
        def changed() -> None:
            if not self._updating:
                with slicer.util.NodeModify(self):
                    setattr(self, name, connector.read())

        return changed

    def _updateGui(self) -> None:
        if self._updating:
            return
        with self._update():
            for mapping, _tag in list(self._guis.values()):
                for name, connector in mapping.items():
                    connector.write(getattr(self, name))

    @contextlib.contextmanager
    def _update(self) -> Iterator[None]:
        self._updating = True
        try:
            with slicer.util.NodeModify(self):
                yield
        finally:
            self._updating = False

    def getValue(self, name: str) -> Any:
        """A parameter by its name."""
        return self._values[name].current

    def setValue(self, name: str, value: Any) -> None:
        """Sets a parameter by its name."""
        self._values[name].write(value)

    def StartModify(self) -> Any:
        """As vtkMRMLNode."""
        return self.parameterNode.StartModify()

    def EndModify(self, was: Any) -> None:
        """As vtkMRMLNode."""
        self.parameterNode.EndModify(was)

    def AddObserver(self, event: Any, callback: Callable[..., None], priority: float = 0.0) -> int:
        """As vtkObject."""
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        """As vtkObject."""
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        """As vtkObject."""
        self.parameterNode.Modified()
