"""Stand-ins for the ctk widgets in use: Qt widgets with ctk's properties and signals, drawn plainly."""

from __future__ import annotations

from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

from standin import qt_module


class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    """A section with a title bar; ``checked`` and ``collapsed`` are opposites."""

    contentsCollapsed = QtCore.Signal(bool)

    def __init__(self, *arguments: Any) -> None:
        text, parent = _text_and_parent(arguments)
        super().__init__(parent)
        self.setText(text)
        self._collapsed = self._flat = False
        self._height = 14
        self._hidden_by_collapsing: list[QtWidgets.QWidget] = []
        self.setCheckable(True)
        self.setChecked(True)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Preferred)
        self.setContentsMargins(1, self._bar_height(), 1, 1)
        self.toggled.connect(lambda checked: self._collapse(not checked))

    def _bar_height(self) -> int:
        return self.fontMetrics().height() + 10

    def _collapse(self, collapsed: bool) -> None:
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        if collapsed:
            self._hidden_by_collapsing = [w for w in self._contents() if not w.isHidden()]
            for widget in self._hidden_by_collapsing:
                widget.hide()
            self.setMaximumHeight(self._bar_height() + self._height)
        else:
            for widget in self._hidden_by_collapsing:
                widget.show()
            self._hidden_by_collapsing = []
            self.setMaximumHeight(16777215)
        self.updateGeometry()
        self.contentsCollapsed.emit(collapsed)

    def _contents(self) -> list[QtWidgets.QWidget]:
        return [child for child in self.children() if isinstance(child, QtWidgets.QWidget)]

    def _get_collapsed(self) -> bool:
        return self._collapsed

    def _set_collapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    collapsed = QtCore.Property(bool, _get_collapsed, _set_collapsed)

    def _get_height(self) -> int:
        return self._height

    def _set_height(self, height: int) -> None:
        self._height = height

    collapsedHeight = QtCore.Property(int, _get_height, _set_height)

    def _get_flat(self) -> bool:
        return self._flat

    def _set_flat(self, flat: bool) -> None:
        self._flat = flat
        self.update()

    flat = QtCore.Property(bool, _get_flat, _set_flat)

    def sizeHint(self) -> QtCore.QSize:
        hint = super().sizeHint() if self.layout() is None else self.layout().totalSizeHint()
        bar = self._bar_height()
        height = bar + self._height if self._collapsed else max(hint.height(), bar + self._height)
        return QtCore.QSize(max(hint.width(), 80), height)

    def minimumSizeHint(self) -> QtCore.QSize:
        return self.sizeHint() if self._collapsed or self.layout() is None else self.layout().totalMinimumSize()

    def hitButton(self, position: QtCore.QPoint) -> bool:
        return position.y() < self._bar_height()

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtGui.QPainter(self)
        bar = QtCore.QRect(0, 0, self.width(), self._bar_height() - 3)
        painter.fillRect(bar, self.palette().color(QtGui.QPalette.ColorRole.Button).darker(112))
        arrow = "\u25b8" if self._collapsed else "\u25be"
        painter.drawText(bar.adjusted(6, 0, 0, 0), QtCore.Qt.AlignmentFlag.AlignVCenter, f"{arrow}  {self.text()}")


