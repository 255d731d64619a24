"""Draws the icons of the SAMMed3DTraining module: ``python Resources/draw_training_icons.py`` (needs PySide6).

Those that both modules use are drawn by draw_icons.py.
"""

from __future__ import annotations

from collections.abc import Callable

from draw_icons import BLUE, GREEN, ORANGE, RED, ROOT, STROKE, Pen, nodule, paint
from PySide6 import QtGui

FOLDER = ROOT / "SAMMed3DTraining" / "Resources" / "Icons"


def training_start(pen: Pen) -> None:
    pen.use(GREEN, 1.8, GREEN).line((7, 4.5), (19, 12), (7, 19.5), closed=True)


def training_pause(pen: Pen) -> None:
    pen.use(width=1.4, fill=pen.color).box(6, 5, 4, 14, 1).box(14, 5, 4, 14, 1)


def training_stop(pen: Pen) -> None:
    pen.use(RED, 1.6, RED).box(6, 6, 12, 12, 1.5)


def axes(pen: Pen) -> None:
    pen.use(width=1.8).line((4, 3.5), (4, 20), (20.5, 20))


def training_loss(pen: Pen) -> None:
    axes(pen)
    pen.use(RED, 2).curve((6, 5.5), (8, 15, 13, 16.5, 20, 17))


def training_dice(pen: Pen) -> None:
    axes(pen)
    pen.use(BLUE, 2).curve((6, 17.5), (9, 8.5, 13, 7, 20, 6))


def training_dots(pen: Pen) -> None:
    axes(pen)
    for x, low, high in ((7.5, 15, 10), (12, 12.5, 8), (16.5, 14.5, 6)):
        pen.use(RED, 1, RED).circle(x, low, 1.5)
        pen.use(GREEN, 1, GREEN).circle(x, high, 1.5)


def training_compare(pen: Pen) -> None:
    pen.use(RED, 2).circle(9.5, 12, 5.6)
    pen.use(GREEN, 2).circle(14.5, 12, 5.6)


def training_side(pen: Pen) -> None:
    pen.use(width=1.8).box(2.5, 5, 19, 14).line((12, 5.4), (12, 18.6))
    pen.use(RED, 1.8).circle(7.3, 12, 2.6)
    pen.use(GREEN, 1.8).circle(16.7, 12, 2.6)


def training_rank(pen: Pen) -> None:
    for n, length in enumerate((16, 11, 6)):
        pen.use(ORANGE if n == 0 else None, 2.6).line((4, 6 + 6 * n), (4 + length, 6 + 6 * n))


def training_clock(pen: Pen) -> None:
    pen.use(width=1.8).circle(12, 12, 8.5).line((12, 6.5), (12, 12), (15.8, 14.2))


def training_changed(pen: Pen) -> None:
    pen.use(ORANGE, 2).curve((5, 12), (5, 5.5, 14, 3.5, 18, 8.5)).line((18.4, 4), (18.2, 8.8), (13.6, 8.4))
    pen.curve((19, 12), (19, 18.5, 10, 20.5, 6, 15.5)).line((5.6, 20), (5.8, 15.2), (10.4, 15.6))


def training_better(pen: Pen) -> None:
    pen.use(GREEN, 1.4, GREEN).line((12, 5), (19, 17), (5, 17), closed=True)


def training_worse(pen: Pen) -> None:
    pen.use(RED, 1.4, RED).line((12, 19), (19, 7), (5, 7), closed=True)


THEMED: tuple[Callable[[Pen], None], ...] = (
    training_start,
    training_pause,
    training_stop,
    training_loss,
    training_dice,
    training_dots,
    training_compare,
    training_side,
    training_rank,
    training_clock,
    training_changed,
    training_better,
    training_worse,
)


def module_icon(pen: Pen) -> None:
    """A nodule whose outline is learned, under a rising curve."""
    pen.use("#22303c", 0, "#22303c").box(0.5, 0.5, 23, 23, 4)
    nodule(pen, 8.2, 15.8, 4.4, "#5aa9f5")
    pen.use("#ffffff", 1.2).circle(8.2, 15.8, 5.9)
    pen.use("#5fd07f", 1.9).curve((4, 9.5), (9, 9, 11, 4.8, 19.6, 4.2)).line((16.4, 2.6), (19.8, 4.2), (17.6, 7.2))
    for x, height in ((16, 3.4), (19.4, 6.2)):
        pen.use("#f0a53a", 2).line((x, 20.4), (x, 20.4 - height))


def main() -> None:
    application = QtGui.QGuiApplication([])
    for theme, color in STROKE.items():
        for draw in THEMED:
            paint(draw, color, FOLDER / theme / f"{draw.__name__}.png")
    paint(module_icon, "#ffffff", FOLDER / "SAMMed3DTraining.png", 128)
    application.quit()


if __name__ == "__main__":
    main()
