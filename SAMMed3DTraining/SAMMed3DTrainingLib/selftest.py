"""The self-test: from segmented nodules to an adopted model inside Slicer, with real child processes on the processor.

No download. Four small synthetic cases, the quick preset from the bundled model, one epoch. What it made is removed.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import slicer.util

#: For a step that hangs, not for a slow machine.
TIMEOUT_SECONDS = 1800.0
CASES = 4
SHAPE_KJI, SPACING_KJI = (48, 72, 72), (1.25, 0.9, 0.9)
CENTERS_KJI = ((16, 24, 24), (32, 50, 46))


def run(test: Any) -> None:
    """``test``: the SAMMed3DTrainingTest. Raises AssertionError where the module does not do what it promises."""
    folder = Path(tempfile.mkdtemp(prefix="SAMMed3D self-test ä "))
    settings = slicer.app.userSettings()
    names = ("SAMMed3DTraining/WorkDir", "SAMMed3DTraining/Checkpoint", "SAMMed3D/Model")
    before = {name: settings.value(name) for name in names}
    flow = None
    try:
        flow = _TrainingFlow(test, folder)
        flow.run()
    finally:
        if flow is not None:
            flow.cleanUp()
        for name, value in before.items():
            if value is None:
                settings.remove(name)
            else:
                settings.setValue(name, value)
        shutil.rmtree(folder, ignore_errors=True)


def addCase(name: str, seed: int) -> Any:
    """A noisy volume with two accepted nodules, 8 to 14 mm wide."""
    from SAMMed3DLib.scene import nodule_segmentation
    from SAMMed3DLib.scene.nodule_segmentation import NoduleSegmentation
    from SAMMed3DLib.scene.segment_writer import MaskBlock, SegmentWriter

    rng = np.random.default_rng(seed)
    array = rng.normal(-850, 30, SHAPE_KJI)
    matrix = np.diag([-SPACING_KJI[2], -SPACING_KJI[1], SPACING_KJI[0], 1.0])
    matrix[:3, 3] = 32.0 + 100 * seed, 32.0, -30.0
    masks = []
    for index, center in enumerate(CENTERS_KJI):
        offsets = (np.indices(SHAPE_KJI).T - center) * SPACING_KJI
        mask = (np.linalg.norm(offsets, axis=-1) < 4.0 + seed + index / 2).T
        array[mask] = rng.normal(-30, 25, int(mask.sum()))
        masks.append(mask)
    volume = slicer.util.addVolumeFromArray(np.round(array).astype(np.int16), ijkToRAS=matrix, name=name)
    segmentation = nodule_segmentation.createSegmentation(volume)
    writer = SegmentWriter(segmentation, volume)
    for mask in masks:
        segmentId = NoduleSegmentation(segmentation).addNodule()
        writer.write(segmentId, MaskBlock(mask.astype(np.uint8), (0, 0, 0)))
        NoduleSegmentation(segmentation).setStatus(segmentId, nodule_segmentation.REVIEWED)
    return volume


class _TrainingFlow:
    def __init__(self, test: Any, folder: Path) -> None:
        self.test, self.folder, self.adopted = test, folder, ""
        slicer.util.selectModule("SAMMed3DTraining")
        self.widget = slicer.modules.SAMMed3DTrainingWidget
        self.ui = self.widget.ui

    @property
    def session(self) -> Any:
        return self.widget.session

    def run(self) -> None:
        if self.session.packages.missing:
            self.test.delayDisplay(
                "Packages for training are missing, so the self-test ends here: "
                + ", ".join(package.name for package in self.session.packages.missing)
            )
            return
        self.widget.panel.train.setWorkDir(self.folder / "runs")
        self.ui.checkpointCombo.setCurrentIndex(0)
        self.ui.folderEdit.text = str(self.folder / "data set")
        self.exportCases()
        self.train()
        self.compare()
        self.adopt()
        self.test.delayDisplay("The self-test passed.")

    # -- steps -------------------------------------------------------------------------------------------------------

    def exportCases(self) -> None:
        self.test.delayDisplay("Making and writing cases...")
        for seed in range(CASES):
            addCase(f"Case {seed + 1}", seed)
        self.session.data.refresh()
        self.press("exportButton")
        self.wait()
        files = list((self.folder / "data set" / "labelsTr").glob("*.nii.gz"))
        self.test.assertEqual(len(files), CASES, self.ui.messageLabel.text)
        self.test.assertTrue(all(row.state == "unchanged" for row in self.session.data.rows))

    def train(self) -> None:
        self.test.delayDisplay("Training in a process of its own; some minutes...")
        self.ui.presetCombo.setCurrentIndex(0)
        self.ui.deviceCombo.setCurrentIndex(1)
        self.ui.epochsSpinBox.value = 1
        self.ui.runNameEdit.text = "self-test"
        self.press("startButton")
        self.test.assertTrue(self.session.state.isRunning, self.ui.messageLabel.text)
        self.wait(run=True)
        status = self.session.train.status
        self.test.assertEqual(status.state, "finished", status.message)
        self.test.assertGreater(len(status.curves.steps), 0)
        self.test.assertTrue(self.widget.panel.plots.hasCurves)
        self.test.delayDisplay(f"Best Dice {status.best_dice:.2f}")

    def compare(self) -> None:
        self.test.delayDisplay("Comparing old and new weights...")
        self.press("compareButton")
        self.wait()
        self.test.assertGreater(self.ui.noduleTable.rowCount, 0, self.ui.messageLabel.text)
        self.ui.noduleTable.setCurrentCell(0, 0)
        self.wait()
        self.test.assertTrue(self.widget.panel.comparison.isOnScreen, self.ui.messageLabel.text)

    def adopt(self) -> None:
        self.test.delayDisplay("Adopting the model...")
        self.widget.session.compare.adopt()  # the button asks where a short run has gained nothing
        self.wait()
        names = [entry.name for entry in self.widget.panel.module.store.entries()]
        self.adopted = next((name for name in names if name.startswith("self-test")), "")
        self.test.assertTrue(self.adopted, self.ui.messageLabel.text)
        self.test.assertIn("self-test", str(self.widget.panel.module.checkpoint))

    # -- tools -------------------------------------------------------------------------------------------------------

    def press(self, name: str) -> None:
        button = getattr(self.ui, name)
        self.test.assertTrue(button.enabled, f"{name}: {button.toolTip}")
        button.click()

    def wait(self, run: bool = False) -> None:
        self.test.assertTrue(self.session.waitUntilIdle(TIMEOUT_SECONDS, slicer.app.processEvents, run))

    def cleanUp(self) -> None:
        """What outlives the folder: a run that still goes on, and the adopted model."""
        if self.session.train.isRunning:
            self.session.train.kill()
        self.widget.panel.comparison.close()
        if self.adopted:
            self.widget.panel.module.use("nodule")
            self.widget.panel.module.store.remove(self.adopted)
