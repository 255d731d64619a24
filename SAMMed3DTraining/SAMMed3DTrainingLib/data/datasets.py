"""Finds the cases of nnU-Net style data sets and reads them.

Layout (https://github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md; facts only)::

    <dataset>/imagesTr|imagesVal|imagesTs/<case>[_0000].nii.gz     .nii, .nrrd, .mha and .mhd too
    <dataset>/labelsTr|labelsVal|labelsTs/<case>.nii.gz
    <dataset>/dataset.json          optional; version 1 or 2
    <dataset>/splits_final.json     optional; nnU-Net's cross-validation

A path may name one data set, or a folder (a "cache") that holds several. Four digits at the end of an image's name are
its channel, unless they number the cases: ``imagesTr/lung_0001.nii.gz`` with ``labelsTr/lung_0001.nii.gz``.
"""

from __future__ import annotations

import dataclasses
import json
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from SAMMed3DLib.commandline.terminal import few
from SAMMed3DLib.files.image_file import check_kind, given_path
from SAMMed3DLib.files.volume_io import read_labels, read_volume
from SAMMed3DLib.inference.errors import InputError
from SAMMed3DLib.inference.geometry import box_corners, transform_points, voxel_spacing, world_to_ijk

from .case_names import CT_CHANNEL, case_and_channel, case_of_label, numbered_names
from .instances import LabelledNodule, split_instances

Part = Literal["Tr", "Val", "Ts"]
PARTS: tuple[Part, ...] = ("Tr", "Val", "Ts")
ENDINGS = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".mha", ".mhd")
#: A case's name less what numbers the patient's scans and nodules.
DEFAULT_PATIENT_PATTERN = (
    r"(?i)^(.+?)(?:[_\-.](?:scan|ses|session|study|series|visit|tp|timepoint|t|nodule|lesion|n)[_\-]?\d+)*$"
)
#: Matrices may differ by this share of a voxel over the whole volume: files round their numbers. With less than half a
#: voxel between them, every voxel still has its own label.
_GEOMETRY_TOLERANCE, _LARGEST_OFFSET = 0.05, 0.5
#: A cache's data sets lie this many folders below it at most.
_LEVELS = 4
#: Names of classes that are nodules, and of such that are surely none.
_NODULE_CLASS = re.compile(
    r"(?i)nodul|lesion|tumou?r|mass|cancer|carcinom|metasta|finding|malign|benign|neoplas|ggo|ground|solid|granulom"
)
_ORGAN_CLASS = re.compile(
    r"(?i)lung|lobe|airway|trachea|bronch|vessel|heart|aorta|body|spine|vertebra|rib|bone|liver|kidney|spleen|sophag|"
    r"organ|muscle|fat|skin|thorax|mediastin|pleura"
)
_BYTE_VALUES = frozenset(range(1, 256))
#: Between the names of a value that several regions of ``dataset.json`` hold.
_AND = " / "
_NO_CT_CHANNEL = re.compile(r"(?i)^(mri?|mrt|t[12].*|flair|dwi|adc|pet.*|suv.*|us|ultrasound|x-?ray)$")


class DatasetError(ValueError):
    """A data set cannot be used; the message names the file and the cure."""


@dataclass(frozen=True)
class Case:
    """One image with, mostly, its label map.

    Attributes:
        name: nnU-Net's case identifier: the file name without channel and ending.
        patient: cases of one patient are never torn apart by a split.
        part: "Tr", "Val" or "Ts".
    """

    name: str
    image: Path
    label: Path | None
    patient: str
    dataset: str
    part: Part

    @property
    def full_name(self) -> str:
        """Unique over all data sets of a run."""
        return f"{self.dataset}/{self.part}/{self.name}"


@dataclass(frozen=True)
class Dataset:
    """A data set's cases.

    Attributes:
        label_names: what the label values mean, as far as ``dataset.json`` says; all its names where regions share it.
        ignored_values: label values that are no nodules.
        splits: ``splits_final.json``: one {"train": [case], "val": [case]} per fold.
        problems: what is wrong with the folder, one sentence each; nothing is left out in silence.
        question: what has to be answered before nodules can be trained on, "" if nothing.
    """

    name: str
    folder: Path
    cases: tuple[Case, ...]
    label_names: Mapping[int, str]
    ignored_values: frozenset[int] = frozenset()
    splits: tuple[Mapping[str, list[str]], ...] = ()
    problems: tuple[str, ...] = ()
    question: str = ""

    def part(self, part: Part) -> tuple[Case, ...]:
        """The cases of one part."""
        return tuple(case for case in self.cases if case.part == part)


