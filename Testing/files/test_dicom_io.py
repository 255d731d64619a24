"""DICOM as people have it: what belongs together is read together, the rest is named, every voxel lies in its place.

The right value of every kind is the made-up planes themselves: at each plane's voxels, the volume holds that plane.
"""

from __future__ import annotations

import tracemalloc
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, generate_uid

from files.dicom_files import SPACING, UPRIGHT, ct_header, enhanced, stored, write_slices
from SAMMed3DLib.files.volume_io import Volume, read_volume
from SAMMed3DLib.inference import InputError
from SAMMed3DLib.report.scan_facts import scan_of

SHAPE = (16, 14, 18)
STEP = 2.0
PLANES = np.random.default_rng(5).integers(-1000, 400, SHAPE).astype(np.int16)
POSITIONS = [(-30.0, -40.0, -100.0 + STEP * k) for k in range(SHAPE[0])]
ANGLE = np.deg2rad(17.0)
TILTED = (1.0, 0.0, 0.0, 0.0, np.cos(ANGLE), np.sin(ANGLE))
GAP = [k for k in range(SHAPE[0]) if k not in (6, 7, 11)]


def assert_holds(
    volume: Volume,
    planes: Sequence[NDArray] = PLANES,
    positions: Sequence[Sequence[float]] = POSITIONS,
    axes: Sequence[float] = UPRIGHT,
    spacing: Sequence[float] = SPACING,
) -> None:
    """At the voxels of every plane, the volume has that plane's values, within 0.05 mm and 0.5 HU."""
    inverse = np.linalg.inv(volume.ijk_to_ras)
    for plane, position in zip(planes, positions, strict=True):
        j, i = np.indices(plane.shape)
        lps = (
            np.array(position)
            + i[..., None] * spacing[0] * np.array(axes[:3])
            + (j[..., None] * spacing[1] * np.array(axes[3:]))
        )
        ijk = (lps * (-1, -1, 1)) @ inverse[:3, :3].T + inverse[:3, 3]
        index = np.round(ijk).astype(int)
        assert np.abs((ijk - index) @ volume.ijk_to_ras[:3, :3].T).max() < 0.05
        assert index.min() >= 0
        found = volume.array_kji[index[..., 2], index[..., 1], index[..., 0]]
        np.testing.assert_allclose(found, plane, atol=0.5)


def read_quietly(path: Path) -> Volume:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_volume(path)


def test_a_scout_in_the_series_is_left_out_and_named(tmp_path: Path) -> None:
    series = write_slices(tmp_path, PLANES, POSITIONS)
    write_slices(
        tmp_path,
        PLANES[:1],
        [(20.0, 0.0, 250.0)],
        (1, 0, 0, 0, 0, -1),
        series,
        "SCOUT{}.dcm",
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
    )
    with pytest.warns(UserWarning, match=r"left out of .*SCOUT1.dcm \(a scout\)"):
        volume = read_volume(tmp_path)
    assert volume.array_kji.shape == SHAPE
    assert_holds(volume)