class ctkSliderWidget(QtWidgets.QWidget):
    """A slider and a spin box of one value. ``decimals`` rounds what is shown and dragged, not what is set."""

    valueChanged = QtCore.Signal(float)
    valueIsChanging = QtCore.Signal(float)
    decimalsChanged = QtCore.Signal(int)
    SIGNATURES = {"valueChanged(double)": "valueChanged", "valueIsChanging(double)": "valueIsChanging"}

    _STEPS = 1000

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal)
        self._slider.setRange(0, self._STEPS)
        self._spin = QtWidgets.QDoubleSpinBox()
        self._spin.setRange(0.0, 99.0)
        self._spin.setDecimals(2)
        self._value, self._tracking = 0.0, True
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider)
        layout.addWidget(self._spin)
        self._slider.valueChanged.connect(self._slid)
        self._slider.sliderReleased.connect(self._released)
        self._spin.valueChanged.connect(self.setValue)

    def _slid(self, position: int) -> None:
        minimum, maximum = self._spin.minimum(), self._spin.maximum()
        value = round(minimum + (maximum - minimum) * position / self._STEPS, self._spin.decimals())
        if not self._tracking and self._slider.isSliderDown():
            self.valueIsChanging.emit(value)
        else:
            self.setValue(value)

    def _released(self) -> None:
        self._slid(self._slider.value())

    def _show(self) -> None:
        minimum, maximum = self._spin.minimum(), self._spin.maximum()
        blockers = [QtCore.QSignalBlocker(part) for part in (self._slider, self._spin)]
        self._spin.setValue(self._value)
        if not self._slider.isSliderDown():
            self._slider.setValue(round((self._value - minimum) / max(maximum - minimum, 1e-12) * self._STEPS))
        del blockers

    def setValue(self, value: float) -> None:
        """Slot."""
        value = min(max(value, self._spin.minimum()), self._spin.maximum())
        if value != self._value:
            self._value = value
            self._show()
            self.valueChanged.emit(value)

    def setDecimals(self, decimals: int) -> None:
        """Slot."""
        self._spin.setDecimals(decimals)

    def setSpinBoxVisible(self, visible: bool) -> None:
        """Slot."""
        self._spin.setVisible(visible)

    def reset(self) -> None:
        """Slot: 0 or the nearest to it."""
        self.setValue(0.0)

    def _limit(get: str, set_: str) -> QtCore.Property:  # noqa: N805
        def change(self: ctkSliderWidget, limit: float) -> None:
            blocker = QtCore.QSignalBlocker(self._spin)
            getattr(self._spin, set_)(limit)
            del blocker
            self.setValue(self._value)
            self._show()

        return QtCore.Property(float, lambda self: getattr(self._spin, get)(), change)

    def _spin_property(kind: type, get: str, set_: str) -> QtCore.Property:  # noqa: N805
        return QtCore.Property(
            kind, lambda self: getattr(self._spin, get)(), lambda self, value: getattr(self._spin, set_)(value)
        )

    value = QtCore.Property(float, lambda self: self._value, lambda self, value: self.setValue(value))
    minimum = _limit("minimum", "setMinimum")
    maximum = _limit("maximum", "setMaximum")
    singleStep = _spin_property(float, "singleStep", "setSingleStep")
    decimals = _spin_property(int, "decimals", "setDecimals")
    suffix = _spin_property(str, "suffix", "setSuffix")
    prefix = _spin_property(str, "prefix", "setPrefix")
    spinBoxVisible = QtCore.Property(
        bool, lambda self: not self._spin.isHidden(), lambda self, visible: self._spin.setVisible(visible)
    )

    def _get_tracking(self) -> bool:
        return self._tracking

    def _set_tracking(self, on: bool) -> None:
        self._tracking = on

    tracking = QtCore.Property(bool, _get_tracking, _set_tracking)


class ctkPathLineEdit(QtWidgets.QWidget):
    """A line edit for a path with a browse button."""

    currentPathChanged = QtCore.Signal(str)
    SIGNATURES = {"currentPathChanged(QString)": "currentPathChanged"}

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._edit = QtWidgets.QLineEdit()
        self._filters: list[str] = []
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._edit)
        button = QtWidgets.QToolButton()
        button.setText("...")
        button.clicked.connect(self.browse)
        layout.addWidget(button)
        self._edit.textChanged.connect(self.currentPathChanged)

    def browse(self) -> None:
        """Slot: asks for a path."""
        path = qt_module.file_answers.pop(0) if qt_module.file_answers else None
        if path is None:
            raise qt_module.UnansweredDialog("ctkPathLineEdit.browse() opened and nobody answers")
        if path:
            self._edit.setText(path)

    def setCurrentPath(self, path: str) -> None:
        """Slot."""
        self._edit.setText(path)

    currentPath = QtCore.Property(str, lambda self: self._edit.text(), lambda self, path: self._edit.setText(path))
    nameFilters = QtCore.Property(
        "QStringList", lambda self: self._filters, lambda self, names: setattr(self, "_filters", list(names))
    )


class ctkMessageBox(QtWidgets.QMessageBox):
    """Answers itself with what the test prepared, and keeps its text."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._settings_key = ""

    def exec(self) -> Any:
        """Shows nothing: takes the next prepared answer."""
        qt_module.messages.append(self.text())
        if not qt_module.box_answers:
            raise qt_module.UnansweredDialog(f"a message box opened and nobody answers: {self.text()}")
        return int(qt_module.box_answers.pop(0))

    exec_ = exec

    dontShowAgainSettingsKey = QtCore.Property(
        str, lambda self: self._settings_key, lambda self, key: setattr(self, "_settings_key", key)
    )


def _text_and_parent(arguments: tuple[Any, ...]) -> tuple[str, QtWidgets.QWidget | None]:
    text = next((argument for argument in arguments if isinstance(argument, str)), "")
    parent = next((argument for argument in arguments if isinstance(argument, QtWidgets.QWidget)), None)
    return text, parent


CLASSES = (ctkCollapsibleButton, ctkSliderWidget, ctkPathLineEdit, ctkMessageBox)
