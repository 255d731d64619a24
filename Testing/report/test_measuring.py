"""Measured nodules and the check of the input, on objects whose truth is known."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from pydicom import dcmread

from SAMMed3DLib.finding.lungs import LungMask, find_lungs
from SAMMed3DLib.inference.geometry import Block
from SAMMed3DLib.inference.measurements import measure_nodule
from SAMMed3DLib.inference.nodule_table import BY_HAND
from SAMMed3DLib.report import document
from SAMMed3DLib.report.measuring import Segment, contrast_hu, measure_scan, nodule_type, segments_of, volume_interval
from SAMMed3DLib.report.scan_facts import _date, cut_sides, scan_of, series_header

from .dicom_series import write_series

SPACING = np.array([1.0, 0.7, 0.7])  # k, j, i


def ball(radius_mm: float, shell_hu: float, core_mm: float = 0.0, core_hu: float = 40.0):
    """A ball in lung, with a core; (HU, mask, matrix)."""
    shape = tuple(int(2 * n) for n in np.ceil(radius_mm / SPACING) + 6)
    grid = (np.indices(shape) - (np.reshape(shape, (3, 1, 1, 1)) - 1) / 2) * SPACING[:, None, None, None]
    distance = np.sqrt((grid**2).sum(axis=0))
    hu = np.full(shape, -850.0)
    for reach, value in ((radius_mm, shell_hu), (core_mm, core_hu)):
        share = np.clip((reach - distance) / 0.9 + 0.5, 0.0, 1.0)  # partial volume over about a voxel
        hu = hu * (1.0 - share) + value * share
    return hu.astype(np.int16), (distance <= radius_mm).astype(np.uint8), np.diag([0.7, 0.7, 1.0, 1.0])


@pytest.mark.parametrize(
    "radius, shell, core, kind",
    [
        (2.0, 30.0, 0.0, "solid"),
        (3.0, -50.0, 0.0, "solid"),
        (10.0, 60.0, 0.0, "solid"),
        (3.0, -600.0, 0.0, "ground-glass"),
        (10.0, -500.0, 0.0, "ground-glass"),
        (8.0, -600.0, 0.9, "ground-glass"),
        (5.0, -600.0, 2.0, "part-solid"),
        (10.0, -550.0, 4.0, "part-solid"),
    ],
)
def test_type_and_what_decides_it(radius, shell, core, kind) -> None:
    hu, mask, matrix = ball(radius, shell, core)
    found, reason, _ = nodule_type(Block(mask, (0, 0, 0)), hu, matrix)
    assert found == kind and "-200 HU" in reason


def test_a_vessel_through_ground_glass_is_no_core() -> None:
    hu, mask, matrix = ball(8.0, -600.0)
    middle = np.array(hu.shape) // 2
    hu[:, middle[1] : middle[1] + 2, middle[2] : middle[2] + 2] = 50  # 1.4 mm wide, through all of it
    found, reason, core = nodule_type(Block(mask, (0, 0, 0)), hu, matrix)
    assert np.cbrt(6.0 / math.pi * core.sum() * 0.49) > 2.5, "its volume alone would be a core"
    assert found == "ground-glass" and "no core" in reason


def test_solid_core_of_a_part_solid_nodule() -> None:
    hu, mask, matrix = ball(10.0, -550.0, 4.0)
    findings = measure_scan(scan_of(hu, matrix, "ball"), hu, matrix, [Segment(1, "one", Block(mask, (0, 0, 0)))])
    (nodule,) = findings.nodules
    assert nodule.solid.volume_mm3 == pytest.approx(4.0 / 3.0 * math.pi * 4.0**3, rel=0.1)
    assert nodule.solid.mean_diameter_mm == pytest.approx(8.0, abs=0.7)
    assert nodule.mean_diameter_mm == pytest.approx(20.0, abs=0.7)


def test_the_axes_end_where_they_are_drawn() -> None:
    hu, mask, matrix = ball(6.0, 0.0)
    matrix[:3, 3] = (-40.0, 12.0, 7.0)
    (nodule,) = measure_scan(scan_of(hu, matrix, "x"), hu, matrix, segments_of(mask)).nodules
    for axis in (nodule.long_axis, nodule.short_axis):
        start, end = np.array(axis.start_ras), np.array(axis.end_ras)
        assert np.linalg.norm(end - start) == pytest.approx(axis.length_mm, abs=0.05)
        assert axis.length_mm == pytest.approx(12.0, abs=0.7)
        middle = nodule.place.centroid_ras
        assert np.linalg.norm((start + end) / 2.0 - middle) < 1.0, "in world coordinates"
        assert round((start[2] - 7.0) / 1.0) == nodule.place.slice_number - 1
    along = np.subtract(nodule.long_axis.end_ras, nodule.long_axis.start_ras)
    across = np.subtract(nodule.short_axis.end_ras, nodule.short_axis.start_ras)
    assert abs(along @ across) < 1e-6 * (np.linalg.norm(along) * np.linalg.norm(across) + 1e-9) * 1e3


def test_intervals_are_wider_for_small_and_faint_nodules_and_thick_slices() -> None:
    def share(radius: float, contrast: float, slice_mm: float) -> float:
        hu, mask, matrix = ball(radius, 0.0)
        record = measure_nodule(Block(mask, (0, 0, 0)), hu, matrix)
        interval = volume_interval(record, contrast, slice_mm)
        assert interval.low < record.volume_mm3 < interval.high
        return interval.high / interval.low

    assert share(8.0, 800.0, 1.0) < share(3.0, 800.0, 1.0) < share(3.0, 800.0, 2.5)
    assert share(8.0, 800.0, 1.0) < share(8.0, 300.0, 1.0) < share(8.0, 80.0, 1.0)
    assert share(8.0, 5.0, 1.0) == share(8.0, -40.0, 1.0) < 1e3, "no contrast at all has an end"
    assert share(8.0, 3000.0, 1.0) == share(8.0, 1000.0, 1.0) > 1.02, "no metal is measured without error"


@pytest.mark.parametrize("inside", [0.0, -700.0])
def test_contrast_is_that_to_the_lung_around(inside: float) -> None:
    hu, mask, matrix = ball(5.0, inside)
    k, j, i = np.argwhere(mask).min(axis=0)
    hu[:, : j - 2] = 60  # the chest wall beside it
    block = Block(mask[k:-k, j:-j, i:-i], (int(k), int(j), int(i)))
    assert contrast_hu(block, hu, matrix) == pytest.approx(inside + 850.0, abs=2.0)
    hu[mask == 0] = 40  # no lung anywhere
    assert contrast_hu(block, hu, matrix) == pytest.approx(inside + 860.0, abs=2.0)


def test_the_interval_of_a_faint_nodule_is_that_of_its_contrast() -> None:
    widths = []
    for inside in (0.0, -650.0):
        hu, mask, matrix = ball(5.0, inside)
        (nodule,) = measure_scan(scan_of(hu, matrix, "x"), hu, matrix, segments_of(mask)).nodules
        widths.append(math.log(nodule.volume_interval_mm3.high / nodule.volume_mm3))
    assert widths[1] / widths[0] == pytest.approx(850.0 / 200.0, rel=0.02)


def test_the_range_over_clicks_lies_within_the_interval() -> None:
    hu, mask, matrix = ball(5.0, 0.0)
    record = measure_nodule(Block(mask, (0, 0, 0)), hu, matrix)
    plain = volume_interval(record, 800.0, 1.0)
    volume = record.volume_mm3
    asked = dataclasses.replace(record, volume_low_mm3=0.6 * volume, volume_high_mm3=1.01 * volume)
    wide = volume_interval(asked, 800.0, 1.0)
    assert wide.low == 0.6 * volume and wide.high == plain.high


def test_figures_of_the_models_output_come_before_those_of_the_mask() -> None:
    hu, mask, matrix = ball(5.0, 0.0)
    block, facts = Block(mask, (0, 0, 0)), scan_of(hu, matrix, "ball")
    (plain,) = measure_scan(facts, hu, matrix, [Segment(1, "one", block)]).nodules
    known = {"volume_mm3": 1.1 * plain.volume_mm3, "volume_low_mm3": 10.0, "volume_high_mm3": None}
    (told,) = measure_scan(facts, hu, matrix, [Segment(1, "one", block, measured=known)]).nodules
    assert told.volume_mm3 == pytest.approx(1.1 * plain.volume_mm3) and told.mass_mg == pytest.approx(
        1.1 * plain.mass_mg
    )
    known["volume_high_mm3"] = 1.2 * plain.volume_mm3
    (ranged,) = measure_scan(facts, hu, matrix, [Segment(1, "one", block, measured=known)]).nodules
    assert ranged.volume_interval_mm3.low == 10.0 < told.volume_interval_mm3.low


@dataclasses.dataclass(frozen=True)
class Warned:
    """A model's answer with warnings."""

    mask: np.ndarray
    offset_kji: tuple[int, int, int]
    warnings: tuple[str, ...]