def test_a_scout_that_does_not_say_so_and_a_page_are_left_out_and_named(tmp_path: Path) -> None:
    series = write_slices(tmp_path, PLANES, POSITIONS)
    write_slices(tmp_path, PLANES[:1], [(0.0, 0.0, 0.0)], (0, 1, 0, 0, 0, -1), series, "side{}.dcm")
    page = ct_header(np.zeros((30, 40)), series, 99, Modality="OT", ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"])
    page.PixelData = bytes(30 * 40 * 2)
    page.save_as(tmp_path / "dose.dcm", enforce_file_format=True)
    with pytest.warns(UserWarning, match=r"dose.dcm \(no position.*side1.dcm \(of another orientation"):
        assert_holds(read_volume(tmp_path))


def test_a_scout_alone_is_no_ct(tmp_path: Path) -> None:
    write_slices(tmp_path, PLANES[:1], POSITIONS[:1], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    with pytest.raises(InputError, match="is a scout"):
        read_volume(tmp_path)


def test_one_series_in_several_folders_is_one(tmp_path: Path) -> None:
    series = write_slices(tmp_path / "b", PLANES[:7], POSITIONS[:7])
    write_slices(tmp_path / "a", PLANES[7:], POSITIONS[7:], series=series)
    assert_holds(read_quietly(tmp_path))


def test_damaged_slices_are_left_out_named_and_treated_as_missing(tmp_path: Path) -> None:
    write_slices(tmp_path, PLANES, POSITIONS)
    cut = tmp_path / "IM006.dcm"
    cut.write_bytes(cut.read_bytes()[:-100])
    head = tmp_path / "IM010.dcm"
    head.write_bytes(head.read_bytes()[:300])
    with pytest.warns(UserWarning) as caught:
        volume = read_volume(tmp_path)
    told = " ".join(str(each.message) for each in caught)
    assert "IM006.dcm (damaged: " in told
    assert "IM010.dcm (damaged" in told
    assert "2 slices are missing" in told
    kept = [k for k in range(SHAPE[0]) if k not in (5, 9)]
    assert_holds(volume, PLANES[kept], [POSITIONS[k] for k in kept])


@pytest.mark.parametrize("axes", [UPRIGHT, TILTED], ids=["upright", "tilted"])
def test_missing_slices_do_not_stretch_the_others(axes: Sequence[float], tmp_path: Path) -> None:
    write_slices(tmp_path, PLANES[GAP], [POSITIONS[k] for k in GAP], axes)
    with pytest.warns(UserWarning, match=r"3 slices are missing .*S -90.0 to -84.0 mm, S -80.0 to -76.0 mm"):
        volume = read_volume(tmp_path)
    assert volume.array_kji.shape == SHAPE
    assert_holds(volume, PLANES[GAP], [POSITIONS[k] for k in GAP], axes)
    between = (2 * PLANES[5].astype(float) + PLANES[8]) / 3
    np.testing.assert_allclose(volume.array_kji[6], between, atol=0.51)


def test_a_step_that_doubles_keeps_every_slice_in_its_place(tmp_path: Path) -> None:
    heights = np.cumsum([0.0] + [1.25] * 8 + [2.5] * 7)
    positions = [(0.0, 0.0, z) for z in heights]
    write_slices(tmp_path, PLANES, positions)
    with pytest.warns(UserWarning, match=r"unevenly spaced \(1.25 to 2.50 mm\)"):
        assert_holds(read_volume(tmp_path), PLANES, positions)


def test_steps_without_a_common_measure_are_interpolated(tmp_path: Path) -> None:
    """Values that are linear along S come out linear whatever the steps."""
    heights = np.cumsum([0.0] + [2.0] * 8 + [3.1] * 7)
    planes = np.broadcast_to((-900 + 10 * heights)[:, None, None], SHAPE).astype(np.int16)
    write_slices(tmp_path, planes, [(0.0, 0.0, z) for z in heights])
    with pytest.warns(UserWarning, match="unevenly spaced"):
        volume = read_volume(tmp_path)
    s = volume.ijk_to_ras[2, 3] + volume.ijk_to_ras[2, 2] * np.arange(len(volume.array_kji))
    np.testing.assert_allclose(volume.array_kji[:, 3, 4], -900 + 10 * s, atol=1.1)
    assert s[-1] == pytest.approx(heights[-1], abs=1e-3)


def test_rounded_positions_are_even_steps(tmp_path: Path) -> None:
    write_slices(tmp_path, PLANES, [(0.0, 0.0, round(0.625 * k, 2)) for k in range(SHAPE[0])])
    assert read_quietly(tmp_path).ijk_to_ras[2, 2] == pytest.approx(0.625, abs=1e-3)


def test_slices_shifted_sideways_are_refused(tmp_path: Path) -> None:
    write_slices(tmp_path, PLANES, [(4.0 * (k > 9), 0.0, STEP * k) for k in range(SHAPE[0])])
    with pytest.raises(InputError, match="shifted sideways"):
        read_volume(tmp_path)


def test_two_ends_of_a_scan_are_refused(tmp_path: Path) -> None:
    write_slices(tmp_path, PLANES[:4], [(0.0, 0.0, z) for z in (0.0, 2.0, 98.0, 100.0)])
    with pytest.raises(InputError, match="most slices in .* are missing"):
        read_volume(tmp_path)


@pytest.mark.parametrize(
    "mark",
    [
        {"AcquisitionNumber": 4},
        {"ConvolutionKernel": "B70f"},
        {"TemporalPositionIdentifier": 3},
        {"ImageType": ["DERIVED", "SECONDARY", "MIP"]},
    ],
)
def test_scans_of_one_place_in_one_series_are_listed(mark: dict, tmp_path: Path) -> None:
    first = (
        {"AcquisitionNumber": 1, "ConvolutionKernel": "B30f", "TemporalPositionIdentifier": 1}
        if ("ImageType" not in mark)
        else {}
    )
    series = write_slices(tmp_path, PLANES, POSITIONS, **first)
    write_slices(tmp_path, PLANES + 3, POSITIONS, series=series, name="second{}.dcm", **(first | mark))
    with pytest.raises(InputError, match="2 images in one series.*move the files of the one you want") as caught:
        read_volume(tmp_path)
    assert f"{next(iter(mark))} " in str(caught.value)


def test_scans_between_each_others_slices_are_two_scans(tmp_path: Path) -> None:
    series = write_slices(tmp_path, PLANES, POSITIONS, AcquisitionNumber=1)
    shifted = [(x, y, z + 0.7) for x, y, z in POSITIONS]
    write_slices(tmp_path, PLANES, shifted, series=series, name="second{}.dcm", AcquisitionNumber=2)
    with pytest.raises(InputError, match="2 images in one series"):
        read_volume(tmp_path)


def test_one_of_two_phases_is_read_by_one_of_its_files_when_they_lie_apart(tmp_path: Path) -> None:
    series = write_slices(tmp_path / "one", PLANES, POSITIONS, AcquisitionNumber=1)
    write_slices(tmp_path / "two", PLANES + 3, POSITIONS, series=series, AcquisitionNumber=2)
    with pytest.raises(InputError, match="2 images"):
        read_volume(tmp_path)
    assert_holds(read_quietly(tmp_path / "two" / "IM001.dcm"), PLANES + 3)


def test_an_acquisition_a_slice_is_one_scan(tmp_path: Path) -> None:
    write_slices(tmp_path, PLANES, POSITIONS, AcquisitionNumber=lambda number: number + 1)
    assert_holds(read_quietly(tmp_path))


def test_each_slice_has_its_own_rescale(tmp_path: Path) -> None:
    write_slices(
        tmp_path,
        PLANES,
        POSITIONS,
        RescaleIntercept=lambda number: str(-1024 - 8 * number),
        RescaleSlope=lambda number: "1" if number < 3 else "0.5",
    )
    assert_holds(read_quietly(tmp_path))


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("PixelSpacing", "how large their voxels are"),
        ("ImageOrientationPatient", "how they lie"),
        ("ImagePositionPatient", "where they lie"),
    ],
)
def test_a_series_that_does_not_say_its_geometry_is_refused(missing: str, message: str, tmp_path: Path) -> None:
    write_slices(tmp_path, PLANES, POSITIONS, **{missing: None})
    with pytest.raises(InputError, match=message):
        read_volume(tmp_path)


