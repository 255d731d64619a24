"""Checks data sets before training and lists every problem in one table."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

from SAMMed3DLib.commandline.terminal import few, our_warnings_told
from SAMMed3DLib.inference.geometry import voxel_spacing
from SAMMed3DLib.inference.validation import hounsfield_doubt

from .datasets import DEFAULT_PATIENT_PATTERN, Case, Dataset, DatasetError, LoadedCase, find_datasets, load_case
from .instances import LabelledNodule

_AIR_HU = -900.0
#: A nodule is brighter than half of what is around it by more than this; of fewer voxels, nothing is asked.
_LEAST_CONTRAST_HU = 50.0
_FEWEST_VOXELS = 8
_THICKEST_MM = 5.0
_LARGEST_NODULE_MM = 60.0


@dataclass(frozen=True)
class CheckedCase:
    """One row of the table.

    Attributes:
        size, spacing_mm: along i, j, k; of a case that could not be read both are empty.
        orientation: where i, j, k run to, as nibabel's codes ("LPS").
        diameters_mm: of the nodules, falling.
        problems: one sentence each; training refuses a case with ``fatal`` ones.
    """

    case: Case
    size: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    orientation: str
    diameters_mm: tuple[float, ...]
    problems: tuple[str, ...]
    fatal: bool


@dataclass(frozen=True)
class CheckReport:
    """The result of :func:`check_datasets`."""

    datasets: tuple[Dataset, ...]
    rows: tuple[CheckedCase, ...]
    problems: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        """Whether nothing at all was found."""
        return not self.problems and not any(row.problems for row in self.rows)

    def __str__(self) -> str:
        """The table, then what concerns the folders as a whole."""
        lines = [f"{'case':<36} {'voxels':<14} {'mm':<16} {'axes':<5} {'nodules':<22} problems"]
        for row in self.rows:
            size = "x".join(str(n) for n in row.size) or "-"
            spacing = "x".join(f"{mm:.3g}" for mm in row.spacing_mm) or "-"
            sizes = row.diameters_mm
            nodules = f"{len(sizes)}: {sizes[-1]:.1f} to {sizes[0]:.1f} mm" if sizes else "0"
            text = "; ".join(row.problems) or "ok"
            lines.append(f"{row.case.full_name:<36} {size:<14} {spacing:<16} {row.orientation:<5} {nodules:<22} {text}")
        count = sum(len(row.diameters_mm) for row in self.rows)
        patients = len({row.case.patient for row in self.rows})
        lines += ["", f"{len(self.rows)} cases of {patients} patients, {count} nodules"]
        lines += [f"problem: {problem}" for problem in self.problems]
        bad = sum(bool(row.problems) for row in self.rows)
        if bad:
            lines.append(f"{bad} cases with problems")
        return "\n".join(lines)


def check_datasets(
    path: str | Path,
    progress: Callable[[int, int], bool | None] | None = None,
    patient_pattern: str | None = None,
    labels: Sequence[str] = (),
) -> CheckReport:
    """Reads every case of the data sets in a folder and says what is wrong.

    Args:
        path: as :func:`find_datasets` takes it.
        progress: called with (done, total) after each case; returning False ends the check there.
        patient_pattern, labels: as :func:`find_datasets` takes them.

    Raises:
        DatasetError: there is no data set at all.
    """
    datasets = find_datasets(path, patient_pattern or DEFAULT_PATIENT_PATTERN, labels)
    cases = [(dataset, case) for dataset in datasets for case in dataset.cases]
    rows: list[CheckedCase] = []
    seen: dict[str, Case] = {}
    for number, (dataset, case) in enumerate(cases, start=1):
        rows.append(_check_case(dataset, case, seen))
        if progress is not None and progress(number, len(cases)) is False:
            break
    return CheckReport(datasets, tuple(rows), tuple(_folder_problems(datasets)))


def _folder_problems(datasets: tuple[Dataset, ...]) -> Iterator[str]:
    for dataset in datasets:
        for problem in dataset.problems:
            yield f"{dataset.name}: {problem}"
        if not dataset.cases:
            yield f"{dataset.name}: no image"
        elif not any(case.label is not None for case in dataset.part("Tr")):
            yield f"{dataset.name}: no labelled case in imagesTr and labelsTr: nothing to train on"
    parts: dict[str, set[str]] = {}
    for dataset in datasets:
        for case in dataset.cases:
            parts.setdefault(case.patient, set()).add(case.part)
    for patient, found in sorted(parts.items()):
        if "Ts" in found and len(found) > 1:
            yield f"patient {patient} is in the test part and in {'/'.join(sorted(found - {'Ts'}))}: never trained on"


def _check_case(dataset: Dataset, case: Case, seen: dict[str, Case]) -> CheckedCase:
    doubts: list[str] = []
    try:
        with our_warnings_told(doubts.append):
            loaded = load_case(case, dataset.ignored_values)
    except DatasetError as error:
        text = str(error).removeprefix(f"case {case.full_name}: ")
        return CheckedCase(case, (), (), "", (), (text,), fatal=True)
    problems = [*doubts, *_label_problems(dataset, loaded), *_image_problems(loaded)]
    digest = hashlib.sha256(np.ascontiguousarray(loaded.array_kji).data).hexdigest()
    twin = seen.setdefault(digest, case)
    if twin is not case:
        problems.append(f"the same image as {twin.full_name}")
    broken = loaded.array_kji.dtype.kind == "f" and not np.isfinite(loaded.array_kji).all()
    diameters = tuple(sorted((nodule.diameter_mm for nodule in loaded.nodules), reverse=True))
    return CheckedCase(
        case,
        loaded.array_kji.shape[::-1],
        tuple(float(mm) for mm in voxel_spacing(loaded.ijk_to_ras)),
        "".join(nibabel.aff2axcodes(loaded.ijk_to_ras)),
        diameters,
        tuple(problems),
        fatal=broken,
    )


def _label_problems(dataset: Dataset, loaded: LoadedCase) -> Iterator[str]:
    case, nodules = loaded.case, loaded.nodules
    if case.label is None:
        if case.part != "Ts":
            yield f"no label map labels{case.part}/{case.name}: not used"
        return
    if not nodules:
        yield "the label map is empty"
        return
    unknown = {nodule.value for nodule in nodules} - set(dataset.label_names)
    # A file that names one class only often numbers its nodules.
    if len(dataset.label_names) > 2 and unknown:
        yield f"label values that dataset.json does not name: {few(sorted(unknown), 4)}"
    specks = [nodule.name for nodule in nodules if nodule.voxels <= 2]
    if specks:
        yield f"{len(specks)} components of one or two voxels ({few(specks, 4)})"
    huge = [nodule.name for nodule in nodules if nodule.diameter_mm > _LARGEST_NODULE_MM]
    if huge:
        yield f"larger than {_LARGEST_NODULE_MM:.0f} mm, no nodule ({few(huge, 4)})"
    airy = [n.name for n in nodules if loaded.array_kji[n.slices_kji][n.mask].mean(dtype=np.float64) < _AIR_HU]
    if hounsfield_doubt(loaded.array_kji):
        return
    if airy:
        yield f"lies in air: flipped or of another image? ({few(airy, 4)})"
        return
    faint = [n.name for n in nodules if n.voxels > _FEWEST_VOXELS and not _stands_out(loaded, n)]
    if faint and 2 * len(faint) > sum(n.voxels > _FEWEST_VOXELS for n in nodules):
        yield f"no brighter than what is around it: mirrored, or of another image? ({few(faint, 4)})"


def _image_problems(loaded: LoadedCase) -> Iterator[str]:
    array, matrix = loaded.array_kji, loaded.ijk_to_ras
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        yield "the image holds NaN or infinite values"
        return
    spacing = voxel_spacing(matrix)
    if np.allclose(np.abs(matrix), np.eye(4)):
        yield "the geometry is missing (spacing 1, origin 0): export the image again, with its voxel size"
    elif spacing.max() > _THICKEST_MM:
        yield f"voxels of up to {spacing.max():.1f} mm"


def _stands_out(loaded: LoadedCase, nodule: LabelledNodule) -> bool:
    """Whether a nodule differs from the shell around it, as every nodule does that was outlined where it lies.

    The shell is as thick as half the nodule's diameter, two voxels at least.
    """
    spacing = voxel_spacing(loaded.ijk_to_ras)[::-1]
    pad = [max(2, round(nodule.diameter_mm / 2 / mm)) for mm in spacing]
    shape = loaded.array_kji.shape
    window = tuple(
        slice(max(0, part.start - n), min(size, part.stop + n))
        for part, n, size in zip(nodule.slices_kji, pad, shape, strict=True)
    )
    inside = np.zeros([part.stop - part.start for part in window], bool)
    inner = tuple(
        slice(part.start - out.start, part.stop - out.start)
        for part, out in zip(nodule.slices_kji, window, strict=True)
    )
    inside[inner] = nodule.mask
    shell = ~inside & ~ndimage.binary_dilation(inside)  # its border is mixed
    values = loaded.array_kji[window]
    if not shell.any():
        return True
    return float(values[inside].mean()) - float(np.median(values[shell])) > _LEAST_CONTRAST_HU