def test_why_a_mask_is_not_to_be_trusted_goes_into_the_remarks() -> None:
    hu, mask, matrix = ball(5.0, 0.0)
    block, facts = Block(mask, (0, 0, 0)), scan_of(hu, matrix, "ball")
    note = "It reaches into the chest wall."
    for segment, remarks in (
        (Segment(1, "one", block), ()),
        (Segment(1, "one", block, measured={"note": note}), (note,)),
        (Segment(1, "one", Warned(mask, (0, 0, 0), (note,))), (note,)),
    ):
        assert measure_scan(facts, hu, matrix, [segment]).nodules[0].remarks == remarks


def test_diameters_that_a_person_drew_come_before_those_of_the_mask() -> None:
    hu, mask, matrix = ball(6.0, 30.0)
    middle = matrix[0, 0] * (hu.shape[2] - 1) / 2
    drawn = np.array([[[0, middle, 4.0], [14.26, middle, 4.0]], [[middle, 0, 4.0], [middle, 9.04, 4.0]]])
    scan = scan_of(hu, matrix, "scan")
    own, by_hand = (
        measure_scan(scan, hu, matrix, [Segment(1, "n", Block(mask, (0, 0, 0)), **more)]).nodules[0]
        for more in ({}, {"measured": {"slice_index": 4, "diameters": BY_HAND}, "axes_ras": drawn})
    )
    assert by_hand.diameters_by_hand and not own.diameters_by_hand
    assert (by_hand.long_axis.length_mm, by_hand.short_axis.length_mm) == (14.3, 9.0)
    assert (by_hand.mean_diameter_mm, by_hand.place.slice_number) == (11.7, 5)
    assert by_hand.long_axis.end_ras == (14.26, middle, 4.0)
    first = Segment(1, "n", Block(mask, (0, 0, 0)), measured={"slice_index": 0}, axes_ras=drawn)
    (models,) = measure_scan(scan, hu, matrix, [first]).nodules
    assert models.place.slice_number == 1
    assert models.mean_diameter_mm == 11.7 and not models.diameters_by_hand, (
        "those of the model's output, as in the list"
    )
    assert by_hand.volume_mm3 == own.volume_mm3 and by_hand.volume_interval_mm3 == own.volume_interval_mm3


