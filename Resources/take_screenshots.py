"""Takes README's pictures of the module in 3D Slicer, on the synthetic chest; no data of a patient, no download.

    Slicer --no-splash --python-script Resources/take_screenshots.py

Writes module.png and, small and in a dark theme, module_dark.png into Resources/Screenshots and closes Slicer.
"""

from __future__ import annotations

from pathlib import Path

import qt
import slicer

FOLDER = Path(__file__).resolve().parent / "Screenshots"
TIMEOUT_SECONDS = 120.0
CLICKED = 5


def main() -> None:
    """Clicks some nodules, corrects one, and grabs the main window."""
    from SAMMed3DLib.gui.sample_data import addPhantom
    from SAMMed3DLib.synthesis.phantom import chest_phantom

    window = slicer.util.mainWindow()
    window.resize(1500, 900)
    slicer.app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    slicer.util.selectModule("SAMMed3D")
    widget = slicer.modules.SAMMed3DWidget
    session = widget.session
    phantom = chest_phantom(0)
    widget.ui.volumeSelector.setCurrentNode(addPhantom(phantom))
    widget.ui.addNoduleButton.click()
    for nodule in phantom.nodules[:CLICKED]:
        session.click(nodule["center_ras"], True)
        session.waitUntilIdle(TIMEOUT_SECONDS, slicer.app.processEvents)
        widget.ui.nextNoduleButton.click()
    rows = session.review.rows()
    session.review.accept(rows[0].segmentId)
    session.review.flag(rows[3].segmentId)
    session.select(rows[1].segmentId)
    session.review.jumpTo(rows[1].segmentId)
    widget.ui.show3dButton.click()
    view = slicer.app.layoutManager().threeDWidget(0).threeDView()
    view.resetFocalPoint()
    wait()
    view.resetCamera()
    slicer.app.processEvents()
    FOLDER.mkdir(exist_ok=True)
    window.grab().save(str(FOLDER / "module.png"))
    palette = qt.QPalette(qt.QColor(53, 53, 53))
    palette.setColor(qt.QPalette.Base, qt.QColor(35, 35, 35))
    palette.setColor(qt.QPalette.AlternateBase, qt.QColor(43, 43, 43))
    slicer.app.setPalette(palette)
    window.resize(1366, 768)
    wait()
    session.select(rows[2].segmentId)
    session.review.jumpTo(rows[2].segmentId)
    wait()
    window.grab().save(str(FOLDER / "module_dark.png"))


def wait() -> None:
    """A second of the event loop, so that what was changed is drawn."""
    for _ in range(20):
        qt.QThread.msleep(50)
        slicer.app.processEvents()


try:
    main()
finally:
    slicer.util.exit()
