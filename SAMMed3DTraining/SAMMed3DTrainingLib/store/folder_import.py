"""Imports pairs of image and label files, of any readable format, into a data set, with one value for each nodule.

Which files are a pair is told by their names:

CASE.nii.gz + CASE_seg.nii.gz        CASE_ct.nii.gz + CASE_nodules.nii.gz        CASE_0000.nrrd + CASE.seg.nrrd
images/CASE.mha + labels/CASE.mha    CASE/ct.nii.gz + CASE/mask.nii.gz           CASE/dicom/*.dcm + CASE/label.nrrd
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from SAMMed3DLib.inference.geometry import inside_volume, transform_points

from ..data.case_names import StoreError, safe_case_name, unique_case_name
from .dataset_writer import DatasetWriter
from .export_case import ExportCase, image_source
from .nifti_file import LARGEST_NODULE_MM, value_problem
from .stepwise_export import MakeCase, PlannedCase, StepwiseExport

if TYPE_CHECKING:
    from SAMMed3DLib.files.volume_io import Volume

    from ..data.instances import LabelledNodule

_ENDINGS = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".nhdr", ".mha", ".mhd")
_IMAGE = r"ct|image|images|img|imgs|imagestr|volume|vol|scan|scans|0000|dicom|dcm|series"
_LABEL = (
    r"seg|segs|segmentation|segmentations|label|labels|labelstr|labelmap|mask|masks|nodule|nodules|lesion|lesions|"
    r"tumor|tumors|tumour|tumours|roi|rois|gt|annotation|annotations"
)
_DEEPEST = 4
#: Largest number of files that are searched, lest somebody chooses a whole disk.
_MOST_FILES = 20_000


def folder_import(pairs: Sequence[FilePair], writer: DatasetWriter) -> StepwiseExport:
    """Makes the export that reads and writes all pairs without problems, one after the other, on the worker thread."""
    usable = [pair for pair in pairs if not pair.problem]
    return StepwiseExport([PlannedCase(pair.name, _reader(pair, writer)) for pair in usable], writer)


def read_pair(pair: FilePair) -> ExportCase:
    """Reads a pair of files as a case, in seconds. A label map on another grid is resampled to the image's.

    Every value and in it every connected component is a nodule, numbered in this order; none is left out.

    Raises:
        StoreError: a file cannot be read, it is no CT, or there is no nodule in it.
    """
    # These load PyTorch and nibabel, which the application's start need not wait for.
    from SAMMed3DLib.commandline.terminal import few
    from SAMMed3DLib.files.volume_io import read_labels, read_volume
    from SAMMed3DLib.inference.errors import InputError

    from ..data.datasets import geometry_mismatch
    from ..data.instances import split_instances

    if pair.problem or pair.image is None or pair.label is None:
        raise StoreError(pair.problem or "an image and its label map are needed")
    try:
        image, label = read_volume(pair.image), read_labels(pair.label)
    except InputError as error:
        raise StoreError(str(error)) from error
    problem = value_problem(image.array_kji)
    if problem:
        raise StoreError(f"{pair.image}: {problem}")
    shape, values = image.array_kji.shape, label.array_kji
    if geometry_mismatch(shape, image.ijk_to_ras, values.shape, label.ijk_to_ras):
        drawn = split_instances(values, label.ijk_to_ras)
        numbered = np.zeros(values.shape, dtype=np.uint32)
        for number, nodule in enumerate(drawn, start=1):
            numbered[nodule.slices_kji][nodule.mask] = number
        placed = on_grid(numbered, label.ijk_to_ras, shape, image.ijk_to_ras)
        there = np.unique(placed)
        lost = [nodule.name for number, nodule in enumerate(drawn, start=1) if number not in there]
        cut = [nodule.name for nodule in drawn if nodule.name not in lost and _is_cut(nodule, label, image)]
        if drawn and len(lost) == len(drawn):
            raise StoreError(f"{pair.label} has no voxel within {pair.image.name}: does it belong to another image?")
        if lost:
            raise StoreError(
                f"{pair.label}: {len(lost)} of {len(drawn)} nodules ({few(lost)}) lie outside of {pair.image.name} or "
                "between its voxels; give the image that they were drawn on, or remove them"
            )
        if cut:
            raise StoreError(
                f"{pair.label}: {len(cut)} of {len(drawn)} nodules ({few(cut)}) reach beyond {pair.image.name}: a part "
                "of them would be lost; give the image that they were drawn on, or remove them"
            )
        values = np.array([0, *(nodule.value for nodule in drawn)], dtype=values.dtype)[placed]
    nodules = split_instances(values, image.ijk_to_ras)
    if not nodules:
        raise StoreError(f"{pair.label} is empty: it has no nodule")
    large = [nodule for nodule in nodules if nodule.diameter_mm > LARGEST_NODULE_MM]
    if large:
        raise StoreError(
            f"{pair.label}: value {large[0].value} is {large[0].diameter_mm:.0f} mm large, no nodule; keep nodules only"
        )
    labels = np.zeros(shape, dtype=np.uint16)
    for number, nodule in enumerate(nodules, start=1):
        labels[nodule.slices_kji][nodule.mask] = number
    names = {number: f"Nodule {number}" for number in range(1, len(nodules) + 1)}
    source = image_source(image.array_kji)
    return ExportCase(pair.name, "", image.array_kji, image.ijk_to_ras, labels, names, source)


def _is_cut(nodule: LabelledNodule, label: Volume, image: Volume) -> bool:
    """Whether a nodule has voxels whose centers lie outside of an image's."""
    start = [part.start for part in nodule.slices_kji]
    voxels = (np.argwhere(nodule.mask) + start)[:, ::-1]
    centers = transform_points(label.ijk_to_ras, voxels)
    return not inside_volume(centers, image.array_kji.shape, image.ijk_to_ras).all()