@dataclass(frozen=True, eq=False)
class LoadedCase:
    """A case in memory.

    Attributes:
        array_kji: (K, J, I) HU.
        ijk_to_ras: (4, 4) of the image.
        nodules: of the label map; empty where it is empty or there is none.
    """

    case: Case
    array_kji: NDArray
    ijk_to_ras: NDArray[np.float64]
    nodules: tuple[LabelledNodule, ...]


def find_datasets(
    path: str | Path, patient_pattern: str = DEFAULT_PATIENT_PATTERN, labels: Sequence[str] = ()
) -> tuple[Dataset, ...]:
    """The data set in a folder, or all data sets in the folders below it (four levels), sorted by name.

    Args:
        path: a data set or a cache of several.
        patient_pattern: regular expression whose first group is the patient in a case's name. The default drops
            endings such as ``_scan2``, ``_t1`` or ``_nodule3``. A ``patients`` table in ``dataset.json``
            ({case: patient}) comes first.
        labels: the classes that are nodules, by their names in ``dataset.json`` or by their values; the others are
            ignored. By default all classes are, and a data set that names others too has a ``question``.

    Raises:
        DatasetError: no such folder, no data set in it, one whose JSON cannot be read, or a class that it has not.
    """
    try:
        root = given_path(path)
    except InputError as error:
        raise DatasetError(str(error)) from error
    pattern = _patient_pattern(patient_pattern)
    try:
        if not root.is_dir():
            raise DatasetError(f"{root} is not a folder; give the folder that holds imagesTr and labelsTr")
        found = sorted(_dataset_folders(root, _LEVELS), key=lambda f: (f.is_symlink(), len(f.parts)), reverse=True)
        folders = {folder.resolve(): folder for folder in found}  # once, however many links lead there
        datasets = tuple(_read_dataset(folder, pattern, labels) for folder in sorted(folders.values()))
    except OSError as error:
        raise DatasetError(f"{error.filename or root} cannot be read: {error.strerror}; check the path") from error
    if datasets:
        return _one_patient_noted(_with_unique_names(datasets, root))
    raise DatasetError(
        f"no data set in {root}: it needs imagesTr/ and labelsTr/ (nnU-Net's layout), directly or up to {_LEVELS} "
        "folders further down"
    )


def ask(datasets: Iterable[Dataset]) -> None:
    """Raises DatasetError for the first data set whose nodule classes the user has to name."""
    for dataset in datasets:
        if dataset.question:
            raise DatasetError(f"{dataset.name}: {dataset.question}")


def load_case(case: Case, ignored_values: frozenset[int] = frozenset()) -> LoadedCase:
    """Reads a case and cuts its label map into nodules.

    Raises:
        DatasetError: a file cannot be read, is 4D, holds fractions as labels, or the label map lies elsewhere than its
            image.
    """
    try:
        image = read_volume(case.image)
        if case.label is None:
            return LoadedCase(case, image.array_kji, image.ijk_to_ras, ())
        labels = read_labels(case.label)
    except InputError as error:
        raise DatasetError(f"case {case.full_name}: {error}") from error
    grids = image.array_kji.shape, image.ijk_to_ras, labels.array_kji.shape, labels.ijk_to_ras
    mismatch = geometry_mismatch(*grids)
    if mismatch and _both_without_place(*grids):
        mismatch, labels = "", dataclasses.replace(labels, ijk_to_ras=image.ijk_to_ras)
    if mismatch:
        lost = grids[0] == grids[2] and _is_lost(labels.ijk_to_ras)
        image_name, label_name = (f"{path.parent.name}/{path.name}" for path in (case.image, case.label))
        cure = (
            f"its header is lost, copy the header of {image_name} to {label_name}"
            if lost
            else f"resample {label_name} onto the grid of {image_name}"
        )
        raise DatasetError(f"case {case.full_name}: {mismatch}; {cure}")
    apart = _apart(grids[0], image.ijk_to_ras, labels.ijk_to_ras)
    if np.abs(apart).max() > _GEOMETRY_TOLERANCE:
        far = np.linalg.norm(apart * voxel_spacing(image.ijk_to_ras), axis=1).max()
        warnings.warn(
            f"{case.name}: the label map's header lies {far:.2g} mm away from its image's, less than half a "
            "voxel; its voxels are taken for the image's",
            stacklevel=2,
        )
    nodules = split_instances(labels.array_kji, image.ijk_to_ras, ignored_values)
    return LoadedCase(case, image.array_kji, image.ijk_to_ras, nodules)


