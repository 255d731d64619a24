"""Draws the icons of the SAMMed3D module: ``python Resources/draw_icons.py`` (needs PySide6).

Each icon is a few strokes on a grid of 24 units, drawn twice: dark for light themes, light for dark ones.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6 import QtCore, QtGui

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "SAMMed3D" / "Resources" / "Icons"
PIXELS = 48
STROKE = {"light": "#3c4043", "dark": "#e3e6e8"}
GREEN, RED, ORANGE, BLUE, VIOLET = "#2e9e4f", "#d6453d", "#e08a00", "#2f7fd6", "#b061d8"


class Pen:
    """A painter with the few shapes that the icons are made of, in units of a 24 x 24 grid."""

    def __init__(self, device: QtGui.QPaintDevice, color: str) -> None:
        self.painter = QtGui.QPainter(device)
        self.painter.setRenderHint(QtGui.QPainter.RenderHint.Antialiasing)
        self.painter.scale(device.width() / 24, device.height() / 24)
        self.color = color

    def use(self, color: str | None = None, width: float = 1.9, fill: str | None = None) -> Pen:
        pen = QtGui.QPen(QtGui.QColor(color or self.color), width)
        pen.setCapStyle(QtCore.Qt.PenCapStyle.RoundCap)
        pen.setJoinStyle(QtCore.Qt.PenJoinStyle.RoundJoin)
        self.painter.setPen(pen)
        self.painter.setBrush(QtGui.QColor(fill) if fill else QtCore.Qt.BrushStyle.NoBrush)
        return self

    def line(self, *points: tuple[float, float], closed: bool = False) -> Pen:
        polygon = QtGui.QPolygonF([QtCore.QPointF(x, y) for x, y in points])
        if closed:
            self.painter.drawPolygon(polygon)
        else:
            self.painter.drawPolyline(polygon)
        return self

    def circle(self, x: float, y: float, radius: float) -> Pen:
        self.painter.drawEllipse(QtCore.QPointF(x, y), radius, radius)
        return self

    def box(self, x: float, y: float, width: float, height: float, radius: float = 1.5) -> Pen:
        self.painter.drawRoundedRect(QtCore.QRectF(x, y, width, height), radius, radius)
        return self

    def curve(self, start: tuple[float, float], *cubics: tuple[float, float, float, float, float, float]) -> Pen:
        path = QtGui.QPainterPath(QtCore.QPointF(*start))
        for cubic in cubics:
            path.cubicTo(*cubic)
        self.painter.drawPath(path)
        return self


def rotated(point: tuple[float, float], quarters: int) -> tuple[float, float]:
    for _ in range(quarters):
        point = (-point[1], point[0])
    return point


def nodule(pen: Pen, x: float, y: float, radius: float, color: str = BLUE) -> None:
    pen.use(color, 1.6, color).circle(x, y, radius)


def plus(pen: Pen, x: float, y: float, arm: float, color: str = GREEN, width: float = 2.6) -> None:
    pen.use(color, width).line((x - arm, y), (x + arm, y)).line((x, y - arm), (x, y + arm))


def add_nodule(pen: Pen) -> None:
    nodule(pen, 9.5, 13.5, 5.2)
    plus(pen, 18.5, 6, 3.6)


def next_nodule(pen: Pen) -> None:
    nodule(pen, 6, 12, 3.4)
    pen.use(width=2).line((11, 12), (16, 12)).line((13.6, 9.3), (16.3, 12), (13.6, 14.7))
    pen.use(BLUE, 1.8).circle(20, 12, 2.4)


def add(pen: Pen) -> None:
    plus(pen, 12, 12, 7)


def subtract(pen: Pen) -> None:
    pen.use(RED, 2.6).line((5, 12), (19, 12))


def undo(pen: Pen) -> None:
    pen.use(width=2).curve((5, 9.5), (9, 5.5, 19.5, 6.5, 19.5, 13), (19.5, 17, 16, 19, 12, 19))
    pen.line((4.6, 4.4), (4.6, 9.9), (10.2, 9.9))


def redo(pen: Pen) -> None:
    pen.use(width=2).curve((19, 9.5), (15, 5.5, 4.5, 6.5, 4.5, 13), (4.5, 17, 8, 19, 12, 19))
    pen.line((19.4, 4.4), (19.4, 9.9), (13.8, 9.9))


def segment_all(pen: Pen) -> None:
    for side in (-1, 1):  # the two lungs
        outline = ((1.4, 3.5), (8, 4, 9.5, 12, 9, 20), (6, 20.5, 2, 20, 1.4, 17), (1.4, 12, 1.4, 8, 1.4, 3.5))
        sided = [tuple(12 + side * v if n % 2 == 0 else v for n, v in enumerate(part)) for part in outline]
        pen.use(width=1.6).curve(*sided)
    nodule(pen, 7.2, 15, 1.6)
    nodule(pen, 8, 9.4, 0.9)
    nodule(pen, 16.8, 10, 1.6)
    nodule(pen, 16.8, 16.6, 0.9)


def eye(pen: Pen) -> None:
    pen.use(width=1.7).curve((2.5, 12), (6, 5.6, 18, 5.6, 21.5, 12), (18, 18.4, 6, 18.4, 2.5, 12))
    pen.use(fill=pen.color).circle(12, 12, 2.6)


def visible(pen: Pen) -> None:
    eye(pen)


def hidden(pen: Pen) -> None:
    pen.painter.setOpacity(0.4)
    eye(pen)
    pen.painter.setOpacity(1)
    pen.use(width=2).line((5, 19.5), (19, 4.5))


def accept(pen: Pen) -> None:
    pen.use(GREEN, 3).line((4.5, 12.8), (9.8, 18), (19.5, 6.5))


def flag(pen: Pen) -> None:
    pen.use(width=2).line((6, 3.5), (6, 21))
    pen.use(ORANGE, 1.6, ORANGE).line((7, 4.5), (19, 5.5), (15.6, 9.2), (19, 13), (7, 13), closed=True)


def reject(pen: Pen) -> None:
    pen.use(RED, 3).line((6, 6), (18, 18)).line((18, 6), (6, 18))


def previous_row(pen: Pen) -> None:
    pen.use(width=2.4).line((5.5, 15), (12, 8.5), (18.5, 15))


def next_row(pen: Pen) -> None:
    pen.use(width=2.4).line((5.5, 9), (12, 15.5), (18.5, 9))


def copy(pen: Pen) -> None:
    pen.use(width=1.8).line((15, 4), (4.5, 4), (4.5, 16))
    pen.box(8, 7.5, 11.5, 13)


def save(pen: Pen) -> None:
    pen.use(width=1.8).line((4.5, 4), (16, 4), (20, 8), (20, 20), (4.5, 20), closed=True)
    pen.line((8, 4.4), (8, 9), (14.5, 9), (14.5, 4.4)).line((8, 19.6), (8, 14), (16, 14), (16, 19.6))


def show_3d(pen: Pen) -> None:
    pen.use(width=1.7).line((12, 2.8), (20, 7.2), (20, 16.8), (12, 21.2), (4, 16.8), (4, 7.2), closed=True)
    pen.line((4.2, 7.3), (12, 11.8), (19.8, 7.3)).line((12, 11.8), (12, 21))


def cancel(pen: Pen) -> None:
    pen.use(width=1.8).circle(12, 12, 8.6)
    pen.use(RED, 2.4).line((8.8, 8.8), (15.2, 15.2)).line((15.2, 8.8), (8.8, 15.2))


def download(pen: Pen) -> None:
    pen.use(width=2).line((12, 3.5), (12, 14.8)).line((7.4, 10.4), (12, 15), (16.6, 10.4))
    pen.line((4, 16.5), (4, 20.2), (20, 20.2), (20, 16.5))


def open_file(pen: Pen) -> None:
    pen.use(width=1.8).line((3, 19.5), (3, 5), (9, 5), (11, 7.6), (19, 7.6), (19, 10.5))
    pen.line((3, 19.5), (6.4, 10.6), (22, 10.6), (18.8, 19.5), closed=True)


def remove(pen: Pen) -> None:
    pen.use(width=1.8).line((4, 6.4), (20, 6.4)).line((9, 6), (9, 3.4), (15, 3.4), (15, 6))
    pen.line((5.8, 6.8), (6.8, 20.6), (17.2, 20.6), (18.2, 6.8)).line((10, 10), (10.3, 17)).line((14, 10), (13.7, 17))


def status_ai(pen: Pen) -> None:
    pen.use(VIOLET, 1.2, VIOLET)  # seen on the blue of a selected row too
    for x, y, size in ((10, 13, 7.4), (18.6, 5.8, 3.8)):
        waist = size * 0.26
        quarter = ((0, -size), (waist, -waist))
        corners = [turned for n in range(4) for turned in (rotated(point, n) for point in quarter)]
        pen.line(*((x + dx, y + dy) for dx, dy in corners), closed=True)


THEMED: dict[str, Callable[[Pen], None]] = {
    function.__name__: function
    for function in (
        add_nodule,
        next_nodule,
        add,
        subtract,
        undo,
        redo,
        segment_all,
        visible,
        hidden,
        accept,
        flag,
        reject,
        previous_row,
        next_row,
        copy,
        save,
        show_3d,
        cancel,
        download,
        open_file,
        remove,
        status_ai,
    )
}


def cursor(sign: str) -> Callable[[Pen], None]:
    """Cross hairs with a gap in the middle, and the sign of what a click does beside them."""

    def draw(pen: Pen) -> None:
        color = GREEN if sign == "+" else RED
        for ink, width in (("#101010", 2.4), ("#ffffff", 1.0)):
            pen.use(ink, width)
            for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1)):
                pen.line((12 + 2.6 * dx, 12 + 2.6 * dy), (12 + 8 * dx, 12 + 8 * dy))
        for ink, width in (("#101010", 4.2), (color, 2.2)):
            pen.use(ink, width).line((16.6, 18.6), (22, 18.6))
            if sign == "+":
                pen.line((19.3, 15.9), (19.3, 21.3))

    return draw


def paint(draw: Callable[[Pen], None], color: str, path: Path, pixels: int = PIXELS) -> None:
    image = QtGui.QImage(pixels, pixels, QtGui.QImage.Format.Format_ARGB32)
    image.fill(QtCore.Qt.GlobalColor.transparent)
    pen = Pen(image, color)
    draw(pen)
    pen.painter.end()
    path.parent.mkdir(parents=True, exist_ok=True)
    if not image.save(str(path)):
        raise OSError(f"{path} could not be written")


def main() -> None:
    application = QtGui.QGuiApplication([])
    for theme, color in STROKE.items():
        for name, draw in THEMED.items():
            paint(draw, color, FOLDER / theme / f"{name}.png")
    paint(cursor("+"), "", FOLDER / "cursor_add.png", 32)
    paint(cursor("-"), "", FOLDER / "cursor_subtract.png", 32)
    shutil.copyfile(ROOT / "SAMMed3D.png", FOLDER / "SAMMed3D.png")
    application.quit()


if __name__ == "__main__":
    main()
