"""Takes README's picture of the training module in 3D Slicer, on synthetic chests; no data of a patient, no download.

    Slicer --no-splash --python-script Resources/take_training_screenshots.py

Writes Resources/Screenshots/training.png and closes Slicer. It trains for some minutes; what it makes is removed.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import slicer

FOLDER = Path(__file__).resolve().parent / "Screenshots"
TIMEOUT_SECONDS = 1800.0
#: Synthetic chests, by their seeds.
CASES, EPOCHS = (0, 1, 3), 3
#: Outlines are drawn so much further out than the bundled model draws them, so that there is something to learn.
FURTHER_MM = 1.0
#: A nodule of this size fills its part of the picture.
WIDE_MM = 8.0


def add_chest(number: int) -> Any:
    """A synthetic chest whose nodules count as reviewed, with outlines of another convention."""
    import numpy as np
    from scipy import ndimage

    from SAMMed3DLib.gui.sample_data import addPhantom
    from SAMMed3DLib.scene import nodule_segmentation
    from SAMMed3DLib.scene.nodule_segmentation import NoduleSegmentation
    from SAMMed3DLib.scene.segment_writer import MaskBlock, SegmentWriter
    from SAMMed3DLib.synthesis.phantom import chest_phantom

    phantom = chest_phantom(number)
    volume = addPhantom(phantom)
    volume.SetName(f"Chest {number + 1}")
    segmentation = nodule_segmentation.createSegmentation(volume)
    writer = SegmentWriter(segmentation, volume)
    spacing = np.linalg.norm(phantom.ijk_to_ras[:3, :3], axis=0)[::-1]
    for value in np.unique(phantom.labels_kji)[1:]:
        segment = NoduleSegmentation(segmentation).addNodule()
        mask = ndimage.distance_transform_edt(phantom.labels_kji != value, sampling=spacing) <= FURTHER_MM
        writer.write(segment, MaskBlock(mask.astype(np.uint8), (0, 0, 0)))
        NoduleSegmentation(segmentation).setStatus(segment, nodule_segmentation.REVIEWED)
    segmentation.SetDisplayVisibility(False)
    return volume


def rest(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        slicer.app.processEvents()


def take(folder: Path) -> None:
    """Writes cases, trains, compares, and grabs the main window with curves and overlay."""
    window = slicer.util.mainWindow()
    window.resize(1500, 940)
    slicer.util.selectModule("SAMMed3DTraining")
    widget = slicer.modules.SAMMed3DTrainingWidget
    ui, session = widget.ui, widget.session

    def wait(run: bool = False) -> None:
        if not session.waitUntilIdle(TIMEOUT_SECONDS, slicer.app.processEvents, run):
            raise TimeoutError("a step of the training module did not end")

    widget.panel.train.setWorkDir(folder / "Runs")
    ui.folderEdit.text = str(folder / "Dataset")
    for number in CASES:
        add_chest(number)
    session.data.refresh()
    ui.exportButton.click()
    wait()
    ui.epochsSpinBox.value = EPOCHS
    ui.runNameEdit.text = "my_nodules"
    ui.estimateButton.click()
    wait()
    ui.startButton.click()
    wait(run=True)
    ui.compareButton.click()
    wait()
    nodules = session.compare.nodules()
    wide = [nodule for nodule in nodules if (nodule.diameterMm or 0.0) >= WIDE_MM] or nodules
    shown = max(wide, key=lambda nodule: nodule.difference or 0.0)
    ui.noduleTable.setCurrentCell(nodules.index(shown), 0)
    wait()
    for name in slicer.app.layoutManager().sliceViewNames():
        node = slicer.app.layoutManager().sliceWidget(name).mrmlSliceNode()
        width, height, depth = node.GetFieldOfView()
        field = max(50.0, 3.0 * (shown.diameterMm or 0.0))
        node.SetFieldOfView(field, field * height / width, depth)
    ui.diceButton.click()
    ui.dataSection.collapsed = True
    probe = slicer.util.findChild(window, "DataProbeCollapsibleWidget")
    probe.collapsed = True
    rest(1.5)
    FOLDER.mkdir(exist_ok=True)
    window.grab().save(str(FOLDER / "training.png"))


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="sammed3d-screenshots-"))
    settings = slicer.app.userSettings()
    before = settings.value("SAMMed3DTraining/WorkDir")
    try:
        take(folder)
    finally:
        session = slicer.modules.SAMMed3DTrainingWidget.session
        if session.train.isRunning:
            session.train.kill()
        settings.setValue("SAMMed3DTraining/WorkDir", before or "")
        shutil.rmtree(folder, ignore_errors=True)


try:
    main()
finally:
    slicer.util.exit()