def test_a_voxel_size_of_zero_is_refused(tmp_path: Path) -> None:
    write_slices(tmp_path, PLANES, POSITIONS, spacing=(0.0, 0.7))
    with pytest.raises(InputError, match="how large their voxels are"):
        read_volume(tmp_path)


def test_another_modality_is_refused_and_a_ct_beside_it_is_chosen(tmp_path: Path) -> None:
    write_slices(tmp_path / "pet", PLANES, POSITIONS, Modality="PT", SeriesDescription="FDG")
    with pytest.raises(InputError, match="modality PT, not CT"):
        read_volume(tmp_path)
    write_slices(tmp_path / "ct", PLANES + 1, POSITIONS)
    with pytest.warns(UserWarning, match="left out .*series FDG"):
        assert_holds(read_volume(tmp_path), PLANES + 1)


@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_what_spectral_cts_calculate_is_not_taken_for_hounsfield_units(kind: str, tmp_path: Path) -> None:
    if kind == "classic":
        write_slices(tmp_path, PLANES, POSITIONS, RescaleType="MGML")
    else:
        data = enhanced(PLANES, POSITIONS)
        shared = data.SharedFunctionalGroupsSequence[0]
        shared.PixelValueTransformationSequence[0].RescaleType = "MGML"
        data.save_as(tmp_path / "frames.dcm", enforce_file_format=True)
    with pytest.raises(InputError, match="not in Hounsfield units: its values are mg/ml .Rescale Type MGML.; give the"):
        read_volume(tmp_path)
    for units in ("HU", "HU_MOD", "US"):
        write_slices(tmp_path / units, PLANES, POSITIONS, RescaleType=units)
        assert_holds(read_volume(tmp_path / units))