def test_segments_of_a_label_map_and_their_names() -> None:
    labels = np.zeros((6, 7, 8), np.uint8)
    labels[1:3, 2:4, 3:5], labels[4, 5, 6] = 2, 5
    found = segments_of(labels, {2: "Rundherd größer"}, {5: "1.2.3"})
    assert [(each.label, each.name, each.tracking_uid) for each in found] == [
        (2, "Rundherd größer", None),
        (5, "nodule 5", "1.2.3"),
    ]
    assert found[0].block.offset_kji == (1, 2, 3) and found[0].block.mask.sum() == 8
    assert segments_of(np.zeros((3, 3, 3), np.uint8)) == []


def test_largest_first_and_the_same_uids_again() -> None:
    hu, mask, matrix = ball(6.0, 0.0)
    small = np.zeros_like(mask)
    small[2:4, 2:5, 2:5] = 1
    segments = [
        Segment(1, "small", Block(small, (0, 0, 0))),
        Segment(2, "large", Block(mask, (0, 0, 0))),
        Segment(3, "empty", Block(np.zeros((1, 1, 1), np.uint8), (0, 0, 0))),
    ]
    first, second = (measure_scan(scan_of(hu, matrix, "x"), hu, matrix, segments) for _ in range(2))
    assert [nodule.name for nodule in first.nodules] == ["large", "small"]
    uids = [nodule.tracking_uid for nodule in first.nodules]
    assert uids == [nodule.tracking_uid for nodule in second.nodules] and len(set(uids)) == 2
    other = measure_scan(scan_of(hu, matrix, "x"), hu + 1, matrix, segments)
    assert not set(uids) & {nodule.tracking_uid for nodule in other.nodules}, "another scan of the same name"


def test_side_and_distance_to_the_pleura(made_up, made_lungs) -> None:
    scan, lungs = made_up.prior, made_lungs[1]
    facts = scan_of(scan.array_kji, scan.ijk_to_ras, "x", None, lungs)
    found = measure_scan(facts, scan.array_kji, scan.ijk_to_ras, segments_of(scan.labels_kji), lungs)
    for nodule in found.nodules:
        right = nodule.place.centroid_ras[0] > 0.0  # R grows to the right, the phantom's middle is 0
        assert nodule.place.side == ("right" if right else "left")
        assert nodule.place.distance_to_pleura_mm is not None
    sides = {nodule.place.side for nodule in found.nodules}
    assert sides == {"right", "left"}


