"""The self-test: the whole flow inside Slicer, with the bundled model on a synthetic chest whose truth is known.

No download. It opens the module, clicks with the mouse in a slice view, and compares the result with what was painted.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk

from .gui.sample_data import addPhantom
from .synthesis.phantom import ChestPhantom, chest_phantom

#: Of four nodules with one click each; the model's card says what it reaches on average.
MEAN_DICE, WORST_DICE = 0.75, 0.5
#: Of the second volume, (k, j, i): the chest in coarse voxels, for a quick search.
_SMALL_SHAPE, _SMALL_SPACING = (110, 150, 200), (2.0, 1.6, 1.6)
#: For a step that hangs, not for a slow machine.
TIMEOUT_SECONDS = 900.0


def run(test: Any) -> None:
    """``test``: the SAMMed3DTest. Raises AssertionError where the module does not do what it promises."""
    _SegmentingFlow(test).run()


class _SegmentingFlow:
    def __init__(self, test: Any) -> None:
        self.test = test
        slicer.util.selectModule("SAMMed3D")
        self.widget = slicer.modules.SAMMed3DWidget
        self.ui = self.widget.ui

    @property
    def session(self) -> Any:
        return self.widget.session

    def run(self) -> None:
        if self.session.state.name == "NO_TORCH":
            self.test.delayDisplay("PyTorch is not installed: nothing can be segmented, so the self-test ends here.")
            return
        self.test.delayDisplay("Making a chest with eight nodules...")
        self.phantom: ChestPhantom = chest_phantom(0)
        self.volumeNode = addPhantom(self.phantom)
        self.ui.volumeSelector.setCurrentNode(self.volumeNode)
        self.test.assertIs(self.session.volumeNode, self.volumeNode)
        self.previewOfAClick()
        self.oneClickPerNodule()
        self.correctUndoRedo()
        self.reviewAndDelete()
        self.saveAndReopen()
        self.importAndExport()
        self.segmentAll()
        self.test.delayDisplay("The self-test passed.")

    # -- steps -------------------------------------------------------------------------------------------------------

    def previewOfAClick(self) -> None:
        self.test.delayDisplay("Resting over a nodule, then a click there, and Undo...")
        self.ui.addNoduleButton.click()
        self.test.assertTrue(self.widget.clicks.armed)
        end = time.monotonic() + TIMEOUT_SECONDS
        while self.session.previewed is None and time.monotonic() < end:
            self.point(self.inside(1))  # again, since a hand on the mouse may have moved the pointer away
            again = time.monotonic() + 1.0
            while self.session.previewed is None and time.monotonic() < again:
                slicer.app.processEvents()
        block = self.session.previewed
        self.test.assertIsNotNone(block)
        self.test.assertEqual(self.ui.noduleTable.rowCount, 0)
        self.click(self.inside(1))
        self.test.assertIsNone(self.session.previewed)
        mask = self.mask(self.session.selectedId)
        box = tuple(slice(o, o + n) for o, n in zip(block.offset_kji, block.mask.shape, strict=True))
        np.testing.assert_array_equal(mask[box], block.mask != 0)
        self.test.assertEqual(np.count_nonzero(mask), np.count_nonzero(block.mask))
        self.ui.undoButton.click()
        self.test.assertEqual(self.ui.noduleTable.rowCount, 0)

    def oneClickPerNodule(self) -> None:
        self.test.delayDisplay("One click per nodule...")
        self.segments: dict[int, str] = {}
        for label in (1, 3, 4, 5):
            if self.segments:
                self.ui.nextNoduleButton.click()
            self.click(self.inside(label))
            self.segments[label] = self.session.selectedId
        dice = {label: self.dice(label) for label in self.segments}
        self.test.delayDisplay("Dice " + ", ".join(f"{value:.2f}" for value in dice.values()))
        self.test.assertEqual(len(set(self.segments.values())), 4)
        self.test.assertEqual(self.ui.noduleTable.rowCount, 4)
        self.test.assertGreater(np.mean(list(dice.values())), MEAN_DICE, dice)
        self.test.assertGreater(min(dice.values()), WORST_DICE, dice)

    def correctUndoRedo(self) -> None:
        self.test.delayDisplay("A correction, Undo and Redo...")
        label, segmentId = 1, self.segments[1]
        self.session.select(segmentId)
        before = self.mask(segmentId)
        self.click(self.inside(label, least=True))
        after = self.mask(segmentId)
        self.test.assertEqual(self.session.selectedId, segmentId)
        self.ui.undoButton.click()
        self.wait()
        np.testing.assert_array_equal(self.mask(segmentId), before)
        self.ui.redoButton.click()
        self.wait()
        np.testing.assert_array_equal(self.mask(segmentId), after)
        self.test.assertGreater(self.dice(label), WORST_DICE)

    def reviewAndDelete(self) -> None:
        self.test.delayDisplay("Accepting, deleting and bringing back...")
        self.session.select(self.segments[1])
        self.ui.acceptButton.click()
        self.test.assertEqual(self.row(self.segments[1]).status, "reviewed")
        self.session.select(self.segments[5])
        before = self.mask(self.segments[5])
        self.ui.rejectButton.click()
        self.test.assertEqual(self.ui.noduleTable.rowCount, 3)
        self.ui.undoButton.click()
        self.wait()
        self.test.assertEqual(self.ui.noduleTable.rowCount, 4)
        np.testing.assert_array_equal(self.mask(self.segments[5]), before)

    def saveAndReopen(self) -> None:
        self.test.delayDisplay("Saving the scene, opening it again, and clicking on...")
        masks = {segmentId: self.mask(segmentId) for segmentId in self.segments.values()}
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "nodules.mrb")
            self.test.assertTrue(slicer.util.saveScene(path))
            slicer.mrmlScene.Clear()
            slicer.util.loadScene(path)
        slicer.app.processEvents()
        self.volumeNode = self.session.volumeNode
        self.test.assertIsNotNone(self.volumeNode)
        self.test.assertEqual({row.segmentId for row in self.session.review.rows()}, set(masks))
        for segmentId, mask in masks.items():
            np.testing.assert_array_equal(self.mask(segmentId), mask)
        self.session.select(self.segments[3])
        self.ui.addModeButton.click()
        self.click(self.inside(3))
        self.test.assertEqual(len(self.session.review.rows()), 4)
        self.test.assertGreater(self.dice(3), WORST_DICE)

    def importAndExport(self) -> None:
        self.test.delayDisplay("A point list of others becomes a nodule; a point list and a label map go out...")
        points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "Marks")
        for label in (2, 1):  # the second lies in a nodule that is there
            points.AddControlPointWorld(*self.inside(label))
        self.ui.marksSelector.setCurrentNode(points)
        self.ui.importButton.click()
        self.wait()
        rows = self.session.review.rows()
        self.test.assertEqual(len(rows), 5)
        self.segments[2] = rows[-1].segmentId
        self.test.assertGreater(self.dice(2), WORST_DICE)
        before = set(slicer.util.getNodesByClass("vtkMRMLNode"))
        self.ui.exportPointsButton.click()
        self.ui.exportLabelsButton.click()
        made = set(slicer.util.getNodesByClass("vtkMRMLNode")) - before
        (points,) = (node for node in made if node.IsA("vtkMRMLMarkupsFiducialNode"))
        (labels,) = (node for node in made if node.IsA("vtkMRMLLabelMapVolumeNode"))
        names = [points.GetNthControlPointLabel(number) for number in range(points.GetNumberOfControlPoints())]
        self.test.assertEqual(names, [row.name for row in rows])
        exported = slicer.util.arrayFromVolume(labels)
        for label, row in enumerate(rows, start=1):
            np.testing.assert_array_equal(exported == label, self.mask(row.segmentId))
        for node in (points, labels):
            slicer.mrmlScene.RemoveNode(node)

    def segmentAll(self) -> None:
        self.test.delayDisplay("Finding all nodules in two volumes...")
        other = chest_phantom(1, _SMALL_SHAPE, _SMALL_SPACING)
        otherNode = addPhantom(other)
        self.ui.allVolumesButton.click()
        self.wait()
        self.test.assertIs(self.session.volumeNode, self.volumeNode)
        found = self.found(self.phantom)
        self.test.delayDisplay(f"Found {found} of {len(self.phantom.nodules)} nodules.")
        self.test.assertGreaterEqual(found, 6)
        self.test.assertEqual(self.row(self.segments[1]).status, "reviewed")
        own, self.volumeNode = self.volumeNode, otherNode
        self.ui.volumeSelector.setCurrentNode(otherNode)
        self.wait()
        self.test.assertIs(self.session.volumeNode, otherNode)
        self.test.assertGreaterEqual(self.found(other), 1)
        self.volumeNode = own
        self.ui.volumeSelector.setCurrentNode(own)
        self.wait()
        self.test.assertEqual(self.found(self.phantom), found)

    # -- tools -------------------------------------------------------------------------------------------------------

    def point(self, ras: np.ndarray, shift: bool = False) -> Any:
        """Moves the pointer to a point, which the red slice view shows; returns the view's interactor."""
        slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *ras, slicer.vtkMRMLSliceNode.CenteredJumpSlice)
        view = slicer.app.layoutManager().sliceWidget("Red").sliceView()
        view.forceRender()
        slicer.app.processEvents()
        toView = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(view.mrmlSliceNode().GetXYToRAS(), toView)
        x, y = (round(value) for value in toView.MultiplyPoint([*ras, 1.0])[:2])
        interactor = view.interactor()
        interactor.SetEventInformation(x, y, 0, int(shift), "\0", 0, None)
        interactor.MouseMoveEvent()
        return interactor

    def click(self, ras: np.ndarray, shift: bool = False) -> None:
        """A click with the left mouse button in the red slice view, and the answer to it."""
        interactor = self.point(ras, shift)
        interactor.LeftButtonPressEvent()
        interactor.LeftButtonReleaseEvent()
        self.wait()

    def wait(self) -> None:
        self.test.assertTrue(self.session.waitUntilIdle(TIMEOUT_SECONDS, slicer.app.processEvents))
        self.test.assertNotEqual(self.session.state.name, "ERROR", self.session.stateText)

    def found(self, phantom: ChestPhantom) -> int:
        """How many painted nodules the list's nodules meet."""
        labels = [phantom.labels_kji[self.mask(row.segmentId)] for row in self.session.review.rows()]
        return len(set(np.unique(np.concatenate(labels)).tolist()) - {0}) if labels else 0

    def row(self, segmentId: str) -> Any:
        return next(row for row in self.session.review.rows() if row.segmentId == segmentId)

    def mask(self, segmentId: str) -> np.ndarray:
        """The segment on the volume's voxels, read by Slicer's own function."""
        return slicer.util.arrayFromSegmentBinaryLabelmap(
            self.session.segmentationNode, segmentId, self.volumeNode
        ).astype(bool)

    def dice(self, label: int) -> float:
        truth, mask = self.phantom.labels_kji == label, self.mask(self.segments[label])
        return 2.0 * float((truth & mask).sum()) / float(truth.sum() + mask.sum())

    def inside(self, label: int, least: bool = False) -> np.ndarray:
        """A point well inside a painted nodule, world RAS; ``least``: one near its surface."""
        from scipy import ndimage

        truth = np.pad(self.phantom.labels_kji == label, 1)
        depth = ndimage.distance_transform_edt(truth, sampling=(1.25, 0.8, 0.8))
        if least:
            depth = np.where(depth > 2.0, -depth, -np.inf)
        kji = np.array(np.unravel_index(np.argmax(depth), depth.shape)) - 1
        return (self.phantom.ijk_to_ras @ np.append(kji[::-1], 1.0))[:3]
