"""What the Sample Data module offers for this one: a chest made on the spot, and Slicer's own CT for the tutorial."""

from __future__ import annotations

import queue
import threading
from typing import Any

import qt
import slicer

from ..scene.views import LUNG
from ..translation import tr as _
from .icons import FOLDER

CATEGORY = "SAMMed3D"
PHANTOM_NAME = "ChestPhantom"
_CT_CHEST_SHA256 = "4507b664690840abb6cb9af2d919377ffc4ef75b167cb6fd0f747befdb12e38e"


def register() -> None:
    """Adds both to the Sample Data module."""
    import SampleData

    logic = SampleData.SampleDataLogic
    if hasattr(logic, "registerCustomSampleDataCategory"):  # Slicer 5.12 and newer
        logic.registerCustomSampleDataCategory(CATEGORY, title=_("SAMMed3D (lung nodules)"))
    logic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName=PHANTOM_NAME,
        # Nothing is downloaded: the function below makes the volume. Slicer only wants the lists to be of one length.
        uris="sammed3d:phantom",
        fileNames="ChestPhantom.nrrd",
        nodeNames=PHANTOM_NAME,
        thumbnailFileName=str(FOLDER / "ChestPhantom.png"),
        customDownloader=lambda source: loadPhantom(),
    )
    logic.registerCustomSampleDataSource(
        category=CATEGORY,
        sampleName="CTChestTutorial",
        uris=f"{slicer.util.TESTING_DATA_URL}SHA256/{_CT_CHEST_SHA256}",
        fileNames="CT-chest.nrrd",
        nodeNames="CTChest",
        checksums=f"SHA256:{_CT_CHEST_SHA256}",
        thumbnailFileName=str(FOLDER / "SAMMed3D.png"),
    )


def loadPhantom(seed: int = 0) -> Any | None:
    """Makes a synthetic chest with eight nodules of known size and shows it; some seconds, with a Cancel button.

    Returns:
        The volume node; None where it was canceled.
    """
    phantom = _withProgress(lambda: _chestPhantom(seed), _("Making a synthetic chest with nodules..."))
    return None if phantom is None else addPhantom(phantom)


def addPhantom(phantom: Any) -> Any:
    """A ChestPhantom as a volume node, shown in the slice views with a lung window."""
    volumeNode = slicer.util.addVolumeFromArray(phantom.array_kji, ijkToRAS=phantom.ijk_to_ras, name=PHANTOM_NAME)
    volumeNode.CreateDefaultDisplayNodes()
    display = volumeNode.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(*LUNG)
    slicer.util.setSliceViewerLayers(background=volumeNode, fit=True)
    return volumeNode


def _chestPhantom(seed: int) -> Any:
    from ..synthesis.phantom import chest_phantom

    return chest_phantom(seed)


def _withProgress(work: Any, text: str) -> Any | None:
    """Runs ``work`` on a thread behind a dialog with Cancel. Raises what it raises."""
    answers: queue.SimpleQueue = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((work(), None))
        except Exception as error:  # raised again below, on the main thread
            answers.put((None, error))

    dialog = slicer.util.createProgressDialog(
        labelText=text, maximum=0, windowTitle=_("Sample Data"), windowModality=qt.Qt.WindowModal
    )
    threading.Thread(target=run, name="SAMMed3D phantom", daemon=True).start()
    try:
        while not dialog.wasCanceled:
            try:
                # Waiting gives Python's lock to the thread.
                value, error = answers.get(timeout=0.02)
            except queue.Empty:
                slicer.app.processEvents()
                continue
            if error is not None:
                raise error
            return value
        return None
    finally:
        dialog.close()
        dialog.deleteLater()
