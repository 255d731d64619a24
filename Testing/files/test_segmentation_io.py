"""Written segmentations: geometry, Slicer's header fields, and all or nothing."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from SAMMed3DLib.files.itk_io import place_image
from SAMMed3DLib.files.output_files import check_writable, whole_file
from SAMMed3DLib.files.segmentation_io import TERMINOLOGY, write_segmentation
from SAMMed3DLib.files.volume_io import read_labels, read_volume
from SAMMed3DLib.inference import InputError


@pytest.mark.parametrize("ending", ["nii.gz", "nii", "nrrd", "mha", "seg.nrrd"])
@pytest.mark.parametrize("shear", [0.0, 0.3])
def test_round_trip(ending: str, shear: float, tmp_path: Path, scene) -> None:
    matrix = scene.ijk_to_ras.copy()
    matrix[1, 2] += shear
    path = tmp_path / f"naïve name.{ending}"
    write_segmentation(path, scene.labels, matrix)
    labels = read_labels(path)
    np.testing.assert_array_equal(labels.array_kji, scene.labels)
    np.testing.assert_allclose(labels.ijk_to_ras, matrix, atol=1e-5)
    with pytest.raises(InputError, match="label volume"):
        read_volume(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_other_programs_see_the_same_place(tmp_path: Path, scene) -> None:
    """A voxel's position according to SimpleITK, in LPS, is that of our matrix, in RAS."""
    write_segmentation(tmp_path / "a.nii.gz", scene.labels, scene.ijk_to_ras)
    write_segmentation(tmp_path / "a.seg.nrrd", scene.labels, scene.ijk_to_ras)
    k, j, i = scene.centers_kji[1]
    for name in ("a.nii.gz", "a.seg.nrrd"):
        image = sitk.ReadImage(str(tmp_path / name))
        assert image[i, j, k] == 2
        left, posterior, superior = image.TransformIndexToPhysicalPoint((i, j, k))
        np.testing.assert_allclose((-left, -posterior, superior), scene.center_ras(1), atol=1e-3)


def test_segments_have_slicers_fields(tmp_path: Path, scene) -> None:
    write_segmentation(tmp_path / "a.seg.nrrd", scene.labels, scene.ijk_to_ras, {1: "left apex", 2: "beta", 5: "none"})
    image = sitk.ReadImage(str(tmp_path / "a.seg.nrrd"))
    fields = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    assert [fields[f"Segment{n}_Name"] for n in range(3)] == ["left apex", "beta", "none"]
    assert [fields[f"Segment{n}_LabelValue"] for n in range(3)] == ["1", "2", "5"]
    assert len({fields[f"Segment{n}_ID"] for n in range(3)}) == 3
    assert TERMINOLOGY in fields["Segment0_Tags"]
    assert "SCT^27925004^Nodule" in fields["Segment0_Tags"]
    where = np.argwhere(scene.labels == 2)
    low, high = where.min(axis=0)[::-1], where.max(axis=0)[::-1]
    assert fields["Segment1_Extent"] == " ".join(f"{a} {b}" for a, b in zip(low, high, strict=True))
    assert fields["Segment2_Extent"] == "0 -1 0 -1 0 -1"
    assert fields["Segmentation_ContainedRepresentationNames"] == "Binary labelmap|"


def test_many_labels_need_sixteen_bits(tmp_path: Path) -> None:
    labels = np.arange(400, dtype=np.int64).reshape(10, 8, 5)
    write_segmentation(tmp_path / "many.nrrd", labels, np.eye(4))
    np.testing.assert_array_equal(read_labels(tmp_path / "many.nrrd").array_kji, labels)


def test_nothing_half_written(tmp_path: Path) -> None:
    path = tmp_path / "old.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="boom"), whole_file(path) as part:
        part.write_text("half")
        raise RuntimeError("boom")
    assert path.read_text(encoding="utf-8") == "old"
    with pytest.raises(InputError, match="disk full"), whole_file(path) as part:
        part.write_text("half")
        raise OSError(28, "disk full")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.nrrd").mkdir()
    cases = {
        "does not exist; make it first": tmp_path / "absent" / "a.nrrd",
        "is not a folder": tmp_path / "file" / "a.nrrd",
        "it is a folder": tmp_path / "folder.nrrd",
        "must end in": tmp_path / "a.png",
    }
    for message, path in cases.items():
        with pytest.raises(InputError, match=message):
            check_writable(path, (".nrrd", ".nii.gz"))
    with pytest.raises(InputError, match="must end in"):
        write_segmentation(tmp_path / "a.stl", np.zeros((2, 2, 2)), np.eye(4))


@pytest.mark.parametrize("name", ["a.nrrd", "a.seg.nrrd", "a.mha", "a.nii.gz"])
def test_a_full_disk_leaves_the_old_file(name: str, tmp_path: Path, scene, monkeypatch) -> None:
    path, real = tmp_path / name, io.open
    path.write_text("old")

    class Full(io.BufferedWriter):
        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opened(file, mode="r", *args, **options):
        if "w" in mode and Path(file).name == name:
            return Full(io.FileIO(file, "w"))
        return real(file, mode, *args, **options)

    monkeypatch.setattr(io, "open", opened)
    monkeypatch.setattr("builtins.open", opened)
    with pytest.raises(InputError, match="No space left.*nothing was changed; free some space"):
        write_segmentation(path, scene.labels, scene.ijk_to_ras)
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a.seg.nrrd", "a.mha"])
def test_names_and_places_as_itk_writes_them(name: str, tmp_path: Path, scene) -> None:
    """What ITK reads of our file is what it reads of its own."""
    told = {1: "back\\slash\nand line", 2: "ü"}
    write_segmentation(tmp_path / name, scene.labels, scene.ijk_to_ras, told)
    ours = sitk.ReadImage(str(tmp_path / name))
    image = sitk.GetImageFromArray(scene.labels)
    place_image(image, scene.ijk_to_ras)
    sitk.WriteImage(image, str(tmp_path / f"itk-{name}"), useCompression=True)
    theirs = sitk.ReadImage(str(tmp_path / f"itk-{name}"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs))
    for fact in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(ours, fact)(), getattr(theirs, fact)(), atol=1e-6)
    if name.endswith(".seg.nrrd"):
        assert [ours.GetMetaData(f"Segment{n}_Name") for n in range(2)] == list(told.values())


def test_a_link_stays_a_link(tmp_path: Path, scene) -> None:
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "b.nii.gz", tmp_path / "a.nii.gz"
    link.symlink_to(target)
    check_writable(link, (".nii.gz",))
    write_segmentation(link, scene.labels, scene.ijk_to_ras)
    assert link.is_symlink()
    np.testing.assert_array_equal(read_labels(target).array_kji, scene.labels)
