"""The module ``qt`` as Slicer has it: all Qt classes by their names, ``Qt`` for the namespace."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

from standin import contract, pythonqt
from standin.pythonqt import python_class, unwrap, wrap

#: Answers for file dialogs, first come first served: a path, "" for Cancel.
file_answers: list[str] = []
#: Answers for message boxes and input dialogs.
box_answers: list[Any] = []
#: What message boxes said.
messages: list[str] = []


class UnansweredDialog(AssertionError):
    """A modal dialog opened in a test that prepared no answer."""


def reset() -> None:
    """Forgets answers and messages."""
    for kept in (file_answers, box_answers, messages):
        kept.clear()


def leftovers() -> list[Any]:
    """Answers that no dialog has asked for."""
    return [*file_answers, *box_answers]


class _Namespace:
    """``qt.Qt``: the enum values of the namespace."""

    def __getattr__(self, name: str) -> Any:
        if name not in contract.members("Qt").enums:
            raise AttributeError(f"Qt has no attribute named '{name}' (values have no scope: qt.Qt.LeftButton)")
        return wrap(getattr(QtCore.Qt, name))


class QtModule(types.ModuleType):
    """Looks classes up when they are asked for."""

    Qt = _Namespace()

    def __getattr__(self, name: str) -> Any:
        for module in (QtCore, QtGui, QtWidgets):
            if hasattr(module, name) and contract.known(name):
                return python_class(getattr(module, name))
        raise AttributeError(f"module 'qt' has no attribute '{name}', or contract.json does not list it")

    def SIGNAL(self, signature: str) -> str:
        """Qt's macro."""
        return "2" + signature

    def SLOT(self, signature: str) -> str:
        """Qt's macro."""
        return "1" + signature


def _file_dialog(title: str) -> Callable[..., str]:
    def dialog(*arguments: Any) -> str:
        if not file_answers:
            raise UnansweredDialog(f"{title}{arguments} opened and nobody answers")
        return file_answers.pop(0)

    return dialog


def _file_names(*arguments: Any) -> list[str]:
    return [_file_dialog("getOpenFileNames")(*arguments)]


def _message_box(title: str) -> Callable[..., Any]:
    def dialog(*arguments: Any) -> Any:
        messages.append(" | ".join(argument for argument in arguments if isinstance(argument, str)))
        if not box_answers:
            raise UnansweredDialog(f"QMessageBox.{title}{arguments} opened and nobody answers")
        return unwrap(box_answers.pop(0))

    return dialog


def _single_shot(milliseconds: int, function: Callable[..., Any]) -> None:
    QtCore.QTimer.singleShot(milliseconds, function)


def make() -> QtModule:
    """The module, with PythonQt's differences from PySide6 put right."""
    replacements = pythonqt.replacements
    for name in ("getOpenFileName", "getSaveFileName", "getExistingDirectory"):
        replacements["QFileDialog", name] = _file_dialog(name)  # PythonQt returns the path alone
    replacements["QFileDialog", "getOpenFileNames"] = _file_names
    for name in ("question", "information", "warning", "critical"):
        replacements["QMessageBox", name] = _message_box(name)
    replacements["QTimer", "singleShot"] = _single_shot
    return QtModule("qt", "Simulated by PySide6 with PythonQt's rules.")
