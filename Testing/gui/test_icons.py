"""Icons for light and dark themes, faint where a control cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gui.slicer_user import User


def _strongest(icon: Any, mode: Any) -> int:
    """The largest opacity of an icon's pixels, 0 to 255."""
    image = icon.pixmap(20, 20, mode).toImage()
    return max(image.pixelColor(x, y).alpha() for x in range(image.width()) for y in range(image.height()))


@pytest.fixture(params=["light", "dark"])
def themed(user: User, request: pytest.FixtureRequest) -> User:
    """The module open in a theme."""
    from PySide6.QtGui import QColor, QPalette
    from PySide6.QtWidgets import QApplication

    before = QApplication.palette()
    QApplication.setPalette(QPalette(QColor("#333333" if request.param == "dark" else "#ffffff")))
    user.theme = request.param
    user.host.process()
    user.open()
    yield user
    QApplication.setPalette(before)


def test_icons_are_strong_on_either_theme_and_faint_where_they_cannot_be_used(themed: User) -> None:
    from PySide6.QtGui import QIcon

    from SAMMed3DLib.gui.icons import isDark

    button = themed.ui.addNoduleButton
    assert isDark(button) == (themed.theme == "dark")
    assert _strongest(button.icon, QIcon.Mode.Normal) > 200
    assert 0 < _strongest(button.icon, QIcon.Mode.Disabled) < 100
    assert _strongest(button.icon, QIcon.Mode.Selected) > 200


def test_the_icons_follow_a_theme_that_changes_while_the_module_is_open(themed: User) -> None:
    from PySide6.QtGui import QColor, QPalette
    from PySide6.QtWidgets import QApplication

    from SAMMed3DLib.gui.icons import Icons

    button = themed.ui.undoButton
    before = button.icon.pixmap(20, 20).toImage()
    QApplication.setPalette(QPalette(QColor("#ffffff" if themed.theme == "dark" else "#333333")))
    themed.host.process()
    themed.load_volume()  # whatever happens next
    themed.settle()
    after = button.icon.pixmap(20, 20).toImage()
    assert after == Icons(button)("undo").pixmap(20, 20).toImage() != before
