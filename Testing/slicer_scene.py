"""Ring B: a MRML scene with Slicer's own C++ classes (PyPI's ``slicer-core``), without the application.

Import this only where ``slicer`` can be imported. :class:`SlicerScene` is one fresh scene with its logics; while it is
open, ``slicer.mrmlScene``, ``slicer.modules`` and ``slicer.app`` point to it, as they do in the application.
"""

from __future__ import annotations

import functools
import tempfile
import types
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk
from numpy.typing import ArrayLike, NDArray
from vtk.util import numpy_support

#: Module name in the application -> class of its logic.
_LOGICS = {
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Markups": "vtkSlicerMarkupsLogic",
}
#: Converters the application registers when it starts; without them no closed surface is made.
_CONVERTERS = ("vtkBinaryLabelmapToClosedSurfaceConversionRule", "vtkClosedSurfaceToBinaryLabelmapConversionRule")


@functools.cache
def register_converters() -> None:
    """Tell the segmentation library how to make closed surfaces; once a process."""
    factory = slicer.vtkSegmentationConverterFactory.GetInstance()
    for name in _CONVERTERS:
        factory.RegisterConverterRule(getattr(slicer, name)())


class Application:
    """The part of ``slicer.app`` that MRML code asks for.

    Attributes:
        pauses: how many times drawing is paused now.
    """

    def __init__(self, logic: Any, temporary_path: str) -> None:
        self._logic = logic
        self.temporaryPath = temporary_path
        self.pauses = 0

    def pauseRender(self) -> None:
        """No view draws until it is called for."""
        self.pauses += 1

    def resumeRender(self) -> None:
        """Takes back one call of pauseRender."""
        self.pauses -= 1
        assert self.pauses >= 0, "drawing is not paused"

    def applicationLogic(self) -> Any:
        """The application logic, which knows the scene's singletons and slice logics."""
        return self._logic

    def testingEnabled(self) -> bool:
        """As in ``Slicer --testing``: nobody is there to answer a dialog."""
        return True


