"""The cases that people report, as ``shared/cases/make_cases.py`` makes them: read right, noted or refused.

The scene is analytic: its formula says what each voxel holds wherever a file puts it. Skipped where the material beside
the checkout is not there; the same kinds are tested with other numbers in the files beside this one.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from SAMMed3DLib.files.volume_io import Volume, read_volume
from SAMMed3DLib.finding.lungs import find_lungs
from SAMMed3DLib.inference import InputError
from SAMMed3DTrainingLib.data.datasets import find_datasets
from shared_data import shared_dir

FOLDER = None if shared_dir() is None else shared_dir() / "cases"
pytestmark = pytest.mark.skipif(FOLDER is None or not FOLDER.is_dir(), reason="no shared cases")
NODULES = ((-70.0, 10.0, -20.0), (-60.0, -30.0, 30.0))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cases")
    subprocess.run([sys.executable, "-B", str(FOLDER / "make_cases.py"), str(out)], check=True, cwd=FOLDER)
    return out


@pytest.fixture(scope="module")
def chest() -> Iterator:
    """The scene's formula."""
    sys.path.insert(0, str(FOLDER))
    try:
        import chest as module

        yield module.chest
    finally:
        sys.path.remove(str(FOLDER))


def read(path: Path) -> tuple[Volume, str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        volume = read_volume(path)
    return volume, " ".join(str(each.message) for each in caught)


def assert_shows_the_scene(volume: Volume, chest) -> None:
    """Around both nodules the voxels hold what the formula says, within the noise (20 HU)."""
    k, j, i = np.indices(volume.array_kji.shape)
    world = np.stack([i, j, k], -1) @ volume.ijk_to_ras[:3, :3].T + volume.ijk_to_ras[:3, 3]
    for center in NODULES:
        near = np.linalg.norm(world - center, axis=-1) < 10.0
        assert np.count_nonzero(near) > 800
        off = volume.array_kji[near] - chest(world[near])
        assert abs(off.mean()) < 3.0 and off.std() < 25.0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("00-baseline/ct.nii.gz", ""),
        ("00-baseline/dicom", ""),
        ("01-nifti-units/ct_meter.nii.gz", ""),
        ("01-nifti-units/ct_micron.nii.gz", ""),
        ("02-sform-qform/ct.nii.gz", "its sform says"),
        ("07-scout-in-series/dicom", "SCOUT.dcm (a scout)"),
        ("09-enhanced-frames-unordered/good.dcm", ""),
        ("09-enhanced-frames-unordered/shuffled.dcm", ""),
        ("09-enhanced-frames-unordered/two_frames_missing.dcm", "2 slices are missing"),
        ("11-enhanced-gantry-tilt/tilted.dcm", ""),
        ("11-enhanced-gantry-tilt/classic_dicom", ""),
        ("13-missing-slices/dicom", "4 slices are missing"),
    ],
)
def test_the_scene_lies_where_it_is(name: str, said: str, cases: Path, chest) -> None:
    volume, told = read(cases / name)
    assert_shows_the_scene(volume, chest)
    assert said in told if said else told == ""


@pytest.mark.parametrize("name", ["zscore", "zero_to_one", "uint8_0_255"])
def test_what_is_not_in_hounsfield_units_is_refused(name: str, cases: Path) -> None:
    with pytest.raises(InputError, match="not in Hounsfield units"):
        read_volume(cases / "05-normalized-float" / f"{name}.nii.gz")


@pytest.mark.parametrize("name", ["ct_float", "ct_uint16"])
def test_an_offset_is_noted(name: str, cases: Path) -> None:
    assert "no negative values" in read(cases / "06-offset-1024-float" / f"{name}.nii.gz")[1]


def test_both_lungs_are_found_in_a_round_field_of_view(cases: Path) -> None:
    volume, _ = read(cases / "16-fov-circle-cuts-lung" / "circle_r119.nii.gz")
    lungs = find_lungs(volume.array_kji, volume.ijk_to_ras)
    centers = [(-70.0, 10.0, -20.0), (75.0, -15.0, 15.0), (-60.0, -30.0, 30.0), (62.0, 30.0, -35.0)]
    assert (lungs.share_at(centers) > 0.9).all()
    assert any("the field of view cuts the lungs" in note for note in lungs.notes)


def test_names_that_make_one_patient_of_six_are_a_problem(cases: Path) -> None:
    (dataset,) = find_datasets(cases / "30-names-CT_scan")
    assert any("all 6 cases" in problem and "--patient_pattern" in problem for problem in dataset.problems)