def on_grid(labels_kji: NDArray, ijk_to_ras: NDArray, shape: Sequence[int], target: NDArray) -> NDArray:
    """Resamples a label map to another grid, each voxel with the value at its center.

    Args:
        labels_kji: (K, J, I) whole numbers.
        ijk_to_ras: (4, 4) of the labels.
        shape: of the other grid, (K, J, I).
        target: (4, 4) of the other grid.
    """
    from scipy import ndimage

    step = np.linalg.solve(ijk_to_ras, target)
    back, start = step[:3, :3][::-1, ::-1], step[:3, 3][::-1]
    # "constant" would leave out the outer half of the voxels at the edge.
    return ndimage.affine_transform(labels_kji, back, start, tuple(shape), order=0, mode="grid-constant", cval=0)


def _reader(pair: FilePair, writer: DatasetWriter) -> Callable[[], Iterator[MakeCase]]:
    def make() -> ExportCase:
        case = read_pair(pair)
        twin = next((other for other in writer.cases() if other.source == case.source), None)
        if twin is not None and twin.name != case.name:
            raise StoreError(f"the data set holds this image already, as case {twin.name}")
        return case

    return lambda: iter([make])


@dataclass(frozen=True)
class FilePair:
    """An image with its label map.

    Attributes:
        name: of the case, safe and unique in the folder.
        image: a file, or a folder with a DICOM series; None where there are labels only.
        label: None where there is none.
        problem: why it cannot be used and what to do, else "".
    """

    name: str
    image: Path | None
    label: Path | None
    problem: str = ""


@dataclass
class _Group:
    title: str
    images: list[Path]
    labels: list[Path]


def find_pairs(folder: str | Path) -> tuple[FilePair, ...]:
    """Finds all images and label maps in a folder and the folders below it, by name; no file is opened.

    Raises:
        StoreError: there is no such folder, or nothing that could be an image in it.
    """
    root = Path(folder).expanduser().absolute()
    try:
        if not root.is_dir():
            raise StoreError(f"{root} is not a folder: give the folder that holds the images and label maps")
        groups: dict[str, _Group] = {}
        for number, path in enumerate(_candidates(root, 0)):
            if number >= _MOST_FILES:
                raise StoreError(f"{root} holds too many images: choose the folder that holds those of one data set")
            _sort_in(groups, root, path)
    except OSError as error:
        raise StoreError(f"{root} cannot be read: {error.strerror or error}") from error
    if not groups:
        raise StoreError(f"no image in {root}: it needs files that end in {', '.join(_ENDINGS)}, or DICOM series")
    pairs: list[FilePair] = []
    for key in sorted(groups):
        pairs.append(_pair(groups[key], unique_case_name(groups[key].title, [pair.name for pair in pairs])))
    return tuple(pairs)


def _candidates(folder: Path, depth: int) -> Iterator[Path]:
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if any(path.suffix.lower() == ".dcm" for path in entries):
        yield folder
    for path in entries:
        if path.is_dir():
            if depth < _DEEPEST:
                yield from _candidates(path, depth + 1)
        elif path.name.lower().endswith(_ENDINGS):
            yield path


def _sort_in(groups: dict[str, _Group], root: Path, path: Path) -> None:
    """Adds a file to the group of files with the same name, apart from words such as "ct" or "seg"."""
    ending = next((ending for ending in _ENDINGS if path.is_file() and path.name.lower().endswith(ending)), "")
    stem = path.name[: len(path.name) - len(ending)] if path != root else ""
    parents = list(path.relative_to(root).parts[:-1])
    stem, is_label = _without_word(stem)
    kept = []
    for parent in parents:
        bare, says_label = _without_word(parent)
        is_label = says_label if is_label is None else is_label
        kept += [bare] if bare else []
    title = stem or (kept.pop() if kept else root.name)
    group = groups.setdefault("/".join([*kept, title]), _Group(title, [], []))
    (group.labels if is_label or ending == ".seg.nrrd" else group.images).append(path)


def _without_word(name: str) -> tuple[str, bool | None]:
    """Removes a word such as "ct" or "seg" from a name's end; and whether it means a label map, None without one."""
    for words, is_label in ((_LABEL, True), (_IMAGE, False)):
        found = re.fullmatch(rf"(?i)(|.+?[_\-. ])({words})", name)
        if found:
            return found[1].rstrip("_-. "), is_label
    return name, None


def _pair(group: _Group, name: str) -> FilePair:
    images, labels = group.images, group.labels
    image, label = (images[0] if images else None), (labels[0] if labels else None)
    problem = ""
    if not images:
        problem = "no image for this label map: its name must be the same but for an ending such as _seg"
    elif not labels:
        problem = f"no label map for this image: name it {safe_case_name(group.title)}_seg"
    elif len(images) > 1 or len(labels) > 1:
        many = images if len(images) > 1 else labels
        problem = f"several files of one kind ({', '.join(path.name for path in many[:3])}): keep one"
    return FilePair(name, image, label, problem)
