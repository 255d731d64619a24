"""What a user of the module does, in the simulation: opens it, presses buttons and keys, clicks in slice views."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from standin.host import Host

MODULE = Path(__file__).resolve().parents[2] / "SAMMed3D" / "SAMMed3D.py"
#: The test volume: 1.2 x 1.2 x 1.5 mm, not parallel to the axes.
SHAPE_KJI = (40, 60, 60)


class User:
    """A user in front of the module.

    Attributes:
        widget: the Python widget, also after a reload.
        ui: its named widgets.
        engine: the FakeEngine behind the session.
    """

    def __init__(self, host: Host, engine: Any) -> None:
        self.host, self.engine = host, engine

    @property
    def widget(self) -> Any:
        return self.host.widget("SAMMed3D")

    @property
    def ui(self) -> Any:
        return self.widget.ui

    @property
    def session(self) -> Any:
        return self.widget.session

    def open(self) -> None:
        """Chooses the module and waits until it has come to rest."""
        self.host.select("SAMMed3D")
        self.settle()

    def settle(self, seconds: float = 20.0) -> None:
        """Runs the event loop until no request is open."""
        self.host.process(0.02)
        self.host.wait(lambda: not self.session.isBusy, seconds)
        self.host.process()

    def load_volume(self, name: str = "CT", seed: int = 0) -> Any:
        """A noisy volume, shown in the slice views."""
        rng = np.random.default_rng(seed)
        array = rng.integers(-900, -700, SHAPE_KJI).astype(np.int16)
        matrix = np.diag([-1.2, -1.2, 1.5, 1.0])
        matrix[:3, 3] = 36.0, 36.0, -30.0
        for view in self.host.app.layoutManager().sliceViewNames():
            self.view(view)  # made now, so that it shows the volume
        node = self.host.scene.add_volume(array, matrix, name)
        self.host.app.applicationLogic().GetSelectionNode().SetActiveVolumeID(node.GetID())
        self.host.app.applicationLogic().PropagateVolumeSelection()
        self.host.process(0.02)
        return node

    def view(self, name: str = "Red") -> Any:
        """The offscreen slice view (slicer_view.SliceView)."""
        return self.host.app.layoutManager().sliceWidget(name).sliceView()._view

    def click_at(self, ras: ArrayLike, *, shift: bool = False, view: str = "Red", settle: bool = True) -> None:
        """Scrolls a slice view to a world point and clicks there with the left button."""
        seen = self.view(view)
        seen.jump(ras)
        seen.click(*seen.to_pixel(ras), shift=shift)
        if settle:
            self.settle()

    def drag(self, start: ArrayLike, end: ArrayLike, view: str = "Red") -> None:
        """Drags what is at a world point to another one in the same slice."""
        seen = self.view(view)
        seen.jump(start)
        seen.drag(seen.to_pixel(start), seen.to_pixel(end), steps=8)
        self.settle()

    def press(self, key: str) -> None:
        """Presses a key in the main window."""
        from PySide6.QtGui import QKeySequence
        from PySide6.QtTest import QTest

        self.host._window.activateWindow()
        self.host.process()
        QTest.keySequence(self.host._window, QKeySequence(key))
        self.settle()

    def ids(self) -> list[str]:
        """Segment IDs in the table's order."""
        return [row.segmentId for row in self.session.review.rows()]

    def cell(self, row: int, column: int) -> str:
        """What the table shows."""
        return self.ui.noduleTable.item(row, column).text()

    def mask(self, segment_id: str) -> NDArray[np.bool_]:
        """A segment's voxels, read by Slicer."""
        import slicer.util

        session = self.session
        return slicer.util.arrayFromSegmentBinaryLabelmap(
            session.segmentationNode, segment_id, session.volumeNode
        ).astype(bool)
