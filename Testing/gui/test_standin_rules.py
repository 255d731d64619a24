"""The simulation is strict: what PythonQt refuses, it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from standin.host import Host


def test_properties_have_no_parentheses(host: Host) -> None:
    import qt

    button = qt.QPushButton("Apply")
    assert button.text == "Apply"
    assert button.checked is False
    with pytest.raises(TypeError, match="not callable"):
        button.text()
    button.setText("Cancel")
    assert button.text == "Cancel"
    button.name = "apply"
    assert button.objectName == "apply"


def test_typing_errors_are_refused(host: Host) -> None:
    import qt

    button = qt.QPushButton()
    with pytest.raises(AttributeError, match="no attribute named 'txet'"):
        button.txet  # noqa: B018
    with pytest.raises(AttributeError, match="creating new attributes on C\\+\\+ objects is not allowed"):
        button.txet = "Apply"
    with pytest.raises(AttributeError, match="does not accept an object of type int"):
        button.text = 5
    with pytest.raises(AttributeError, match="can not be overwritten"):
        button.click = None
    with pytest.raises(AttributeError, match="not writable"):
        button.width = 5
    with pytest.raises(TypeError, match="no keyword arguments"):
        qt.QPushButton(text="Apply")
    with pytest.raises(ValueError, match="Could not find matching overload"):
        button.setText("Apply", 3)


@pytest.mark.parametrize("name", ["QThread", "QPushButon", "QRegExp", "QTextCodec", "QDesktopWidget", "pyqtSignal"])
def test_classes_that_slicer_or_qt6_lacks_are_refused(host: Host, name: str) -> None:
    import qt

    with pytest.raises(AttributeError, match=name):
        getattr(qt, name)


def test_signals_need_their_exact_signature(host: Host) -> None:
    import qt

    from standin.pythonqt import SignalError

    button, box = qt.QPushButton(), qt.QComboBox()
    for sender, signature in ((button, "clicked(int)"), (button, "click()"), (box, "currentIndexChanged(QString)")):
        with pytest.raises(SignalError, match="does not exist"):
            sender.connect(signature, print)


def test_slots_get_as_many_arguments_as_they_take(host: Host) -> None:
    import qt

    seen: list[object] = []
    button = qt.QPushButton()
    button.setCheckable(True)

    def with_argument(checked: bool) -> None:
        seen.append(checked)

    button.connect("toggled(bool)", with_argument)
    button.connect("toggled(bool)", lambda: seen.append("none"))
    button.toggled.connect(lambda *all_of_them: seen.append(all_of_them))
    button.click()
    assert seen == [True, "none", (True,)]
    assert button.disconnect("toggled(bool)", with_argument)
    assert not button.disconnect("toggled(bool)", with_argument)
    button.click()
    assert seen[3:] == ["none", (False,)]


def test_exceptions_in_slots_are_kept_for_the_test(host: Host) -> None:
    import qt

    from standin import failures

    button = qt.QPushButton()
    button.connect("clicked()", lambda: 1 / 0)
    button.click()
    assert len(failures.take()) == 1


def test_enum_values_are_integers_without_a_scope(host: Host) -> None:
    import qt

    assert qt.Qt.RightButton == 2
    assert qt.Qt.AlignRight | qt.Qt.AlignVCenter == 0x82
    assert qt.QSizePolicy.Expanding == 7
    with pytest.raises(AttributeError):
        qt.Qt.MouseButton  # noqa: B018


def test_children_properties_and_identity(host: Host) -> None:
    import qt

    parent = qt.QWidget()
    button = qt.QPushButton("Apply", parent)
    button.name = "applyButton"
    assert parent.applyButton == button
    assert parent.findChild(qt.QPushButton, "applyButton") == button
    assert type(button) is qt.QPushButton and isinstance(button, qt.QPushButton)
    assert not isinstance(button, qt.QWidget), "Python knows nothing of C++ inheritance; seen in Slicer 5.13"
    button.setProperty("SlicerParameterName", "apply")
    assert button.SlicerParameterName == "apply"
    assert button.className() == "QPushButton" and button.inherits("QWidget")
    button.delete()
    with pytest.raises(ValueError, match="destroyed"):
        button.text  # noqa: B018


def test_a_python_class_may_override_event_filters(host: Host) -> None:
    import qt
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest

    class Filter(qt.QObject):
        def eventFilter(self, watched: object, event: object) -> bool:
            if event.type() == qt.QEvent.MouseButtonPress:
                self.seen = watched.text
            return False

    button, watcher = qt.QPushButton("Apply"), Filter()
    watcher.seen = ""
    button.installEventFilter(watcher)
    QTest.mouseClick(button._qt, Qt.MouseButton.LeftButton)
    assert watcher.seen == "Apply"


def test_dialogs_need_an_answer(host: Host) -> None:
    import qt
    import slicer.util

    from standin import qt_module

    with pytest.raises(qt_module.UnansweredDialog):
        qt.QFileDialog.getOpenFileName(None, "Open", "", "*.pth")
    qt_module.file_answers.append("/tmp/model.pth")
    assert qt.QFileDialog.getOpenFileName(None, "Open", "", "*.pth") == "/tmp/model.pth"
    with pytest.raises(qt_module.UnansweredDialog, match="Really"):
        slicer.util.confirmOkCancelDisplay("Really?")
    qt_module.box_answers.append(qt.QMessageBox.Cancel)
    assert slicer.util.confirmOkCancelDisplay("Really?") is False
    assert qt_module.messages == ["Really?", "Really?"]


def test_single_shot_is_a_function_of_timers(host: Host) -> None:
    import qt

    timer = qt.QTimer()
    with pytest.raises(AttributeError, match="can not be overwritten"):
        timer.singleShot = True
    timer.setSingleShot(True)
    fired: list[bool] = []
    qt.QTimer.singleShot(0, lambda: fired.append(True))
    host.wait(lambda: fired)
