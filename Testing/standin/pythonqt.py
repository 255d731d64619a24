"""PythonQt's view of Qt objects: what ``widget.something`` means in Slicer, on top of PySide6.

Every Qt object is seen through a :class:`Wrapper`. Names are looked up in PythonQt's order
(PythonQtInstanceWrapper.cpp): property, slot or signal, enum value, dynamic property, child by name; properties have no
parentheses. contract.json says which names there are.
"""

from __future__ import annotations

import inspect
import types
import weakref
from collections.abc import Callable
from typing import Any

import shiboken6
from PySide6 import QtCore

from standin import contract, failures
from standin.enums import EnumValue, is_qt_enum

_QtObject = shiboken6.Object


class SignalError(RuntimeError):
    """A signal that does not exist. PythonQt prints a line and goes on, unconnected: here it is an error."""


_classes: dict[type, type] = {}
_wrappers: weakref.WeakValueDictionary[int, Wrapper]
#: C++ object -> (signature, function, its adapter)
_connections: dict[int, list[tuple[str, Callable[..., Any], Callable[..., Any]]]] = {}
#: (class, method) -> replacement called with unwrapped arguments; for what PythonQt returns differently.
replacements: dict[tuple[str, str], Callable[..., Any]] = {}


class _PythonQtClass(type):
    """The class object: static functions and enum values."""

    _pyside: type
    _name: str

    def __instancecheck__(cls, instance: object) -> bool:
        """True for the very class and for Python classes derived from it: C++ inheritance is not known to Python."""
        kind = type(instance)
        if not isinstance(kind, _PythonQtClass):
            return False
        own = _classes.get(kind._pyside, kind)
        return cls is Wrapper or cls is own or (cls in kind.__mro__ and cls is not own and own in cls.__mro__)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        interface = contract.members(cls._name)
        if name in interface.enums:
            return wrap(getattr(cls._pyside, name))
        if name in interface.methods and hasattr(cls._pyside, name):
            return _method(cls._name, name, getattr(cls._pyside, name))
        raise AttributeError(f"type object '{cls._name}' has no attribute '{name}'")


class Wrapper(metaclass=_PythonQtClass):
    """One C++ object as Python code in Slicer sees it."""

    _pyside: type = _QtObject
    _name = ""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        if keywords:
            raise TypeError(f"{self._name}() takes no keyword arguments in PythonQt: {', '.join(keywords)}")
        kind = self._pyside if type(self) is _classes.get(self._pyside) else _shell(type(self), self)
        _bind(self, kind(*unwrap(list(arguments))))

    def __getattr__(self, name: str) -> Any:
        qt = self.__dict__.get("_qt")
        if qt is None or name.startswith("__"):
            raise AttributeError(name)
        return _read(self, qt, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not _write(self, self.__dict__["_qt"], name, value):
            if type(self) is _classes.get(self._pyside):
                raise AttributeError(
                    f"'{name}' does not exist on {self._name} and creating new attributes on C++ objects is not allowed"
                )
            object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Wrapper):
            return False
        mine, others = self.__dict__["_qt"], other.__dict__["_qt"]
        if mine is others:
            return True
        if isinstance(mine, QtCore.QObject) or isinstance(others, QtCore.QObject):
            return shiboken6.isValid(mine) and shiboken6.isValid(others) and _pointer(mine) == _pointer(others)
        return bool(mine == others)

    def __hash__(self) -> int:
        return hash(self._name)  # equal values must hash alike; sets of wrappers are small

    def __repr__(self) -> str:
        return f"{self._name} (simulated by {self.__dict__.get('_qt')!r})"

    def __dir__(self) -> list[str]:
        interface = contract.members(self._name)
        return sorted({*interface.properties, *interface.methods, *(s.partition("(")[0] for s in interface.signals)})


_wrappers = weakref.WeakValueDictionary()


def python_class(pyside: type) -> type:
    """The class that stands for a PySide6 class (or a stand-in derived from one). Raises AttributeError."""
    if pyside not in _classes:
        if not contract.known(pyside.__name__):
            raise AttributeError(f"{pyside.__name__} is not in contract.json: add it to make_contract.py")
        bases = tuple(python_class(base) for base in pyside.__bases__ if contract.known(base.__name__)) or (Wrapper,)
        _classes[pyside] = _PythonQtClass(pyside.__name__, bases, {"_pyside": pyside, "_name": pyside.__name__})
    return _classes[pyside]