def test_the_header_is_that_of_the_series_itself(tmp_path: Path) -> None:
    """Slices that follow the contrast agent, or a scout in the series, come first by their names."""
    write_slices(tmp_path, PLANES[:1], POSITIONS[:1], name="A{:03d}.dcm", ConvolutionKernel="B10")
    series = write_slices(tmp_path / "ct", PLANES, POSITIONS, ConvolutionKernel="B60")
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ConvolutionKernel": "T20"}
    write_slices(tmp_path / "ct", PLANES[:1], POSITIONS[:1], series=series, name="A{:03d}.dcm", **scout)
    with pytest.warns(UserWarning, match="left out of"):
        volume = read_volume(tmp_path)
    assert volume.header_file == tmp_path / "ct" / "IM001.dcm"
    scan = scan_of(volume.array_kji, volume.ijk_to_ras, volume.name, volume.header_file)
    assert (scan.series_uid, scan.kernel) == (series, "B60")


def test_files_without_the_preamble_are_read(tmp_path: Path) -> None:
    write_slices(tmp_path, PLANES, POSITIONS)
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        length = int.from_bytes(content[140:144], "little")  # of the file's meta information
        file.write_bytes(content[144 + length :])
    # Without meta information the syntax is told from the first elements.
    assert_holds(read_quietly(tmp_path))


# -- enhanced multi-frame ---------------------------------------------------------------------------------------------


def written(data, path: Path) -> Path:
    data.save_as(path, enforce_file_format=True)
    return path


def test_frames_lie_where_they_say_whatever_their_order(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(SHAPE[0])
    data = enhanced(PLANES[order], [POSITIONS[n] for n in order])
    assert_holds(read_quietly(written(data, tmp_path / "frames.dcm")))


def test_missing_frames_are_missing_slices(tmp_path: Path) -> None:
    data = enhanced(PLANES[GAP], [POSITIONS[k] for k in GAP])
    with pytest.warns(UserWarning, match="3 slices are missing"):
        volume = read_volume(written(data, tmp_path / "frames.dcm"))
    assert volume.array_kji.shape == SHAPE
    assert_holds(volume, PLANES[GAP], [POSITIONS[k] for k in GAP])


def test_a_tilted_gantry_in_frames(tmp_path: Path) -> None:
    data = enhanced(PLANES, POSITIONS, TILTED)
    assert_holds(read_quietly(written(data, tmp_path / "frames.dcm")), axes=TILTED)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_each_frame_has_its_own_rescale(packed: bool, tmp_path: Path) -> None:
    data = enhanced(PLANES, POSITIONS, intercepts=[-1024.0 - 5 * k for k in range(SHAPE[0])])
    if packed:
        data.compress(RLELossless, generate_instance_uid=False)
    assert_holds(read_quietly(written(data, tmp_path / "frames.dcm")))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_frames_in_every_plain_encoding_one_at_a_time(syntax, tmp_path: Path) -> None:
    """Beside the voxels hardly anything of their size is held."""
    planes = np.random.default_rng(0).integers(-1000, 400, (40, 160, 200)).astype(np.int16)
    data = enhanced(planes, [(0.0, 0.0, 2.0 * k) for k in range(len(planes))])
    data.file_meta.TransferSyntaxUID = syntax
    path = tmp_path / "frames.dcm"
    little = syntax.is_little_endian
    if not little:
        data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
    data.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=little, enforce_file_format=True)
    del data
    read_quietly(path)  # what is imported on the way is not counted
    tracemalloc.start()
    try:
        volume = read_quietly(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(volume.array_kji, planes)
    assert peak < 1.6 * planes.nbytes


def test_a_series_of_several_multi_frame_files_is_one(tmp_path: Path) -> None:
    first, second = enhanced(PLANES[:9], POSITIONS[:9]), enhanced(PLANES[9:], POSITIONS[9:])
    second.SeriesInstanceUID = first.SeriesInstanceUID
    written(first, tmp_path / "1.dcm")
    written(second, tmp_path / "2.dcm")
    assert_holds(read_quietly(tmp_path))
    assert_holds(read_quietly(tmp_path / "2.dcm"))


def test_two_phases_in_multi_frame_files_are_listed(tmp_path: Path) -> None:
    first, second = enhanced(PLANES, POSITIONS), enhanced(PLANES + 2, POSITIONS)
    second.SeriesInstanceUID = first.SeriesInstanceUID
    written(first, tmp_path / "1.dcm")
    written(second, tmp_path / "2.dcm")
    with pytest.raises(InputError, match="2 images in one series"):
        read_volume(tmp_path)


def test_a_multi_frame_file_without_places_is_refused(tmp_path: Path) -> None:
    data = ct_header(PLANES, generate_uid(), 1, NumberOfFrames=SHAPE[0])
    data.PixelData = stored(PLANES)
    with pytest.raises(InputError, match="do not say where they lie"):
        read_volume(written(data, tmp_path / "frames.dcm"))
