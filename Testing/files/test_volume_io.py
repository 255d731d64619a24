"""Reading CTs: the geometry of every format, and files that cannot be used."""

from __future__ import annotations

import bz2
import gzip
import shutil
import struct
import tracemalloc
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from files.dicom_files import write_slices
from SAMMed3DLib.files.volume_io import read_labels, read_volume, stem
from SAMMed3DLib.inference import InputError


def write_itk(path: Path, scene) -> Path:
    """The scene written by SimpleITK, its geometry given in ITK's own terms."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ scene.ijk_to_ras
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(scene.array)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(path))
    return path


def write_dicom(folder: Path, scene, description: str = "LUNG", drop: int | None = None) -> Path:
    """The scene as a DICOM series, stored with rescale intercept -1024; file names not in the order of the slices."""
    folder.mkdir(parents=True, exist_ok=True)
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ scene.ijk_to_ras
    i_axis, j_axis = (matrix[:3, axis] / np.linalg.norm(matrix[:3, axis]) for axis in (0, 1))
    uid = f"1.2.826.0.1.{abs(hash((str(folder), description))) % 10**9}"
    for k, plane in enumerate(scene.array):
        if k == drop:
            continue
        image = sitk.GetImageFromArray(plane)
        image.SetSpacing(np.linalg.norm(matrix[:3, :2], axis=0).tolist())
        position = matrix[:3, 3] + k * matrix[:3, 2]
        tags = {
            "0008|0060": "CT",
            "0008|103e": description,
            "0020|000d": "1.2.826.0.1.5",
            "0020|000e": uid,
            "0020|0013": str(k),
            "0020|0032": "\\".join(f"{value:.6f}" for value in position),
            "0020|0037": "\\".join(f"{value:.8f}" for value in (*i_axis, *j_axis)),
            "0028|1052": "-1024",
            "0028|1053": "1",
            "0008|0018": f"{uid}.{k + 1}",
        }
        for key, value in tags.items():
            image.SetMetaData(key, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{(k * 7) % 40:03d}-{description}.dcm"))
        writer.Execute(image)
    return folder


def test_nifti_geometry_and_values(ct: Path, scene) -> None:
    volume = read_volume(ct)
    np.testing.assert_array_equal(volume.array_kji, scene.array)
    np.testing.assert_allclose(volume.ijk_to_ras, scene.ijk_to_ras, atol=1e-5)
    assert volume.array_kji.dtype == np.int16
    assert volume.array_kji.flags.c_contiguous
    assert volume.name == "scan é"


@pytest.mark.parametrize("ending", ["nrrd", "mha", "mhd"])
def test_itk_formats(ending: str, tmp_path: Path, scene) -> None:
    volume = read_volume(write_itk(tmp_path / f"a b ü.{ending}", scene))
    np.testing.assert_array_equal(volume.array_kji, scene.array)
    np.testing.assert_allclose(volume.ijk_to_ras, scene.ijk_to_ras, atol=1e-5)


def test_a_sheared_nifti_keeps_its_matrix(tmp_path: Path, scene) -> None:
    sheared = scene.ijk_to_ras.copy()
    sheared[:3, 2] += (0.0, 0.4, 0.0)  # a tilted gantry
    nibabel.Nifti1Image(scene.array.T, sheared).to_filename(tmp_path / "tilted.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "tilted.nii").ijk_to_ras, sheared, atol=1e-5)


def test_rescaling_of_nifti_is_applied(tmp_path: Path, scene) -> None:
    image = nibabel.Nifti1Image((scene.array + 1024).T, scene.ijk_to_ras)
    image.header.set_slope_inter(1.0, -1024.0)
    image.to_filename(tmp_path / "scaled.nii.gz")
    volume = read_volume(tmp_path / "scaled.nii.gz")
    assert volume.array_kji.dtype == np.float32


def test_a_fourth_axis_of_one_is_dropped(tmp_path: Path, scene) -> None:
    nibabel.Nifti1Image(scene.array.T[..., None], scene.ijk_to_ras).to_filename(tmp_path / "one.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "one.nii.gz").array_kji, scene.array)


def test_dicom_series_in_a_folder_below_and_by_one_of_its_files(tmp_path: Path, scene) -> None:
    folder = write_dicom(tmp_path / "study" / "sériё 1", scene)
    first = next(folder.iterdir())
    assert sitk.ReadImage(str(first)).GetMetaData("0028|1052").strip() == "-1024"
    for path in (folder, tmp_path / "study", first):
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.array_kji, scene.array)
        np.testing.assert_allclose(volume.ijk_to_ras, scene.ijk_to_ras, atol=1e-3)


def test_dicom_of_a_left_handed_volume_is_read_the_other_way_up(tmp_path: Path, scene) -> None:
    class LeftHanded:  # GDCM sorts slices along the normal of rows and columns, here against k
        array = scene.array
        ijk_to_ras = scene.ijk_to_ras @ np.diag([1.0, 1.0, -1.0, 1.0])

    volume = read_volume(write_dicom(tmp_path / "left", LeftHanded))
    back = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, len(scene.array) - 1], [0, 0, 0, 1]])
    np.testing.assert_array_equal(volume.array_kji, scene.array[::-1])
    np.testing.assert_allclose(volume.ijk_to_ras, LeftHanded.ijk_to_ras @ back, atol=1e-3)


def test_a_tilted_gantry_in_dicom_gives_the_sheared_matrix(tmp_path: Path, scene) -> None:
    class Tilted:
        array = scene.array
        ijk_to_ras = scene.ijk_to_ras.copy()

    Tilted.ijk_to_ras[:3, 2] += (0.0, 0.5, 0.0)
    volume = read_volume(write_dicom(tmp_path / "tilt", Tilted))
    np.testing.assert_array_equal(volume.array_kji, scene.array)
    np.testing.assert_allclose(volume.ijk_to_ras, Tilted.ijk_to_ras, atol=1e-3)


def test_a_missing_slice_is_noted_and_masks_are_not_stretched(tmp_path: Path, scene) -> None:
    with pytest.warns(UserWarning, match="1 slice is missing in .*S 7.0 to 10.0 mm.: the voxels between"):
        volume = read_volume(write_dicom(tmp_path / "gap", scene, drop=11))
    kept = np.delete(np.arange(40), 11)
    np.testing.assert_array_equal(volume.array_kji[kept], scene.array[kept])
    np.testing.assert_allclose(volume.ijk_to_ras, scene.ijk_to_ras, atol=1e-3)
    between = scene.array[10:13:2].astype(float).mean(axis=0)
    assert np.abs(volume.array_kji[11] - between).max() <= 0.5


def test_a_series_without_positions_is_refused(tmp_path: Path, scene) -> None:
    folder = write_dicom(tmp_path / "s", scene)
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        del data.ImagePositionPatient
        data.save_as(file)
    with pytest.raises(InputError, match="do not say where they lie"):
        read_volume(folder)


def test_copies_of_slices_are_left_out_and_named(tmp_path: Path, scene) -> None:
    folder = write_dicom(tmp_path / "s", scene)
    for file in list(folder.iterdir()):
        shutil.copy(file, folder / f"copy of {file.name}")
    with pytest.warns(UserWarning, match="copy of 000-LUNG.dcm .a copy of 000-LUNG.dcm.* and 36 more"):
        volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array_kji, scene.array)


def test_slices_in_the_place_of_others_are_refused(tmp_path: Path, scene) -> None:
    folder = write_dicom(tmp_path / "s", scene)
    for file in list(folder.iterdir()):
        data = pydicom.dcmread(file)
        data.SOPInstanceUID += ".9"
        data.save_as(folder / f"again {file.name}")
    with pytest.raises(InputError, match="40 slices that lie where another one lies"):
        read_volume(folder)


def test_gdcm_keeps_its_remarks_to_itself(tmp_path: Path, scene, capfd) -> None:
    write_dicom(tmp_path / "a" / "b", scene)
    read_volume(tmp_path)
    assert capfd.readouterr().err == ""


def test_several_series_are_listed(tmp_path: Path, scene) -> None:
    write_dicom(tmp_path / "s", scene, "LUNG")
    write_dicom(tmp_path / "s", scene, "BONE")
    with pytest.raises(InputError, match="2 DICOM series: name one file") as caught:
        read_volume(tmp_path / "s")
    assert "CT, LUNG, 40 slices" in str(caught.value)
    assert "CT, BONE, 40 slices" in str(caught.value)


def test_a_folder_without_a_series(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InputError, match="holds no DICOM series: give"):
        read_volume(tmp_path)


def test_bad_files(tmp_path: Path, ct: Path, scene, labels_file: Path) -> None:
    def nifti(name: str, array: np.ndarray) -> Path:
        nibabel.Nifti1Image(array, scene.ijk_to_ras).to_filename(tmp_path / name)
        return tmp_path / name

    def raw(name: str, content: bytes) -> Path:
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    rgb = np.zeros((5, 5, 5), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    sitk.WriteImage(sitk.Image([5, 5, 5], sitk.sitkVectorUInt8, 3), str(tmp_path / "rgb.nrrd"))
    sitk.WriteImage(sitk.Image([5, 5, 5, 2], sitk.sitkInt16), str(tmp_path / "4d.nrrd"))
    sitk.WriteImage(sitk.Image([5, 5], sitk.sitkInt16), str(tmp_path / "2d.mha"))
    singular = (
        b"NRRD0004\ntype: uint8\ndimension: 3\nspace: left-posterior-superior\nsizes: 2 2 2\n"
        b"space directions: (1,0,0) (1,0,0) (0,0,1)\nkinds: domain domain domain\nencoding: raw\n"
        b"space origin: (0,0,0)\n\n" + b"\0" * 8
    )
    flat = bytearray(nifti("flat.nii", scene.array.T).read_bytes())
    flat[254:256] = (1).to_bytes(2, "little")  # sform_code
    for row in (280, 296, 312):
        flat[row + 8 : row + 12] = bytes(4)  # its third column
    cases = {
        "does not exist": tmp_path / "absent.nii.gz",
        "is 4D .80 x 70 x 40 x 2.: save one": nifti("4d.nii.gz", np.stack([scene.array.T] * 2, axis=-1)),
        "is 4D .5 x 5 x 5 x 2.": tmp_path / "4d.nrrd",
        "is a 2D image": tmp_path / "2d.mha",
        "several values per voxel": nifti("rgb.nii", rgb),
        "RGB or vectors": tmp_path / "rgb.nrrd",
        "is a label volume.*from 0 to 2": labels_file,
        "is a label volume.*give the CT": nifti("float_labels.nii.gz", scene.labels.T.astype(np.float32)),
        "cannot be read: it is truncated": raw("cut.nii.gz", ct.read_bytes()[:4000]),
        "not an image of a known kind": raw("text.nii.gz", b"hello"),
        "cannot be read": raw("text.nrrd", b"hello"),
        "cannot be read.*DICOM series folder": raw("picture.xyz", b"hello"),
        "singular": raw("singular.nrrd", singular),
        "is singular: two axes": raw("flat.nii", bytes(flat)),
    }
    for message, path in cases.items():
        with pytest.raises(InputError, match=message):
            read_volume(path)


def test_nrrd_packed_in_several_members_is_whole_and_bzip2_is_named(tmp_path: Path) -> None:
    """Tools that pack in parallel write one member of gzip after the other."""
    hu = np.arange(-1000, -1000 + 12 * 8 * 10, dtype=np.int16).reshape(12, 8, 10)
    head = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 10 8 12\nendian: little\n"
        "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\nencoding: {}\n\n"
    )
    data, path = hu.tobytes(), tmp_path / "a.nrrd"
    for cuts in ([], [7], [100, 101, 1500]):
        parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        path.write_bytes(head.format("gzip").encode() + b"".join(map(gzip.compress, parts)))
        assert np.array_equal(read_volume(path).array_kji, hu)
    path.write_bytes(head.format("gzip").encode() + b"".join(map(gzip.compress, parts))[:-20])
    with pytest.raises(InputError, match="truncated"):
        read_volume(path)
    path.write_bytes(head.format("bzip2").encode() + bz2.compress(data))
    with pytest.raises(InputError, match="packed by bzip2, which is not read: save it packed by gzip"):
        read_volume(path)


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
@pytest.mark.parametrize("length", [0.0, float("nan")])
def test_a_voxel_size_of_0_is_refused(ending: str, length: float, tmp_path: Path, scene) -> None:
    """nibabel makes 1 mm of it, with every volume wrong."""
    path = tmp_path / f"a.{ending}"
    nibabel.Nifti1Image(scene.array.T, None).to_filename(path)
    open_file = gzip.open if ending == "nii.gz" else open
    with open_file(path, "rb") as file:
        content = bytearray(file.read())
    content[80:84] = struct.pack("<f", length)  # pixdim[1]
    with open_file(path, "wb") as file:
        file.write(content)
    with pytest.raises(InputError, match="voxel size of a.* x 1 x 1 mm: correct"):
        read_volume(path)


def test_a_place_that_may_not_be_entered(tmp_path: Path, monkeypatch) -> None:
    def refused(*given: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refused)
    with pytest.raises(InputError, match="may not be read: Permission denied"):
        read_volume(tmp_path / "a.nii.gz")


def test_a_ct_without_negative_values_is_read_with_a_note(tmp_path: Path, scene) -> None:
    nibabel.Nifti1Image((scene.array + 1024).astype(np.uint16).T, scene.ijk_to_ras).to_filename(tmp_path / "u.nii.gz")
    with pytest.warns(UserWarning, match="Hounsfield"):
        read_volume(tmp_path / "u.nii.gz")


@pytest.mark.parametrize("ending", ["nii.gz", "mha", "nrrd"])
def test_what_is_surely_not_in_hounsfield_units_is_refused(ending: str, tmp_path: Path, scene) -> None:
    class Normalized:
        array = ((scene.array - scene.array.mean()) / scene.array.std()).astype(np.float32)
        ijk_to_ras = scene.ijk_to_ras

    path = write_itk(tmp_path / f"z.{ending}", Normalized)
    with pytest.raises(InputError, match="not in Hounsfield units: its values run from .* normalization. Give the CT"):
        read_volume(path)


def test_labels_are_read_as_whole_numbers(labels_file: Path, ct: Path, scene) -> None:
    labels = read_labels(labels_file)
    np.testing.assert_array_equal(labels.array_kji, scene.labels)
    assert labels.array_kji.dtype == np.uint8
    with pytest.raises(InputError, match="not a label volume"):
        read_labels(ct)


def test_labels_that_no_label_map_holds_are_refused(tmp_path: Path, scene) -> None:
    for value, dtype in ((70000, np.int32), (2_000_000_011, np.float64), (np.inf, np.float32)):
        array = np.where(scene.labels == 2, value, 0).astype(dtype)
        nibabel.Nifti1Image(array.T, scene.ijk_to_ras).to_filename(tmp_path / "labels.nii.gz")
        with pytest.raises(InputError, match="holds the label .*: number the labels anew, from 1 to 65535 at most"):
            read_labels(tmp_path / "labels.nii.gz")
    layers = sitk.GetImageFromArray(np.stack([scene.labels == 1, scene.labels == 2], axis=-1).astype(np.uint8), True)
    sitk.WriteImage(layers, str(tmp_path / "layers.seg.nrrd"))
    with pytest.raises(InputError, match="as where segments overlap: let none overlap in 3D Slicer's Segment Editor"):
        read_labels(tmp_path / "layers.seg.nrrd")
    with pytest.raises(InputError, match="is DICOM, which is not read as a segmentation: load it in 3D Slicer"):
        read_labels(write_dicom(tmp_path / "seg", scene))


@pytest.mark.parametrize("word", ["True", "T", "t", "1", "true"])
def test_truth_in_metaimage_is_the_first_letter(word: str, tmp_path: Path, scene) -> None:
    header = write_itk(tmp_path / "ct.mhd", scene).read_text()
    for field, content in (
        ("BinaryDataByteOrderMSB", scene.array.astype(">i2").tobytes()),
        ("CompressedData", zlib.compress(scene.array.tobytes())),
    ):
        assert f"{field} = False" in header
        (tmp_path / "ct.mhd").write_text(header.replace(f"{field} = False", f"{field} = {word}"))
        (tmp_path / "ct.raw").write_bytes(content)
        np.testing.assert_array_equal(read_volume(tmp_path / "ct.mhd").array_kji, scene.array)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.nii.gz", "a"), ("a.b.SEG.nrrd", "a.b"), ("a.mha", "a"), ("folder", "folder"), ("1.2.840", "1.2")],
)
def test_stem(name: str, expected: str) -> None:
    assert stem(Path(name)) == expected


# -- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd", "mha"])
@pytest.mark.parametrize("seed", range(6))
def test_flipped_bits_in_packed_data_are_noticed(ending: str, seed: int, tmp_path: Path, scene) -> None:
    """ITK went on with zeros, nibabel with what came out: most voxels were wrong, in silence."""
    path = tmp_path / f"ct.{ending}"
    if ending == "nii.gz":
        nibabel.Nifti1Image(scene.array.T, scene.ijk_to_ras).to_filename(path)
    else:
        write_itk(path, scene)
        sitk.WriteImage(sitk.ReadImage(str(path)), str(path), useCompression=True)
    np.testing.assert_array_equal(read_volume(path).array_kji, scene.array)
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(len(content) // 2, len(content) - 12, 20):
        content[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read: it is truncated, or not an image") as caught:
        read_volume(path)
    assert str(caught.value).endswith("Copy or export it again")


def test_a_wrong_checksum_alone_is_noticed(tmp_path: Path, scene) -> None:
    """The data are whole, so that only the checksum at the end tells."""
    for ending in ("nii.gz", "nrrd", "mha"):
        path = tmp_path / f"ct.{ending}"
        if ending == "nii.gz":
            nibabel.Nifti1Image(scene.array.T, scene.ijk_to_ras).to_filename(path)
        else:
            sitk.WriteImage(sitk.GetImageFromArray(scene.array), str(path), useCompression=True)
        content = bytearray(path.read_bytes())
        content[-6 if ending != "mha" else -2] ^= 4  # gzip: CRC and length; zlib: Adler-32
        path.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read"):
            read_volume(path)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (40, struct.pack("<h", 0), "sizes"),
        (40, struct.pack("<h", -3), "sizes"),
        (40, struct.pack("<h", 99), "sizes"),
        (42, struct.pack("<h", -5), "sizes"),
        (42, struct.pack("<h", 32767), "more than the file can hold"),
        (70, struct.pack("<h", 4321), "unknown data type 4321"),
        (72, struct.pack("<h", 8), "8 bits"),
        (108, struct.pack("<f", float("nan")), "begin at byte nan"),
        (108, struct.pack("<f", -1e9), "begin at byte"),
        (108, struct.pack("<f", 1e9), "more than the file can hold"),
        (0, b"\0\0\0\0", "does not begin with a NIfTI"),
        (0, struct.pack("<i", 540), "is NIfTI-2, which ITK and 3D Slicer do not read"),
        (112, struct.pack("<2f", 1.0, float("nan")), "rescale intercept nan"),
    ],
)
def test_nonsense_in_a_nifti_header_is_refused_with_a_reason(
    place: int, value: bytes, message: str, tmp_path: Path, scene
) -> None:
    path = tmp_path / "ct.nii"
    nibabel.Nifti1Image(scene.array.T, scene.ijk_to_ras).to_filename(path)
    content = bytearray(path.read_bytes())
    content[place : place + len(value)] = value
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_volume(path)


@pytest.mark.parametrize(
    ("ending", "old", "new"),
    [
        ("mha", b"NDims = 3", b"NDims = 1000000"),
        ("mha", b"NDims = 3", b"NDims = -1"),
        ("mha", b"DimSize = 80", b"DimSize = -80"),
        ("mha", b"DimSize = 80", b"DimSize = 99999999"),
        ("mha", b"MET_SHORT", b"MET_NOTHING"),
        ("nrrd", b"sizes: 80", b"sizes: 0"),
        ("nrrd", b"sizes: 80", b"sizes: 99999"),
        ("nrrd", b"dimension: 3", b"dimension: 300"),
        ("nrrd", b"type: short", b"type: sort"),
    ],
)
def test_nonsense_in_a_text_header_is_refused(ending: str, old: bytes, new: bytes, tmp_path: Path, scene) -> None:
    path = write_itk(tmp_path / f"ct.{ending}", scene)
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    with pytest.raises(InputError, match="cannot be read.*(header|file can hold)"):
        read_volume(path)


def test_an_unpacked_nii_gz_is_read_and_a_gzipped_nii_is_refused(tmp_path: Path, ct: Path, scene) -> None:
    (tmp_path / "a.nii.gz").write_bytes(gzip.decompress(ct.read_bytes()))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz").array_kji, scene.array)
    (tmp_path / "b.nii").write_bytes(ct.read_bytes())
    with pytest.raises(InputError, match="it is gzipped, name it .nii.gz"):
        read_volume(tmp_path / "b.nii")


@pytest.mark.parametrize(
    "kind, dtype",
    [
        *((kind, "<i2") for kind in ("nii", "nii.gz", "nrrd", "packed.nrrd", "mha", "packed.mha", "nhdr", "dicom")),
        *((kind, ">i2") for kind in ("nii", "nrrd", "mhd")),
        *((kind, "<f8") for kind in ("nii.gz", "packed.nrrd")),
    ],
)
def test_reading_holds_the_voxels_once(kind: str, dtype: str, tmp_path: Path) -> None:
    """While a volume is read, as good as nothing is allocated besides what comes out."""
    array = np.random.default_rng(1).integers(-1000, 400, (40, 128, 136)).astype(dtype)
    path = tmp_path / f"ct.{kind}"
    if kind == "dicom":
        write_slices(path, array, [(0.0, 0.0, float(k)) for k in range(len(array))])
    elif kind.startswith("nii"):
        nibabel.Nifti1Image(array.T, np.diag([-1.0, -1.0, 1.0, 1.0]), dtype=array.dtype).to_filename(path)
    elif dtype.startswith(">"):
        head = {
            "nrrd": "NRRD0004\ntype: short\ndimension: 3\nsizes: 136 128 40\nspacings: 1 1 1\nendian: big\n"
            "encoding: raw\n\n",
            "mhd": "NDims = 3\nDimSize = 136 128 40\nElementSpacing = 1 1 1\nBinaryDataByteOrderMSB = True\n"
            "ElementType = MET_SHORT\nElementDataFile = ct.raw\n",
        }[kind].encode()
        path.write_bytes(head + array.tobytes() * (kind == "nrrd"))
        (tmp_path / "ct.raw").write_bytes(array.tobytes())
    else:
        image = sitk.GetImageFromArray(array.astype(array.dtype.newbyteorder("=")))
        sitk.WriteImage(image, str(path), useCompression=kind.startswith("packed"))
    read_volume(path)  # what is imported or kept the first time
    tracemalloc.start()
    volume = read_volume(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(volume.array_kji, array)
    assert volume.array_kji.dtype == (np.float32 if dtype == "<f8" else np.int16)
    assert volume.array_kji.flags.c_contiguous and volume.array_kji.flags.writeable
    assert most < 1.3 * volume.array_kji.nbytes + 300_000