def wrap(value: Any) -> Any:
    """What Python code in Slicer gets for a value of PySide6."""
    if isinstance(value, _QtObject):
        wrapper = _wrappers.get(_pointer(value)) if shiboken6.isValid(value) else None
        if wrapper is None or wrapper.__dict__["_qt"] is not value:
            kind = next(cls for cls in type(value).__mro__ if contract.known(cls.__name__) or cls is _QtObject)
            wrapper = object.__new__(python_class(kind))
            _bind(wrapper, value)
        return wrapper
    if is_qt_enum(value):
        return EnumValue(value)
    if type(value) in (list, tuple):
        return type(value)(wrap(item) for item in value)
    if type(value) is dict:
        return {key: wrap(item) for key, item in value.items()}
    return value


def unwrap(value: Any) -> Any:
    """The opposite of :func:`wrap`; functions become slots."""
    if isinstance(value, Wrapper):
        return value.__dict__["_qt"]
    if isinstance(value, EnumValue):
        return value.member
    if isinstance(value, _PythonQtClass):
        return value._pyside
    if type(value) in (list, tuple):
        return type(value)(unwrap(item) for item in value)
    if type(value) is dict:
        return {key: unwrap(item) for key, item in value.items()}
    if isinstance(value, types.FunctionType | types.MethodType):
        return slot(value)
    return value


