"""Draws the module's panel beside the slice views, after some nodules of the synthetic chest were clicked.

    python Testing/screenshots/panel.py panel.png

A simulation, and labeled so in the picture: Qt's widgets and Slicer's display classes, but not the application (see
Testing/standin). The network, the session and the panel are the module's own.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "Testing"), str(ROOT / "SAMMed3D")]

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from PySide6 import QtCore, QtGui  # noqa: E402

from standin.host import Host  # noqa: E402

_NODULES = 6
_GAP = 6
_LABEL = "Simulation: the module's panel and Slicer's display classes, without the application"


def main() -> int:
    """Writes the picture and ends at once: Qt and VTK may crash when the interpreter ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    host = Host()
    _work(host)
    views = [[host.app.layoutManager().sliceWidget(name).sliceView()._view] for name in ("Red", "Green", "Yellow")]
    compose(host, views, height=3 * 300 + 2 * _GAP).save(str(options.picture))
    sys.stdout.write(f"{options.picture}\n")
    sys.stdout.flush()
    import os

    os._exit(0)


def _work(host: Host) -> Any:
    """Clicks nodules of the phantom; returns the Python widget."""
    from SAMMed3DLib.synthesis.phantom import chest_phantom

    host.load(ROOT / "SAMMed3D" / "SAMMed3D.py")
    views = [host.app.layoutManager().sliceWidget(name).sliceView()._view for name in ("Red", "Green", "Yellow")]
    phantom = chest_phantom(0)
    volume = host.scene.add_volume(phantom.array_kji, phantom.ijk_to_ras, "ChestPhantom")
    volume.GetDisplayNode().SetAutoWindowLevel(0)
    volume.GetDisplayNode().SetWindowLevel(1500.0, -500.0)
    for view in views:
        view.show(volume)
    widget = host.select("SAMMed3D")
    host.process(0.1)
    widget.ui.volumeSelector.setCurrentNode(volume)
    widget.ui.addNoduleButton.click()
    for label in range(1, _NODULES + 1):
        ras = _middle(phantom, label)
        widget.ui.nextNoduleButton.click()
        views[0].jump(ras)
        views[0].click(*views[0].to_pixel(ras))
        host.process(0.05)
        host.wait(lambda: not widget.session.isBusy, 120)
    first = widget.session.review.rows()[0].segmentId
    widget.session.select(first)
    widget.ui.acceptButton.click()
    widget.session.select(first)
    widget.session.review.jumpTo(first)
    for view in views:
        node = view.slice_node
        node.SetFieldOfView(120.0, 90.0, node.GetFieldOfView()[2])
    host.process(0.3)
    host.wait(lambda: not widget.session.isBusy, 60)
    return widget


def _middle(phantom: Any, label: int) -> NDArray[np.float64]:
    kji = np.argwhere(phantom.labels_kji == label).mean(0)
    return (phantom.ijk_to_ras @ np.append(kji[::-1], 1.0))[:3]


def compose(host: Host, rows: list[list[Any]], height: int) -> QtGui.QImage:
    """The panel on the left, rows of slice views on the right, the label at the bottom."""
    host._window.resize(470, height)
    host.process(0.1)
    panel = host._window.grab().toImage()
    tiles = [[_tile(view) for view in row] for row in rows]
    width = panel.width() + max(sum(tile.width() + _GAP for tile in row) for row in tiles)
    bottom = max(panel.height(), sum(row[0].height() + _GAP for row in tiles)) + 24
    picture = QtGui.QImage(width, bottom, QtGui.QImage.Format.Format_RGB32)
    picture.fill(QtCore.Qt.GlobalColor.white)
    painter = QtGui.QPainter(picture)
    painter.drawImage(0, 0, panel)
    top = 0
    for row in tiles:
        left = panel.width() + _GAP
        for tile in row:
            painter.drawImage(left, top, tile)
            left += tile.width() + _GAP
        top += row[0].height() + _GAP
    painter.drawText(8, bottom - 8, _LABEL)
    painter.end()
    return picture


def _tile(view: Any) -> QtGui.QImage:
    pixels = np.ascontiguousarray(view.pixels())
    height, width, __unused = pixels.shape
    return QtGui.QImage(pixels.data, width, height, 3 * width, QtGui.QImage.Format.Format_RGB888).copy()


if __name__ == "__main__":
    sys.exit(main())
