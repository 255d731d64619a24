"""What a user of the training module does, in the simulation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from standin.host import Host

ROOT = Path(__file__).resolve().parents[3]
MODULE = ROOT / "SAMMed3DTraining" / "SAMMed3DTraining.py"
NEIGHBOR = ROOT / "SAMMed3D" / "SAMMed3D.py"
NAME = "SAMMed3DTraining"
#: Two nodules in voxels [k, j, i] and their radius in mm.
CENTERS_KJI = ((10, 14, 14), (20, 34, 32))
SHAPE_KJI = (30, 48, 48)


class TrainingUser:
    """A user in front of the module; runs and data sets go into the test's folder."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host, self.folder, self.opened = host, folder, False
        self.dataset, self.work_dir = folder / "Datensätze mit Leerzeichen", folder / "runs"
        host.load(NEIGHBOR)
        host.load(MODULE)
        settings = host.app.userSettings()
        settings.setValue("SAMMed3DTraining/WorkDir", str(self.work_dir))

    @property
    def widget(self) -> Any:
        return self.host.widget(NAME)

    @property
    def ui(self) -> Any:
        return self.widget.ui

    @property
    def panel(self) -> Any:
        return self.widget.panel

    @property
    def session(self) -> Any:
        return self.widget.session

    def open(self) -> None:
        """Chooses the module and the folder of the data set."""
        self.host.select(NAME)
        self.opened = True
        self.ui.folderEdit.text = str(self.dataset)
        self.host.process(0.05)

    def settle(self, seconds: float = 60.0, run: bool = False) -> None:
        """Runs the event loop until no job is under way; ``run``: and until the run is over."""
        self.host.process(0.02)
        self.host.wait(lambda: not self.session.job.isBusy and not (run and self.session.train.isRunning), seconds)
        self.host.process(0.02)

    def press(self, name: str) -> None:
        """A button, which must be usable."""
        button = getattr(self.ui, name)
        assert button.enabled, f"{name}: {button.toolTip}"
        button.click()
        self.host.process(0.02)

    def load_case(self, name: str, seed: int = 0, *, nodules: int = 2, accepted: int = 2) -> Any:
        """A volume with segmented nodules in it; ``nodules`` 0: without a segmentation."""
        from SAMMed3DLib.scene import nodule_segmentation
        from SAMMed3DLib.scene.nodule_segmentation import NoduleSegmentation
        from SAMMed3DLib.scene.segment_writer import MaskBlock, SegmentWriter

        rng = np.random.default_rng(seed)
        array = rng.normal(-850, 20, SHAPE_KJI)
        matrix = np.diag([-1.4, -1.4, 1.5, 1.0])
        matrix[:3, 3] = 30.0 + 10 * seed, 30.0, -20.0
        grid = np.indices(SHAPE_KJI).reshape(3, -1).T
        masks = []
        for center in CENTERS_KJI:
            distance = np.linalg.norm((grid - center) * (1.5, 1.4, 1.4), axis=1).reshape(SHAPE_KJI)
            mask = distance <= 5.0 + seed
            array[mask] = rng.normal(-50, 20, int(mask.sum()))
            masks.append(mask)
        volume = self.host.scene.add_volume(np.round(array).astype(np.int16), matrix, name)
        if nodules:
            segmentation = nodule_segmentation.createSegmentation(volume)
            writer = SegmentWriter(segmentation, volume)
            for index, mask in enumerate(masks[:nodules]):
                segment_id = NoduleSegmentation(segmentation).addNodule()
                writer.write(segment_id, MaskBlock(mask.astype(np.uint8), (0, 0, 0)))
                if index < accepted:
                    NoduleSegmentation(segmentation).setStatus(segment_id, nodule_segmentation.REVIEWED)
        self.host.process(0.02)
        return volume

    def look(self) -> None:
        """What the panel does some moments after the scene has changed, now."""
        self.session.data.refresh()
        self.session.next.refresh()
        self.host.process()

    def cells(self, table: str, column: int) -> list[str]:
        """A column of a table."""
        widget = getattr(self.ui, table)
        return [widget.item(row, column).text() for row in range(widget.rowCount)]
