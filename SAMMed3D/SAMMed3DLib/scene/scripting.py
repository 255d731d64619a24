"""Functions for scripts, without the panel: segment one nodule, or find and segment all.

    segmentId = segment(volumeNode, [(-45.2, 10.0, -300.0)])
    segmentIds = segmentAll(volumeNode)

Both wait for the result. Where the panel is open on the same nodules they work through it, so that its history covers
what the script did; the points are stored like clicks, and clicking can go on in the panel.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..torch_setup.install import torchAvailable
from ..translation import tr as _
from ..weights import default_checkpoint
from ..worker.engine import Engine
from ..worker.thread import Worker
from .pipeline import ModelProvider
from .session import Session, sessionOn
from .volume_geometry import SceneError, VolumeGeometry


class BundledModel:
    """The model that comes with the module, on a GPU where there is one."""

    device = "auto"
    precision = "auto"
    detector: Path | None = None

    def __init__(self) -> None:
        self._torchInstalled = torchAvailable()
        try:
            self.path: Path | None = default_checkpoint()
        except FileNotFoundError:
            self.path = None

    def torchInstalled(self) -> bool:
        """Whether PyTorch was installed when this was made."""
        return self._torchInstalled


def segment(
    volumeNode: Any,
    points: Any,
    labels: Sequence[int] | None = None,
    segmentationNode: Any = None,
    segmentId: str | None = None,
    *,
    models: ModelProvider | None = None,
    worker: Any = None,
) -> str:
    """Segment one nodule from points.

    Args:
        volumeNode: vtkMRMLScalarVolumeNode, a CT.
        points: (n, 3) world RAS in mm, or a vtkMRMLMarkupsFiducialNode (which is only read).
        labels: (n,) 1 inside, 0 outside; default: all inside, or what of a point list is selected.
        segmentationNode: where the segment goes; default: the volume's own, made where there is none.
        segmentId: a segment to go on with: the points are further clicks on it. Default: a new segment.
        models: the model; default: the panel's where it is open on these nodules, else the bundled one.
        worker: default: one that all scripts share.

    Returns:
        the segment's ID in the segmentation (:func:`SAMMed3DLib.scene.nodule_segmentation.findSegmentation` finds it).

    Raises:
        SceneError: nodes, points or labels that cannot be used, PyTorch or the model missing, or any error of the
            engine; then nothing has changed.
    """
    ras, inside = _clicksOf(points, labels, needsPositive=segmentId is None)
    with _session(volumeNode, segmentationNode, models, worker) as session:
        geometry = VolumeGeometry(volumeNode)
        for point in ras:
            if not geometry.contains(point):
                raise SceneError(_("The point {point} lies outside the volume.").format(point=point))
        if segmentId is not None and all(row.segmentId != segmentId for row in session.review.rows()):
            raise SceneError(_("There is no segment '{segmentId}'.").format(segmentId=segmentId))
        nodule = segmentId or Session.NEW
        with _raising(session):
            for point, positive in zip(ras, inside, strict=True):
                nodule = session.click(point, positive, nodule) or nodule
            session.waitUntilIdle(math.inf)
    return nodule


def segmentAll(
    volumeNode: Any,
    segmentationNode: Any = None,
    sensitivity: float | None = None,
    *,
    models: ModelProvider | None = None,
    worker: Any = None,
) -> list[str]:
    """Find and segment all nodules of a volume.

    Nodules that are there already stay, except those of an earlier run that nobody has touched.

    Args:
        volumeNode, segmentationNode, models, worker: as for :func:`segment`.
        sensitivity: 0 (fewest) to 1 (all candidates); default 0.5: those that are rather nodules than not.

    Returns:
        the IDs of the found segments, the likeliest first.

    Raises:
        SceneError: as :func:`segment`.
    """
    with _session(volumeNode, segmentationNode, models, worker) as session, _raising(session):
        if sensitivity is not None:
            session.finding.setSensitivity(sensitivity)
        session.segmentAll()
        session.waitUntilIdle(math.inf)
        return session.finding.shownIds


@functools.cache
def _sharedWorker() -> Worker:
    return Worker(Engine())


@contextmanager
def _session(volumeNode: Any, segmentationNode: Any, models: ModelProvider | None, worker: Any) -> Iterator[Session]:
    """Yields the panel's session where it works on these nodules, else one for this call."""
    VolumeGeometry(volumeNode)
    own = sessionOn(volumeNode, segmentationNode) if models is None and worker is None else None
    if own is not None:
        selected = own.selectedId
        own.waitUntilIdle(math.inf)
        try:
            yield own
        finally:
            own.select(selected)
        return
    session = Session(worker or _sharedWorker(), models or BundledModel(), volumeNode.GetScene())
    try:
        with _raising(session):
            session.setVolume(volumeNode)
            if segmentationNode is not None:
                session.setSegmentation(segmentationNode)
        if not session.state.takesClicks:
            raise SceneError(session.stateText)
        yield session
    finally:
        session.close()


@contextmanager
def _raising(session: Session) -> Iterator[None]:
    """Raises at the end what the session reports as an error."""
    errors: list[str] = []

    def onMessage(text: str, isError: bool) -> None:
        if isError:
            errors.append(text)

    session.message.connect(onMessage)
    try:
        yield
    finally:
        session.message.disconnect(onMessage)
    if errors:
        raise SceneError(errors[0])


def _clicksOf(points: Any, labels: Sequence[int] | None, needsPositive: bool) -> tuple[list[list[float]], list[bool]]:
    """Returns world RAS points and whether each lies inside; the first one inside leads."""
    if hasattr(points, "GetNumberOfControlPoints"):
        defined = [
            n
            for n in range(points.GetNumberOfControlPoints())
            if points.GetNthControlPointPositionStatus(n) == points.PositionDefined
        ]
        if labels is None:
            labels = [int(bool(points.GetNthControlPointSelected(n))) for n in defined]
        points = [points.GetNthControlPointPositionWorld(n) for n in defined]
    try:
        ras = np.array([[float(x) for x in point] for point in points], dtype=np.float64).reshape(-1, 3)
    except (TypeError, ValueError) as error:
        raise SceneError(_("Points must be numbers of shape (n, 3): R, A, S in mm.")) from error
    inside = [True] * len(ras) if labels is None else [bool(label) for label in labels]
    if not len(ras) or not np.isfinite(ras).all():
        raise SceneError(_("At least one point is needed, and all of them must be finite."))
    if len(inside) != len(ras):
        raise SceneError(
            _("{points} points need as many labels, not {labels}.").format(points=len(ras), labels=len(inside))
        )
    if needsPositive and not any(inside):
        raise SceneError(_("A new nodule needs a point inside it (label 1)."))
    order = list(range(len(ras)))
    if needsPositive:
        order.insert(0, order.pop(inside.index(True)))
    return [ras[n].tolist() for n in order], [inside[n] for n in order]