def slot(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function as a signal calls it: arguments wrapped, surplus ones left out, exceptions kept for the test's end."""
    count = _argument_count(function)

    def call(*arguments: Any) -> Any:
        try:
            return unwrap(function(*wrap(list(arguments))[:count]))
        except Exception as error:
            failures.record(error)
            return None

    return call


def _argument_count(function: Callable[..., Any]) -> int | None:
    """How many arguments PythonQt passes on: all, except to plain functions and methods with a fixed number."""
    plain = function.__func__ if isinstance(function, types.MethodType) else function
    if not isinstance(plain, types.FunctionType) or plain.__code__.co_flags & inspect.CO_VARARGS:
        return None
    return plain.__code__.co_argcount - isinstance(function, types.MethodType)


def _bind(wrapper: Wrapper, qt: Any) -> None:
    wrapper.__dict__["_qt"] = qt
    _wrappers[_pointer(qt)] = wrapper


def _shell(derived: type, wrapper: Wrapper) -> type:
    """A PySide6 class whose virtual functions call those that a Python class in Slicer overrides."""
    overridden = {}
    for cls in derived.__mro__[: derived.__mro__.index(_classes[derived._pyside])]:
        for name, function in vars(cls).items():
            if isinstance(function, types.FunctionType) and hasattr(derived._pyside, name) and not name.startswith("_"):
                overridden.setdefault(name, name)
    reference = weakref.ref(wrapper)

    def forward(name: str) -> Callable[..., Any]:
        def virtual(qt: Any, *arguments: Any) -> Any:
            target = reference()
            if target is None or "_qt" not in target.__dict__:
                return getattr(super(shell, qt), name)(*arguments)
            return slot(getattr(target, name))(*arguments)

        return virtual

    shell = type(derived._pyside.__name__, (derived._pyside,), {name: forward(name) for name in overridden})
    return shell


def _read(wrapper: Wrapper, qt: Any, name: str) -> Any:
    interface = contract.members(wrapper._name)
    real = "objectName" if name == "name" else name
    if name.endswith("_") and name[:-1] in interface.methods:
        name = name[:-1]  # exec_
    alive = shiboken6.isValid(qt)
    if real in interface.properties:
        if not alive:
            raise ValueError(f"Trying to read property '{name}' from a destroyed {wrapper._name} object")
        return wrap(_read_property(qt, real))
    if name in ("connect", "disconnect") and isinstance(qt, QtCore.QObject):
        return types.MethodType(connect if name == "connect" else disconnect, wrapper)
    if name in _BUILT_IN and isinstance(qt, QtCore.QObject):
        return types.MethodType(_BUILT_IN[name], wrapper)
    if name in interface.methods and hasattr(qt, name):
        if not alive:
            raise ValueError(f"Trying to call '{name}' on a destroyed {wrapper._name} object")
        return _method(wrapper._name, name, getattr(qt, name))
    signatures = interface.signatures(name)
    if signatures:
        return BoundSignal(wrapper, signatures[0])
    if name in interface.enums:
        return wrap(getattr(qt, name))
    if isinstance(qt, QtCore.QObject) and alive:
        if name in [bytes(key.data()).decode() for key in qt.dynamicPropertyNames()]:
            return wrap(qt.property(name))
        for child in qt.children():
            if child.objectName() == name:
                return wrap(child)
    if name in interface.methods:
        raise AttributeError(f"{wrapper._name}.{name}() exists in Slicer but is not simulated (or gone in Qt 6)")
    raise AttributeError(f"{wrapper._name} has no attribute named '{name}'")


def _write(wrapper: Wrapper, qt: Any, name: str, value: Any) -> bool:
    """Whether the name belongs to the C++ object. Raises AttributeError as PythonQt does."""
    interface = contract.members(wrapper._name)
    real = "objectName" if name == "name" else name
    if real in interface.properties:
        if not shiboken6.isValid(qt):
            raise AttributeError(f"Trying to set property '{name}' on a destroyed {wrapper._name} object")
        if interface.properties[real] == "r":
            raise AttributeError(f"Property '{name}' of {wrapper._name} object is not writable")
        _write_property(wrapper._name, qt, real, value)
        return True
    for kind, names in (("Slot", interface.methods), ("EnumValue", interface.enums)):
        if name in names:
            raise AttributeError(f"{kind} '{name}' can not be overwritten on {wrapper._name} object")
    if interface.signatures(name):
        raise AttributeError(f"Signal '{name}' can not be overwritten on {wrapper._name} object")
    if isinstance(qt, QtCore.QObject) and name in [bytes(key.data()).decode() for key in qt.dynamicPropertyNames()]:
        qt.setProperty(name, unwrap(value))
        return True
    return False


def _read_property(qt: Any, name: str) -> Any:
    own = inspect.getattr_static(type(qt), name, None)
    if isinstance(own, QtCore.Property):  # of a stand-in
        return getattr(qt, name)
    index = qt.metaObject().indexOfProperty(name)
    if index < 0:
        raise AttributeError(f"property '{name}' of {type(qt).__name__} is not simulated, or gone in Qt 6")
    return qt.metaObject().property(index).read(qt)


_ACCEPTED: dict[str, tuple[type, ...]] = {
    "bool": (bool, int),
    "int": (int,),
    "double": (int, float),
    "QString": (str,),
    "QStringList": (list, tuple),
}


def _write_property(owner: str, qt: Any, name: str, value: Any) -> None:
    own = inspect.getattr_static(type(qt), name, None)
    if isinstance(own, QtCore.Property):
        setattr(qt, name, unwrap(value))
        return
    index = qt.metaObject().indexOfProperty(name)
    if index < 0:
        raise AttributeError(f"property '{name}' of {owner} is not simulated, or gone in Qt 6")
    property_ = qt.metaObject().property(index)
    wanted = _ACCEPTED.get(property_.typeName())
    if (wanted and not isinstance(value, wanted)) or not property_.write(qt, unwrap(value)):
        raise AttributeError(
            f"Property '{name}' of type '{property_.typeName()}' does not accept an object of type "
            f"{type(value).__name__} ({value!r})"
        )


def _method(owner: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    ancestors = contract.members(owner).ancestors
    replacement = next((replacements[base, name] for base in ancestors if (base, name) in replacements), function)

    def call(*arguments: Any, **keywords: Any) -> Any:
        if keywords:
            raise TypeError(f"{owner}.{name}() takes no keyword arguments in PythonQt: {', '.join(keywords)}")
        try:
            return wrap(replacement(*unwrap(list(arguments))))
        except TypeError as error:
            call_text = f"{owner}.{name}{arguments}"
            raise ValueError(f"Could not find matching overload for given arguments: {call_text}") from error

    call.__name__ = name
    return call


class BoundSignal:
    """``widget.clicked`` with ``connect(f)``, ``disconnect(f)`` and ``emit(...)``."""

    def __init__(self, wrapper: Wrapper, signature: str) -> None:
        self._wrapper, self._signature = wrapper, signature

    def connect(self, function: Callable[..., Any]) -> bool:
        """Connects a function."""
        return connect(self._wrapper, self._signature, function)

    def disconnect(self, function: Callable[..., Any] | None = None) -> bool:
        """Disconnects a function."""
        return disconnect(self._wrapper, self._signature, function)

    def emit(self, *arguments: Any) -> None:
        """Emits the signal."""
        qt = self._wrapper.__dict__["_qt"]
        own = _own_signal(qt, self._signature) or getattr(qt, self._signature.partition("(")[0])
        own.emit(*unwrap(list(arguments)))


def connect(sender: Wrapper, signal: str, *target: Any) -> bool:
    """``sender.connect("clicked(bool)", function)`` or ``sender.connect(signal, receiver, "slot(...)")``."""
    qt, signature = _checked(sender, signal)
    if len(target) == 2:
        receiver, slot_name = target[0], target[1].partition("(")[0]
        function = getattr(receiver, slot_name)
    elif len(target) == 1 and callable(target[0]):
        function = target[0]
    else:
        raise TypeError(f"connect({signal!r}) wants a function, or a receiver and its slot")
    adapter = slot(function)
    _attach(qt, signature, adapter)
    key = _pointer(qt)
    if key not in _connections:
        _connections[key] = []
        qt.destroyed.connect(lambda *_: _connections.pop(key, None))
    _connections[key].append((signature, function, adapter))
    return True


def disconnect(sender: Wrapper, signal: str, *target: Any) -> bool:
    """The opposite of :func:`connect`: False when nothing was connected."""
    qt, signature = _checked(sender, signal)
    known = _connections.get(_pointer(qt), [])
    wanted = getattr(target[0], target[1].partition("(")[0]) if len(target) == 2 else (target[0] if target else None)
    found = False
    for entry in list(known):
        if entry[0] == signature and wanted in (None, entry[1]):
            _attach(qt, signature, entry[2], undo=True)
            known.remove(entry)
            found = True
            if wanted is not None:
                break
    return found


def _checked(sender: Wrapper, signal: str) -> tuple[Any, str]:
    qt = sender.__dict__["_qt"]
    signature = _normalized(signal)
    interface = contract.members(sender._name)
    if signature not in interface.signals:
        alike = interface.signatures(signature.partition("(")[0])
        hint = f"; there is {alike}" if alike else ""
        raise SignalError(f"signal '{signal}' does not exist on {sender._name}{hint}")
    return qt, signature


def _normalized(signal: str) -> str:
    return bytes(QtCore.QMetaObject.normalizedSignature(signal.lstrip("2")).data()).decode()


def _attach(qt: Any, signature: str, adapter: Callable[..., Any], *, undo: bool = False) -> None:
    """Connects to PySide6's signal of a C++ signature. Raises SignalError."""
    own = _own_signal(qt, signature)
    if own is not None:
        (own.disconnect if undo else own.connect)(adapter)
    elif qt.metaObject().indexOfSignal(signature) < 0:
        raise SignalError(f"signal '{signature}' of {type(qt).__name__} is not simulated, or gone in Qt 6")
    else:
        (QtCore.QObject.disconnect if undo else QtCore.QObject.connect)(qt, QtCore.SIGNAL(signature), adapter)


def _own_signal(qt: Any, signature: str) -> Any:
    """The signal by which a stand-in simulates a C++ signature, None for Qt's own."""
    for cls in type(qt).__mro__:
        if signature in vars(cls).get("SIGNATURES", {}):
            return getattr(qt, vars(cls)["SIGNATURES"][signature])
    return None


def _pointer(qt: Any) -> int:
    return shiboken6.getCppPointer(qt)[0]


def _inherits(wrapper: Wrapper, name: str) -> bool:
    return name in contract.members(wrapper._name).ancestors


def _delete(wrapper: Wrapper) -> None:
    shiboken6.delete(wrapper.__dict__["_qt"])


_BUILT_IN: dict[str, Callable[..., Any]] = {
    "className": lambda wrapper: wrapper._name,
    "inherits": _inherits,
    "delete": _delete,
    "help": lambda wrapper: "\n".join(dir(wrapper)),
}