class SlicerScene:
    """A fresh scene with crosshair, selection, interaction and subject hierarchy nodes and the logics of the modules.

    Attributes:
        scene: the vtkMRMLScene.
        app: the vtkSlicerApplicationLogic.
        logics: module logics by lower-case module name, as in ``slicer.modules``.
    """

    def __init__(self) -> None:
        register_converters()
        self._folder = tempfile.TemporaryDirectory(prefix="sammed3d-scene-")
        # Color files are looked for in the application's folder; the wheel has none.
        Path(self._folder.name, "share", "ColorFiles").mkdir(parents=True)
        self.scene = slicer.vtkMRMLScene()
        self.app = slicer.vtkSlicerApplicationLogic()
        self._before = {name: getattr(slicer, name, None) for name in ("mrmlScene", "modules", "app")}
        slicer.mrmlScene = self.scene
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        self.scene.AddNode(crosshair)
        self.app.SetMRMLScene(self.scene)
        self.app.SetTemporaryPath(self._folder.name)
        self.app.SetHomeDirectory(self._folder.name)
        self.app.SetShareDirectory("share")
        colors = slicer.vtkSlicerColorLogic()
        colors.SetMRMLApplicationLogic(self.app)
        colors.SetMRMLScene(self.scene)
        colors.AddDefaultColorNodes()
        self.app.SetColorLogic(colors)
        self.app.SetModuleLogic("Colors", colors)
        self.app.SetSliceLogics(vtk.vtkCollection())
        self.app.SetViewLogics(vtk.vtkCollection())
        self._add_cache()
        self.logics: dict[str, Any] = {}
        for name, class_name in _LOGICS.items():
            logic = getattr(slicer, class_name)()
            logic.SetMRMLApplicationLogic(self.app)
            logic.SetMRMLScene(self.scene)
            self.app.SetModuleLogic(name, logic)
            self.logics[name.lower()] = logic
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene, True)
        slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)
        slicer.modules = types.SimpleNamespace(
            **{name: types.SimpleNamespace(logic=lambda logic=logic: logic) for name, logic in self.logics.items()}
        )
        slicer.app = Application(self.app, self._folder.name)

    def close(self) -> None:
        """Empties the scene and gives ``slicer.mrmlScene`` and the others back."""
        assert not getattr(slicer.app, "pauses", 0), "the views are left paused: nothing would be drawn any more"
        self.app.GetSliceLogics().RemoveAllItems()
        self.scene.Clear(1)
        for name, value in self._before.items():
            if value is None:
                delattr(slicer, name)
            else:
                setattr(slicer, name, value)
        self._folder.cleanup()

    def add_volume(
        self, array: NDArray, ijk_to_ras: ArrayLike | None = None, name: str = "CT", class_name: str | None = None
    ) -> Any:
        """A scalar volume node with a copy of ``array`` [k, j, i] and a display node."""
        node = self.scene.AddNewNodeByClass(class_name or "vtkMRMLScalarVolumeNode", name)
        image = vtk.vtkImageData()
        image.SetDimensions(*array.shape[::-1])
        scalars = numpy_support.numpy_to_vtk(np.ascontiguousarray(array).reshape(-1), deep=True)
        image.GetPointData().SetScalars(scalars)
        node.SetAndObserveImageData(image)
        node.SetIJKToRASMatrix(as_vtk_matrix(np.eye(4) if ijk_to_ras is None else ijk_to_ras))
        node.CreateDefaultDisplayNodes()
        return node

    def add_transform(self, matrix: ArrayLike, name: str = "Transform") -> Any:
        """A linear transform node with a 4x4 matrix (to parent)."""
        node = self.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
        node.SetMatrixTransformToParent(as_vtk_matrix(matrix))
        return node

    def add_warp(self, name: str = "Warp") -> Any:
        """A non-linear (thin-plate spline) transform node."""
        source, target = vtk.vtkPoints(), vtk.vtkPoints()
        for point in ((0, 0, 0), (50, 0, 0), (0, 50, 0), (0, 0, 50), (40, 40, 40)):
            source.InsertNextPoint(point)
            target.InsertNextPoint(point[0] + point[1] * point[2] / 100, point[1], point[2] + 3)
        spline = vtk.vtkThinPlateSplineTransform()
        spline.SetBasisToR()
        spline.SetSourceLandmarks(source)
        spline.SetTargetLandmarks(target)
        node = self.scene.AddNewNodeByClass("vtkMRMLTransformNode", name)
        node.SetAndObserveTransformToParent(spline)
        return node

    def save(self, path: Path) -> None:
        """Writes the scene, as an MRB bundle. Raises RuntimeError."""
        if not self.scene.WriteToMRB(str(path)):
            raise RuntimeError(f"the scene could not be written to {path}")

    def load(self, path: Path) -> None:
        """Replaces the scene by a saved MRB bundle. Raises RuntimeError."""
        self.scene.Clear(0)
        if not self.scene.ReadFromMRB(str(path), False):
            raise RuntimeError(f"the scene could not be read from {path}")

    def _add_cache(self) -> None:
        """Bundles are unpacked into the cache folder."""
        cache, manager = slicer.vtkCacheManager(), slicer.vtkDataIOManager()
        cache.SetRemoteCacheDirectory(str(Path(self._folder.name, "cache")))
        cache.SetMRMLScene(self.scene)
        manager.SetCacheManager(cache)
        self.scene.SetCacheManager(cache)
        self.scene.SetDataIOManager(manager)


def as_vtk_matrix(matrix: ArrayLike) -> vtk.vtkMatrix4x4:
    """A vtkMatrix4x4 of a 4x4 array."""
    result = vtk.vtkMatrix4x4()
    result.DeepCopy(np.asarray(matrix, dtype=np.float64).ravel().tolist())
    return result