def test_distance_to_the_pleura_in_mm() -> None:
    """A ball of lung of 60 mm radius around the origin."""
    cells = np.indices((70, 70, 70)) * 2.0 - 69.0
    mask = (cells**2).sum(axis=0) <= 60.0**2
    grid = np.diag([2.0, 2.0, 2.0, 1.0])
    grid[:3, 3] = -69.0
    lungs = LungMask(mask, grid, True, "")
    hu = np.full((140, 140, 140), -850, np.int16)
    matrix = np.eye(4)
    matrix[:3, 3] = -69.5
    index = np.indices(hu.shape) - 69.5
    for middle, expected in ((0.0, 55.0), (40.0, 15.0), (56.0, 0.0)):
        nodule = ((index[0]) ** 2 + index[1] ** 2 + (index[2] - middle) ** 2) <= 5.0**2
        facts = scan_of(hu, matrix, "x", None, lungs)
        (found,) = measure_scan(facts, hu, matrix, segments_of(nodule.astype(np.uint8)), lungs).nodules
        assert found.place.distance_to_pleura_mm == pytest.approx(expected, abs=1.5)
        assert found.place.side is None, "one ball is not two lungs"


def caveats(array, matrix, **facts) -> str:
    return " | ".join(each.text for each in scan_of(array, matrix, "x", **facts).caveats)


def test_thick_slices_tilt_and_unknown_contrast_are_named() -> None:
    array = np.zeros((4, 5, 6), np.int16)
    assert "slices of 3.0 mm" in caveats(array, np.diag([0.7, 0.7, 3.0, 1.0]))
    thin = caveats(array, np.diag([0.7, 0.7, 2.5, 1.0]))
    assert "slices of" not in thin and "contrast phase unknown" in thin and "tilt" not in thin
    tilted = np.diag([0.7, 0.7, 1.0, 1.0])
    tilted[1, 2] = math.tan(math.radians(12.0))
    assert "tilted by 12 degrees" in caveats(array, tilted)
    assert document.scan_line(scan_of(array, np.diag([0.703125, 0.703125, 1.25, 1.0]), "x")).endswith(
        "voxels 0.703 x 0.703 x 1.25 mm"
    )
    spoils = {what for each in scan_of(array, tilted, "x").caveats for what in each.spoils}
    assert spoils == {"diameters", "mean HU", "mass", "type"}
    assert "slices 7 to 9 are missing" in caveats(array, np.eye(4), notes=["slices 7 to 9 are missing"])


def test_partial_lungs_are_named(made_up, made_lungs) -> None:
    whole = made_up.prior
    assert cut_sides(made_lungs[1], whole.array_kji.shape, whole.ijk_to_ras) == []
    upper = whole.array_kji[48:]
    matrix = whole.ijk_to_ras.copy()
    matrix[:3, 3] += 48 * matrix[:3, 2]
    lungs = find_lungs(upper, matrix)
    assert cut_sides(lungs, upper.shape, matrix) == ["bottom"]
    assert "partial lung: cut off at the bottom" in caveats(upper, matrix, lungs=lungs)
    nothing = LungMask(np.zeros((2, 2, 2), bool), np.eye(4), False, "")
    assert "no lungs" in caveats(upper, matrix, lungs=nothing)


def test_what_a_dicom_header_says(tmp_path) -> None:
    array = np.zeros((4, 5, 6), np.int16)
    matrix = np.diag([0.7, 0.7, 3.0, 1.0])
    write_series(
        tmp_path,
        array,
        matrix,
        SliceThickness="1.5",
        ConvolutionKernel=["B60f", "2"],
        ContrastBolusAgent="Iomeprol",
        AcquisitionDate="20240103",
    )
    (tmp_path / "notes.txt").write_text("no slice")
    scan = scan_of(array, matrix, "x", tmp_path)
    assert scan.date == "2024-01-03" and scan.modality == "CT" and scan.slice_thickness_mm == 1.5
    assert scan.patient_name == "Müller Änne" and scan.patient_id == "P 7" and scan.kernel == "B60f 2"
    assert scan.contrast is True and scan.study_uid and scan.series_uid
    assert any("gaps: slices of 1.5 mm every 3 mm" in each.text for each in scan.caveats)
    assert not any("contrast" in each.text for each in scan.caveats)
    first = next(iter(sorted(tmp_path.glob("*.dcm"))))
    copy = dcmread(first)
    for words, given in (("NONE", False), ("No", False), ("", None), ("Omnipaque 350", True)):
        copy.ContrastBolusAgent = words
        copy.save_as(first)
        assert scan_of(array, matrix, "x", first).contrast is given, words
    copy.Modality, copy.SeriesInstanceUID = "SEG", "1.2.3"
    copy.save_as(tmp_path / "a segmentation.dcm")
    assert series_header(tmp_path, (4, 5, 6)).SeriesInstanceUID == scan.series_uid, "a segmentation is not the scan"
    assert series_header(tmp_path, (4, 9, 6)) is None, "an image of another size is another series"


@pytest.mark.parametrize(
    "text, date",
    [
        ("20240531", "2024-05-31"),
        ("2024.05.31", "2024-05-31"),
        ("", None),
        ("20240231", None),
        ("00000000", None),
        ("19000101", None),
        (None, None),
    ],
)
def test_dates(text, date) -> None:
    assert _date(text) == date