def load_finite_case(case: Case, ignored_values: frozenset[int] = frozenset()) -> LoadedCase:
    """:func:`load_case`, for those who compute with the image. Raises DatasetError for NaN or infinite values too."""
    loaded = load_case(case, ignored_values)
    if loaded.array_kji.dtype.kind == "f" and not np.isfinite(loaded.array_kji).all():
        raise DatasetError(f"case {case.full_name}: the image holds NaN or infinite values; export it again")
    return loaded


def geometry_mismatch(
    shape: tuple[int, ...], ijk_to_ras: NDArray, label_shape: tuple[int, ...], label_ijk_to_ras: NDArray
) -> str:
    """Describes the difference between the grids of an image and its label map, "" where they are the same."""
    if tuple(shape) != tuple(label_shape):
        return f"the label map has {label_shape[::-1]} voxels, its image {shape[::-1]}"
    if np.abs(_apart(shape, ijk_to_ras, label_ijk_to_ras)).max() < _LARGEST_OFFSET:
        return ""
    places, label_places = (transform_points(m, _corners(shape)) for m in (ijk_to_ras, label_ijk_to_ras))
    nearest = np.linalg.norm(places[:, None] - label_places[None], axis=-1).min(axis=1)
    if nearest.max() <= _GEOMETRY_TOLERANCE * float(np.min(voxel_spacing(ijk_to_ras))):
        return "the label map is stored in another orientation (flipped axes) than its image"
    apart = np.linalg.norm(places - label_places, axis=1).max()
    return f"the label map lies up to {apart:.1f} mm away from its image"


