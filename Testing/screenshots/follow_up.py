"""Draws the section *Follow-up and report* beside both scans, and the first page of its report.

    python Testing/screenshots/follow_up.py follow_up.png report.png

A made-up follow-up of the synthetic chest: breath, shift, other noise, nodules that grew, one removed and one added;
one click of the bundled model into each, at both dates. Registration, matching, figures and documents are the module's
own; the window is a simulation (see panel.py). Needs pdftoppm (Debian, Ubuntu: poppler-utils).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "Testing"), str(ROOT / "Testing" / "screenshots"), str(ROOT / "SAMMed3D")]

import numpy as np  # noqa: E402
import slicer  # noqa: E402
from panel import compose  # noqa: E402

from report.made_up_follow_ups import MadeScan, made_up_follow_up  # noqa: E402
from slicer_view import SliceView  # noqa: E402
from standin.host import Host  # noqa: E402

_SEED, _NODULES = 3, 5


def main() -> int:
    """Writes both pictures and ends at once: Qt and VTK may crash when the interpreter ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", type=Path)
    parser.add_argument("report", type=Path)
    options = parser.parse_args()
    host = Host()
    widget, rows = _work(host)
    compose(host, rows, height=830).save(str(options.section))
    with tempfile.TemporaryDirectory() as folder:
        pdf = Path(folder) / "report.pdf"
        widget.panel.followUp.comparison.save(pdf)
        _settle(host, widget)
        command = ["pdftoppm", "-png", "-singlefile", "-r", "110", str(pdf), str(options.report.with_suffix(""))]
        subprocess.run(command, check=True)
    sys.stdout.write(f"{options.section}\n{options.report}\n")
    sys.stdout.flush()
    import os

    os._exit(0)


def _work(host: Host) -> tuple[Any, list[list[SliceView]]]:
    """Compares the two scans; returns the Python widget and the views of both rows."""
    from SAMMed3DLib.scene.two_rows import PRIOR_VIEWS
    from SAMMed3DLib.synthesis.phantom import chest_phantom

    host.load(ROOT / "SAMMed3D" / "SAMMed3D.py")
    chest = chest_phantom(_SEED, (144, 195, 270), (1.6, 1.33, 1.33), nodules=())
    made = made_up_follow_up(chest.array_kji, chest.ijk_to_ras, _SEED, count=_NODULES, spacing_kji=(1.6, 1.33, 1.33))
    names = ("Red", "Green", "Yellow")
    upper = [host.app.layoutManager().sliceWidget(name).sliceView()._view for name in names]
    lower = [
        SliceView(host.scene, name, way)
        for name, way in zip(PRIOR_VIEWS, ("Axial", "Coronal", "Sagittal"), strict=True)
    ]
    layouts = slicer.vtkMRMLLayoutLogic()  # after the views: it takes those that are there
    layouts.SetMRMLScene(host.scene.scene)
    (current, now), (prior, then) = (_add(host, *each) for each in (("CT", made.current), ("Prior CT", made.prior)))
    for view in upper:
        view.show(current)
    for view in lower:
        view.show(prior)
    widget = host.select("SAMMed3D")
    host.process(0.1)
    widget.ui.volumeSelector.setCurrentNode(current)
    widget.ui.segmentationSelector.setCurrentNode(now)
    for section in (widget.ui.nodulesSection, widget.ui.optionsSection, widget.ui.modelSection):
        section.collapsed = True
    widget.ui.followUpSection.collapsed = False
    widget.ui.priorVolumeSelector.setCurrentNode(prior)
    widget.ui.priorSegmentationSelector.setCurrentNode(then)
    for volume, date in ((current, "2024-07-01"), (prior, "2024-01-15")):
        widget.panel.followUp.comparison.setDate(volume, date)
    _settle(host, widget)
    widget.ui.compareButton.click()
    _settle(host, widget)
    for view in (*upper, *lower):
        view.slice_node.SetFieldOfView(90.0, 67.5, view.slice_node.GetFieldOfView()[2])
    widget.ui.twoRowsButton.click()
    table = widget.ui.followUpTable
    grown = max(range(table.rowCount), key=lambda row: " days (" in table.item(row, 3).text())
    table.setCurrentCell(grown, 0)
    _settle(host, widget)
    for view in (*upper, *lower):
        view.render()
    return widget, [upper, lower]


def _add(host: Host, name: str, scan: MadeScan) -> tuple[Any, Any]:
    """A volume and the segmentation of its nodules, clicked into the middle."""
    from SAMMed3DLib.inference import SamPredictor3D
    from SAMMed3DLib.inference.geometry import transform_points
    from SAMMed3DLib.model import load_model
    from SAMMed3DLib.scene.mask_block import tightBlock
    from SAMMed3DLib.scene.nodule_segmentation import NoduleSegmentation, createSegmentation
    from SAMMed3DLib.scene.segment_writer import SegmentWriter
    from SAMMed3DLib.weights import default_checkpoint

    volume = host.scene.add_volume(scan.array_kji, scan.ijk_to_ras, name)
    volume.GetDisplayNode().SetAutoWindowLevel(0)
    volume.GetDisplayNode().SetWindowLevel(1500.0, -500.0)
    node = createSegmentation(volume)
    nodules, writer = NoduleSegmentation(node), SegmentWriter(node, volume)
    predictor = SamPredictor3D(load_model(default_checkpoint()))
    predictor.set_image(scan.array_kji, scan.ijk_to_ras)
    for label in np.unique(scan.labels_kji)[1:]:
        middle = np.argwhere(scan.labels_kji == label).mean(axis=0)[::-1]
        clicked = predictor.predict(transform_points(scan.ijk_to_ras, middle)[None], np.ones(1, int))
        writer.write(nodules.addNodule(), tightBlock(clicked.mask, clicked.offset_kji))
    return volume, node


def _settle(host: Host, widget: Any) -> None:
    host.process(0.1)
    host.wait(lambda: not (widget.session.isBusy or widget.panel.followUp.comparison.isRunning), 300)
    host.process(0.1)


if __name__ == "__main__":
    sys.exit(main())
