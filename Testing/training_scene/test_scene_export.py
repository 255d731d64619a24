"""What was written is read again: the same voxels in the same place, whatever the volume and the segments are under."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util

from inference.volumes import grid, rotation
from SAMMed3DLib.files.volume_io import read_volume
from SAMMed3DTrainingLib.data.dataset_check import check_datasets
from SAMMed3DTrainingLib.data.datasets import find_datasets, load_case
from SAMMed3DTrainingLib.scene import training_source
from SAMMed3DTrainingLib.scene.export_table import ExportTable
from SAMMed3DTrainingLib.scene.training_source import TrainingSource, sceneExport
from SAMMed3DTrainingLib.store.dataset_writer import DatasetWriter
from scene.masks import ijk_to_world, labelmap, mask_positions, new_segmentation, world_positions
from slicer_scene import as_vtk_matrix
from training.running_export import RunningExport, run_export

from .chests import OBLIQUE, SHAPE, add_chest, ct, exportRows, nodules

SPACING = (0.7, 0.8, 1.5)
VOLUMES = {
    "RAS": grid(SHAPE, SPACING),
    "LPS": grid(SHAPE, SPACING, np.diag([-1.0, -1.0, 1.0])),
    "left-handed": grid(SHAPE, SPACING, np.diag([-1.0, 1.0, 1.0]), (30.0, 0.0, 0.0)),
    "upside down": grid(SHAPE, SPACING, np.diag([-1.0, -1.0, -1.0])),
    "sagittal": grid(SHAPE, SPACING, np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])),
    "oblique": OBLIQUE,
    "oblique left-handed": grid(SHAPE, SPACING, rotation(-50.0, (3.0, 1.0, 2.0)) @ np.diag([1.0, 1.0, -1.0])),
}


def affine(linear: np.ndarray, shift=(11.0, -22.0, 33.0)) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, shift
    return matrix


TRANSFORMS = {
    "none": (),
    "rigid": (affine(rotation(33.0, (1.0, 0.5, 0.2))),),
    "two nested": (affine(rotation(33.0, (1.0, 0.5, 0.2))), affine(rotation(-70.0, (0.0, 0.5, 0.2)), (1.0, 2.0, 3.0))),
    "mirror": (affine(np.diag([-1.0, 1.0, 1.0])),),
    "scale": (affine(np.diag([1.1, 1.1, 0.9])),),
}


def parent(scene, names: str):
    """A chain of transforms; the innermost one, or None."""
    outer = None
    for matrix in reversed(TRANSFORMS[names]):
        node = scene.add_transform(matrix)
        if outer is not None:
            node.SetAndObserveTransformNodeID(outer.GetID())
        outer = node
    return outer


def export(rows, writer, acceptedOnly=False) -> list[str]:
    results = run_export(sceneExport(rows, writer, acceptedOnly))
    return [f"{result.name} {result.state} {result.message}".strip() for result in results]


def read_back(folder, name="CT"):
    (dataset,) = find_datasets(folder)
    return load_case(next(case for case in dataset.cases if case.name == name), dataset.ignored_values)


def positions(nodule, matrix) -> np.ndarray:
    return mask_positions(nodule.mask, nodule.offset_kji, matrix)


@pytest.mark.parametrize("under", TRANSFORMS)
@pytest.mark.parametrize("name", VOLUMES)
def test_round_trip(slicer_scene, tmp_path, name, under):
    volume, segmentation = add_chest(slicer_scene, matrix=VOLUMES[name], transform=parent(slicer_scene, under))
    where = [world_positions(segmentation, segment) for segment in segmentation.GetSegmentation().GetSegmentIDs()]
    writer = DatasetWriter(tmp_path / "data set")
    assert export(exportRows(writer), writer) == ["CT added"]
    loaded = read_back(writer.folder)
    assert np.array_equal(loaded.array_kji, slicer.util.arrayFromVolume(volume))
    assert loaded.array_kji.dtype == np.int16
    np.testing.assert_allclose(loaded.ijk_to_ras, ijk_to_world(volume), atol=2e-4)
    assert [nodule.name for nodule in loaded.nodules] == ["1.1", "2.1"]
    for nodule, expected in zip(loaded.nodules, where, strict=True):
        np.testing.assert_allclose(positions(nodule, loaded.ijk_to_ras), expected, atol=1e-3)
    assert check_datasets(writer.folder).is_clean
    assert [row.state for row in exportRows(writer)] == ["unchanged"]


@pytest.mark.parametrize("moved", ["the volume", "the segmentation", "both, differently"])
def test_volume_and_segmentation_under_different_transforms(slicer_scene, tmp_path, moved):
    """The segments are taken where they are seen in the views, not where they lie in their own coordinates."""
    volume, segmentation = add_chest(slicer_scene)
    turned = slicer_scene.add_transform(affine(rotation(40.0, (0.3, 1.0, 0.2))))
    if moved == "the volume":
        # Hardened: the segments stay where they are seen, in other coordinates of their own.
        volume.SetAndObserveTransformNodeID(turned.GetID())
        segmentation.SetAndObserveTransformNodeID(turned.GetID())
        segmentation.HardenTransform()
        assert segmentation.GetTransformNodeID() is None
    elif moved == "the segmentation":
        whole = slicer_scene.add_transform(np.linalg.inv(affine(rotation(40.0, (0.3, 1.0, 0.2)))))
        segmentation.SetAndObserveTransformNodeID(turned.GetID())
        segmentation.HardenTransform()
        segmentation.SetAndObserveTransformNodeID(whole.GetID())
    else:
        half = slicer_scene.add_transform(affine(np.eye(3), (5.0, 6.0, 7.0)))
        half.SetAndObserveTransformNodeID(turned.GetID())
        volume.SetAndObserveTransformNodeID(half.GetID())
        segmentation.SetAndObserveTransformNodeID(half.GetID())
        half.SetAndObserveTransformNodeID(None)
        segmentation.HardenTransform()
        half.SetAndObserveTransformNodeID(turned.GetID())
        segmentation.SetAndObserveTransformNodeID(turned.GetID())
    where = [world_positions(segmentation, segment) for segment in segmentation.GetSegmentation().GetSegmentIDs()]
    writer = DatasetWriter(tmp_path)
    assert export(exportRows(writer), writer) == ["CT added"]
    loaded = read_back(tmp_path)
    np.testing.assert_allclose(loaded.ijk_to_ras, ijk_to_world(volume), atol=2e-4)
    for nodule, expected in zip(loaded.nodules, where, strict=True):
        found = positions(nodule, loaded.ijk_to_ras)
        assert len(found) == pytest.approx(len(expected), rel=0.1), "resampled where hardening has resampled"
        np.testing.assert_allclose(found.mean(axis=0), expected.mean(axis=0), atol=0.35)


def test_a_segmentation_in_shared_layers_and_with_a_lattice_of_its_own(slicer_scene, tmp_path):
    masks = nodules()
    volume = slicer_scene.add_volume(ct(masks), OBLIQUE)
    fine = grid((40, 50, 50), (0.4, 0.4, 0.5), rotation(-10.0, (1.0, 0.0, 1.0)), (20.0, -30.0, 40.0))
    own = slicer_scene.add_volume(np.zeros((40, 50, 50), np.int16), fine, name="own lattice")
    segmentation = new_segmentation(slicer_scene, own)
    k, j, i = np.meshgrid(*(np.arange(n) for n in (40, 50, 50)), indexing="ij")
    for name, center in (("a", (12, 20, 20)), ("b", (28, 30, 30))):
        ball = np.linalg.norm(np.stack([(k - center[0]) * 0.5, (j - center[1]) * 0.4, (i - center[2]) * 0.4]), axis=0)
        segment = segmentation.GetSegmentation().AddEmptySegment("", name)
        slicer.util.updateSegmentBinaryLabelmapFromArray((ball < 3).astype(np.uint8), segmentation, segment, own)
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    slicer_scene.scene.RemoveNode(own)
    writer = DatasetWriter(tmp_path)
    assert export(exportRows(writer), writer) == ["CT added"]
    loaded = read_back(tmp_path)
    for nodule, segment in zip(loaded.nodules, ("a", "b"), strict=True):
        segment_id = segmentation.GetSegmentation().GetSegmentIdBySegmentName(segment)
        theirs = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, volume) > 0
        ours = np.zeros(SHAPE, bool)
        ours[nodule.slices_kji] = nodule.mask
        assert np.count_nonzero(ours != theirs) <= 0.01 * theirs.sum(), "as Slicer resamples it"


def test_a_segment_that_the_segment_editor_enlarged(slicer_scene, tmp_path):
    """Its labelmap covers more than the volume, with its own offset."""
    volume, segmentation = add_chest(slicer_scene, masks=nodules(((0, 4), (0, 5), (0, 6))))
    image = labelmap(segmentation, segmentation.GetSegmentation().GetNthSegmentID(0))
    large = slicer.vtkOrientedImageData()
    assert slicer.vtkOrientedImageDataResample.CopyImage(image, large, [-5, 30, -6, 30, -7, 20])
    image.DeepCopy(large)
    assert image.GetExtent() == (-5, 30, -6, 30, -7, 20)
    writer = DatasetWriter(tmp_path)
    assert export(exportRows(writer), writer) == ["CT added"]
    (nodule,) = read_back(tmp_path).nodules
    assert nodule.offset_kji == (0, 0, 0) and nodule.voxels == nodules(((0, 4), (0, 5), (0, 6)))[0].sum()
    np.testing.assert_allclose(read_back(tmp_path).ijk_to_ras, ijk_to_world(volume), atol=1e-4)


@pytest.mark.parametrize(
    "kind, values", [(np.float32, "whole"), (np.float64, "whole"), (np.float32, "fractions"), (np.int32, "whole")]
)
def test_other_scalar_types(slicer_scene, tmp_path, kind, values):
    volume, _segmentation = add_chest(slicer_scene)
    array = slicer.util.arrayFromVolume(volume).astype(kind)
    if values == "fractions":
        array = array + kind(0.125)
    slicer.util.updateVolumeFromArray(volume, array)
    writer = DatasetWriter(tmp_path)
    assert export(exportRows(writer), writer) == ["CT added"]
    assert np.array_equal(read_back(tmp_path).array_kji, array)


def test_only_accepted_nodules(slicer_scene, tmp_path):
    masks = nodules(((2, 6), (3, 8), (4, 10)), ((8, 12), (10, 15), (12, 19)), ((9, 13), (2, 6), (2, 6)))
    add_chest(slicer_scene, masks=masks, accepted=(1, 3))
    writer = DatasetWriter(tmp_path)
    assert export(exportRows(writer, True), writer, True) == ["CT added"]
    loaded = read_back(tmp_path)
    assert [nodule.value for nodule in loaded.nodules] == [1, 2], "numbered without gaps"
    assert writer.cases()[0].nodules == {1: "Nodule 1", 2: "Nodule 3"}
    assert loaded.nodules[1].voxels == masks[2].sum()
    assert [row.state for row in exportRows(writer, True)] == ["unchanged"]
    assert [row.state for row in exportRows(writer)] == ["changed"]
    assert export(exportRows(writer), writer) == ["CT updated"]
    assert len(read_back(tmp_path).nodules) == 3


def test_a_scene_with_several_patients_step_by_step(slicer_scene, tmp_path):
    for number in (1, 2, 3):
        add_chest(slicer_scene, f"Größe {number}: CT", seed=number)
    writer = DatasetWriter(tmp_path / "Lungen äöü 肺 x")
    table = ExportTable()
    running = RunningExport(sceneExport(table.rows(writer), writer))
    seen = []
    while running.poll(0.02):
        seen.append(running.job.progress.fraction or 0.0)
    assert seen == sorted(seen) and seen[-1] > 0.5
    assert [result.state for result in running.results] == ["added"] * 3
    assert [row.state for row in table.rows(writer)] == ["unchanged"] * 3
    report = check_datasets(writer.folder)
    assert report.is_clean, str(report)
    assert {row.case.name for row in report.rows} == {f"Größe_{number}_CT" for number in (1, 2, 3)}


def test_the_scene_may_change_while_it_is_written(slicer_scene, tmp_path):
    first, _segmentation = add_chest(slicer_scene, "first", seed=1)
    second, _segmentation = add_chest(slicer_scene, "second", seed=2)
    expected = slicer.util.arrayFromVolume(first).copy()
    writer = DatasetWriter(tmp_path)
    running = RunningExport(sceneExport(exportRows(writer), writer))
    while not running.writes:
        running.poll()
    slicer.util.arrayFromVolume(first)[:] = 0
    slicer_scene.scene.RemoveNode(first)
    slicer_scene.scene.RemoveNode(second)
    results = running.finish()
    assert [result.state for result in results] == ["added", "failed"]
    assert "not in the scene any more" in results[1].message
    assert np.array_equal(read_back(tmp_path, "first").array_kji, expected)


def test_a_volume_that_changes_while_it_is_read(slicer_scene, tmp_path, monkeypatch):
    monkeypatch.setattr(training_source, "_PIECE_BYTES", 4 * SHAPE[1] * SHAPE[2] * 2)
    volume, _segmentation = add_chest(slicer_scene)
    writer = DatasetWriter(tmp_path)
    running = RunningExport(sceneExport(exportRows(writer), writer))
    array = slicer.util.arrayFromVolume(volume)
    array[0] += 1
    slicer.util.arrayFromVolumeModified(volume)
    (result,) = running.finish()
    assert result.state == "failed" and "export it again" in result.message
    assert export(exportRows(writer), writer) == ["CT added"], "read in four pieces"
    assert np.array_equal(read_back(tmp_path).array_kji, array)


def test_closing_the_scene_cancels(slicer_scene, tmp_path):
    add_chest(slicer_scene)
    writer = DatasetWriter(tmp_path)
    running = RunningExport(sceneExport(exportRows(writer), writer))
    slicer_scene.scene.Clear(0)
    running.job.cancel()
    assert [result.state for result in running.finish()] == ["cancelled"] and running.outcome.cancelled
    assert writer.cases() == ()


def test_a_case_whose_segments_are_gone(slicer_scene, tmp_path):
    _volume, segmentation = add_chest(slicer_scene, accepted=(2,))
    writer = DatasetWriter(tmp_path)
    rows = exportRows(writer)
    segmentation.GetSegmentation().RemoveAllSegments()
    (told,) = export(rows, writer)
    assert told.startswith("CT failed") and "no nodule" in told and writer.cases() == ()


def test_a_volume_without_nodules_as_file(slicer_scene, tmp_path):
    volume = slicer_scene.add_volume(ct([]), OBLIQUE)
    volume.SetAndObserveTransformNodeID(parent(slicer_scene, "rigid").GetID())
    TrainingSource.writeVolume(TrainingSource.volumeData(volume), tmp_path / "x.nii.gz")
    loaded = read_volume(tmp_path / "x.nii.gz")
    assert np.array_equal(loaded.array_kji, ct([]))
    np.testing.assert_allclose(loaded.ijk_to_ras, ijk_to_world(volume), atol=1e-4)


def test_a_sheared_transform_is_kept_and_told(slicer_scene, tmp_path):
    shear = np.eye(4)
    shear[0, 2] = 0.2
    volume, segmentation = add_chest(slicer_scene, transform=slicer_scene.add_transform(shear))
    writer = DatasetWriter(tmp_path)
    (row,) = exportRows(writer)
    assert any("nnU-Net cannot read" in note for note in row.notes)
    assert export([row], writer) == ["CT added"]
    np.testing.assert_allclose(read_back(tmp_path).ijk_to_ras, ijk_to_world(volume), atol=1e-4)
    volume.GetParentTransformNode().SetMatrixTransformToParent(as_vtk_matrix(np.eye(4)))
    assert [row.state for row in exportRows(writer)] == ["changed"]
    assert segmentation.GetTransformNodeID() == volume.GetTransformNodeID()