def _corners(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """(8, 3) indices i, j, k of the outer corners of a volume [k, j, i]."""
    return box_corners([-0.5] * 3, np.array(shape[::-1]) - 0.5)


def _apart(shape: tuple[int, ...], ijk_to_ras: NDArray, label_ijk_to_ras: NDArray) -> NDArray[np.float64]:
    """(8, 3) how far, in voxels along i, j, k, the corners of a label map lie from those of its image."""
    return world_to_ijk(ijk_to_ras, transform_points(label_ijk_to_ras, _corners(shape))) - _corners(shape)


def _both_without_place(
    shape: tuple[int, ...], ijk_to_ras: NDArray, label_shape: tuple[int, ...], label_ijk_to_ras: NDArray
) -> bool:
    """Whether an image states no place and its label map the one that nibabel makes up then: centered, i to L."""
    spacing = voxel_spacing(ijk_to_ras)
    bare = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    made_up = np.diag([-spacing[0], spacing[1], spacing[2], 1.0])
    made_up[:3, 3] = -made_up[:3, :3] @ (np.array(shape[::-1]) - 1) / 2
    return shape == label_shape and bool(
        np.allclose(ijk_to_ras, bare, atol=1e-3) and np.allclose(label_ijk_to_ras, made_up, atol=1e-3)
    )


def _is_lost(ijk_to_ras: NDArray) -> bool:
    """Whether a matrix is a writer's default and the geometry was lost: 1 mm voxels along the axes, or no origin."""
    axes = np.abs(ijk_to_ras[:3, :3])
    return bool(np.allclose(axes, np.eye(3)) or not np.any(ijk_to_ras[:3, 3]))


def strip_ending(name: str) -> str:
    """A file name without the ending of an image file; "" where it has none."""
    lower = name.lower()
    return next((name[: -len(ending)] for ending in ENDINGS if lower.endswith(ending)), "")


# -- reading a folder -------------------------------------------------------------------------------------------------


def _dataset_folders(folder: Path, levels: int) -> list[Path]:
    """The folder itself where it is a data set, else all data sets below it, on whatever level each one lies."""
    if _is_dataset(folder):
        return [folder]
    return [found for sub in _subfolders(folder) for found in _dataset_folders(sub, levels - 1)] if levels else []


def _subfolders(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def _is_dataset(folder: Path) -> bool:
    return any((folder / f"{kind}{part}").is_dir() for kind in ("images", "labels") for part in PARTS)


def _patient_pattern(text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise DatasetError(f"{text!r} is not a regular expression: {error}") from error
    if pattern.groups < 1:
        raise DatasetError(f"{text!r} needs a group in parentheses around the patient's name")
    return pattern


def _read_dataset(folder: Path, pattern: re.Pattern[str], chosen: Sequence[str]) -> Dataset:
    description = _read_json(folder / "dataset.json", dict)
    problems: list[str] = []
    patients = description.get("patients", {})
    patients = patients if isinstance(patients, dict) else {}

    def patient(name: str) -> str:
        match = pattern.match(name)
        return str(patients.get(name) or (match.group(1) if match and match.group(1) else name))

    cases = []
    ct_channel = _ct_channel(description, problems)
    numbered = numbered_names(
        *(
            {strip_ending(path.name) for part in PARTS for path in _files(folder / f"{kind}{part}")}
            for kind in ("images", "labels")
        )
    )
    for part in PARTS:
        images = _by_case(folder / f"images{part}", problems, lambda stem: case_and_channel(stem, numbered), ct_channel)
        labels = _by_case(
            folder / f"labels{part}", problems, lambda stem: (case_of_label(stem, numbered), ct_channel), ct_channel
        )
        for name, image in images.items():
            cases.append(Case(name, image, labels.pop(name, None), patient(name), folder.name, part))
        problems += [f"labels{part}/{label.name} has no image in images{part}" for label in labels.values()]
    listed = _listed_cases(folder, description, numbered, problems, ct_channel)
    known = {case.name for case in cases}
    for name, (image, label) in listed.items():
        if name not in known:
            cases.append(Case(name, image, label, patient(name), folder.name, "Tr"))
    told, there = description.get("numTraining"), sum(case.part == "Tr" for case in cases)
    if isinstance(told, int) and told > there > 0:
        problems.append(f"dataset.json counts {told} training cases, of which {there} are there")
    names, ignored = _label_values(description, folder)
    question = ""
    if chosen:
        ignored = _all_but(chosen, names, folder) | ignored
    else:
        question = _question(names, ignored)
        problems += [question] if question else []
    splits = _read_json(folder / "splits_final.json", list)
    usable = all(
        isinstance(fold, dict) and all(isinstance(fold.get(half), list) for half in ("train", "val")) for fold in splits
    )
    if not usable:
        problems.append("splits_final.json is not a list of {train, val}: it is not used")
    else:
        problems += _gone_from_splits(splits, {case.name for case in cases})
    return Dataset(
        folder.name, folder, tuple(cases), names, ignored, tuple(splits) if usable else (), tuple(problems), question
    )


def _question(names: Mapping[int, str], ignored: Collection[int]) -> str:
    """Makes the question to the user where ``dataset.json`` names classes that may be no nodules."""
    classes = {value: name for value, name in names.items() if value > 0 and value not in ignored}
    doubtful = [
        name
        for name in classes.values()
        if not _NODULE_CLASS.search(name)
        and (_ORGAN_CLASS.search(name) or (len(set(classes.values())) > 1 and not name.strip().isdigit()))
    ]
    if not doubtful:
        return ""
    listed = ", ".join(f"{name} ({value})" for value, name in classes.items())
    return f"which classes of dataset.json are nodules? It names {listed}: say it with --labels NAME or VALUE ..."


def _all_but(chosen: Sequence[str], names: Mapping[int, str], folder: Path) -> frozenset[int]:
    """The values that are not asked for. Raises DatasetError for a class that is not there."""
    by_name: dict[str, set[int]] = {}
    for value, joined in names.items():
        for name in {joined, *joined.split(_AND)}:
            by_name.setdefault(name.lower(), set()).add(value)
    wanted: set[int] = set()
    for label in chosen:
        values = by_name.get(label.lower(), {int(label)} if label.isascii() and label.isdigit() else set())
        if not values - {0} or (names and not values <= names.keys()):
            known = ", ".join(f"{name} ({value})" for value, name in names.items() if value) or "none"
            raise DatasetError(f"--labels {label}: {folder.name} has no such class; dataset.json names {known}")
        wanted |= values
    return (frozenset(names) | _BYTE_VALUES) - wanted - {0}


def _one_patient_noted(datasets: tuple[Dataset, ...]) -> tuple[Dataset, ...]:
    """The data sets, with a problem where all their cases count as scans of one patient."""
    cases = [case for dataset in datasets for case in dataset.cases]
    if len(cases) < 2 or len({case.patient for case in cases}) > 1:
        return datasets
    problem = (
        f"all {len(cases)} cases ({few([case.name for case in cases])}) are taken for scans of one patient, "
        f"{cases[0].patient!r}, so that nothing can be held out. If they are several, say what names a patient with "
        "--patient_pattern, such as '^(.+)$' for "
        'one patient a case, or in the table "patients" of dataset.json'
    )
    return tuple(dataclasses.replace(each, problems=(*each.problems, problem)) for each in datasets)


def _gone_from_splits(splits: list[dict[str, Any]], names: set[str]) -> list[str]:
    named = {str(name) for fold in splits for half in ("train", "val") for name in fold[half]}
    gone = sorted(named - names)
    return [f"splits_final.json names {len(gone)} cases that are not there ({few(gone)})"] if gone else []


def _by_case(
    folder: Path, problems: list[str], case_and_channel_of: Callable[[str], tuple[str, str]], ct_channel: str
) -> dict[str, Path]:
    """The files of a folder by their case; of several channels the CT."""
    found: dict[str, Path] = {}
    for path in _files(folder, problems):
        stem = strip_ending(path.name)
        name, channel = case_and_channel_of(stem) if stem else ("", "")
        if not name:
            problems.append(f"{folder.name}/{path.name} is no image file that can be read ({', '.join(ENDINGS)})")
        elif channel != ct_channel:
            problems.append(f"{folder.name}/{path.name} is a further channel: only _{ct_channel}, the CT, is used")
        elif name in found:
            problems.append(f"{folder.name} holds {name} twice: {path.name} is not used, {found[name].name} is")
        else:
            found[name] = path
    return found


def _files(folder: Path, problems: list[str] | None = None) -> list[Path]:
    """Files that could be images: no hidden ones, no raw data beside a .mhd header, no notes; dead links are told."""
    if not folder.is_dir():
        return []
    skipped = (".raw", ".zraw", ".json", ".txt", ".csv", ".md", ".pkl", ".npz")
    there = sorted(p for p in folder.iterdir() if not p.name.startswith(".") and not p.name.lower().endswith(skipped))
    if problems is not None:
        problems += [
            f"{folder.name}/{p.name} is a link to {p.readlink()}, which does not exist"
            for p in there
            if p.is_symlink() and not p.exists()
        ]
    return [p for p in there if p.is_file()]


def _ct_channel(description: dict[str, Any], problems: list[str]) -> str:
    """The channel that ``dataset.json`` names CT, "0000" where it names none; says so where it names another kind."""
    channels = description.get("channel_names", description.get("modality"))
    if isinstance(channels, list):
        channels = dict(enumerate(channels))
    names = {str(key): str(name).strip() for key, name in (channels if isinstance(channels, dict) else {}).items()}
    for key, name in names.items():
        if name.upper() == "CT" and key.isascii() and key.isdigit():
            return key.zfill(len(CT_CHANNEL))
    if _NO_CT_CHANNEL.match(names.get("0", "")):
        problems.append(f"dataset.json says that the images are {names['0']}, not CT: results would mean nothing")
    return CT_CHANNEL


def _listed_cases(
    folder: Path, description: dict[str, Any], numbered: Collection[str], problems: list[str], ct_channel: str
) -> dict[str, tuple[Path, Path | None]]:
    """Cases that ``dataset.json`` lists by their files: version 1's "training", version 2's "dataset"."""
    listed: dict[str, tuple[Path, Path | None]] = {}
    entries: list[tuple[str, Any, Any]] = []
    for entry in description.get("training", []) if isinstance(description.get("training"), list) else []:
        if isinstance(entry, dict) and "image" in entry:
            name = case_of_label(strip_ending(Path(str(entry["image"])).name), numbered)
            entries.append((name, entry["image"], entry.get("label")))
    table = description.get("dataset")
    for name, entry in (table if isinstance(table, dict) else {}).items():
        if isinstance(entry, dict) and entry.get("images"):
            images = entry["images"] if isinstance(entry["images"], list) else [entry["images"]]
            entries.append(
                (str(name), images[int(ct_channel) if int(ct_channel) < len(images) else 0], entry.get("label"))
            )
    for name, image, label in entries:
        path = _listed_file(folder, str(image), ct_channel)
        label_path = _listed_file(folder, str(label), ct_channel) if label else None
        for file, found in ((image, path), (label, label_path)):
            if file and found is None:
                problems.append(f"dataset.json lists {file}, which does not exist")
        if path is not None:
            listed[name] = (path, label_path)
    return listed


def _listed_file(folder: Path, name: str, channel: str) -> Path | None:
    """The file of a listed case, which version 1 names without its channel."""
    path = folder / name
    stem = strip_ending(path.name)
    candidates = [path, path.with_name(f"{stem}_{channel}{path.name[len(stem) :]}")]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _label_values(description: dict[str, Any], folder: Path) -> tuple[dict[int, str], frozenset[int]]:
    """Names by value, and the values to ignore.

    From {"1": "nodule"} (version 1), {"nodule": 1} or regions, {"nodule": [1, 2]} (version 2). Raises DatasetError for
    what is none of them: a class that is not understood would be trained on as nodules.
    """
    found: dict[int, list[str]] = {}
    labels = description.get("labels") or {}
    for key, value in labels.items() if isinstance(labels, dict) else [("labels", labels)]:
        of_version_1 = isinstance(value, str) and _whole(key) is not None
        name, given = (value, [key]) if of_version_1 else (key, value if isinstance(value, list) else [value])
        for each in given:
            number = _whole(each)
            if number is None:
                raise DatasetError(
                    f"{folder / 'dataset.json'}: the label {name!r} has no value that is a whole number ({value!r}); "
                    'write {"background": 0, "nodule": 1}'
                )
            found.setdefault(number, []).append(str(name))
    names = {number: _AND.join(dict.fromkeys(each)) for number, each in found.items()}
    return names, frozenset(n for n, each in found.items() if any(name.lower() == "ignore" for name in each))


def _whole(value: Any) -> int | None:
    """The whole number that a JSON value or key is, or writes out; None for anything else."""
    try:
        return int(value) if not isinstance(value, bool) and (isinstance(value, str) or int(value) == value) else None
    except (TypeError, ValueError, OverflowError):
        return None


def _read_json(path: Path, kind: type) -> Any:
    """The file's content; an empty dict or list where there is no such file. Raises DatasetError."""
    try:
        if path.exists():
            check_kind(path)
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except InputError as error:
        raise DatasetError(str(error)) from error
    except FileNotFoundError:
        return kind()
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}; correct the file or remove it") from error
    if not isinstance(content, kind):
        wanted = "object" if kind is dict else "list"
        raise DatasetError(f"{path} holds no JSON {wanted}; correct the file or remove it")
    return content


def _with_unique_names(datasets: tuple[Dataset, ...], root: Path) -> tuple[Dataset, ...]:
    """Renames data sets of equal name by their path below the root."""
    names = [dataset.name for dataset in datasets]
    if len(set(names)) == len(names):
        return datasets
    renamed = []
    for dataset in datasets:
        name = "_".join(dataset.folder.relative_to(root).parts)
        cases = tuple(Case(c.name, c.image, c.label, c.patient, name, c.part) for c in dataset.cases)
        renamed.append(dataclasses.replace(dataset, name=name, cases=cases))
    return tuple(renamed)
