"""Reads a data set's folder without opening an image: the files of each case, dataset.json, and the export's manifest.

The manifest, ``sammed3d_export.json``, says which cases were written here, and from what::

    {"format": 1, "class": "nodule", "others_highest": 0,
     "cases": {NAME: {"patient", "source", "fingerprint", "content", "written", "nodules": {"1": "Nodule 1"},
                      "files": {"imagesTr/NAME_0000.nii.gz": {"bytes", "mtime_ns", "sha256"}, ...}}}}
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from SAMMed3DLib.weights.download import file_sha256

from ..data.case_names import StoreError, case_and_channel, case_of_label, numbered_names

MANIFEST = "sammed3d_export.json"
_FORMAT = 1

PARTS = ("Tr", "Val", "Ts")
ENDING = ".nii.gz"
#: Characters of a path that the system opens; Windows' programs mostly keep to its old limit.
LONGEST_PATH = 259 if sys.platform == "win32" else 4095
_ENDINGS = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".mha", ".mhd", ".png", ".tif", ".tiff")
DESCRIPTION = "dataset.json"


@dataclass(frozen=True)
class CaseFiles:
    """The files of one case; ``images`` are its channels."""

    name: str
    part: str
    images: tuple[Path, ...]
    labels: tuple[Path, ...]


def image_file(name: str) -> str:
    """Returns the path of a case's image, relative to the data set."""
    return f"imagesTr/{name}_0000{ENDING}"


def label_file(name: str) -> str:
    """Returns the path of a case's label map, relative to the data set."""
    return f"labelsTr/{name}{ENDING}"


def case_files(folder: Path) -> tuple[CaseFiles, ...]:
    """Lists all cases of a data set by part and name. Raises OSError where a folder cannot be listed."""
    stems = [
        {_stem(path) for part in PARTS for path in _image_files(folder / f"{kind}{part}")}
        for kind in ("images", "labels")
    ]
    numbered = numbered_names(*stems)
    cases = []
    for part in PARTS:
        images = _by_name(folder / f"images{part}", lambda stem: case_and_channel(stem, numbered)[0])
        labels = _by_name(folder / f"labels{part}", lambda stem: case_of_label(stem, numbered))
        for name in sorted(images.keys() | labels.keys()):
            cases.append(CaseFiles(name, part, tuple(images.get(name, ())), tuple(labels.get(name, ()))))
    return tuple(cases)


def _by_name(folder: Path, name_of: Callable[[str], str]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in _image_files(folder):
        found.setdefault(name_of(_stem(path)), []).append(path)
    return found


def _stem(path: Path) -> str:
    ending = next(ending for ending in _ENDINGS if path.name.lower().endswith(ending))
    return path.name[: -len(ending)]


def _image_files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.name.lower().endswith(_ENDINGS) and not path.name.startswith(".") and path.is_file():
                yield path


def read_description(folder: Path) -> dict[str, Any]:
    """Reads ``dataset.json``, empty where there is none. Raises StoreError."""
    path = folder / DESCRIPTION
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}; correct the file or remove it") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path} holds no JSON object; correct the file or remove it")
    return content


def adopt(description: Mapping[str, Any], has_cases: bool) -> Manifest:
    """Makes a manifest for a folder that others have begun.

    Raises:
        StoreError: numbered nodules would be mistaken for something else there, or cannot be told apart by nnU-Net.
    """
    if not description:
        if has_cases:
            raise StoreError("it holds cases but no dataset.json that says what their labels mean")
        return Manifest()
    if "dataset" in description or isinstance(description.get("training"), list):
        raise StoreError("its dataset.json lists its files one by one")
    channels = description.get("channel_names", description.get("modality", {}))
    if isinstance(channels, dict) and len(channels) > 1:
        raise StoreError(f"its images have {len(channels)} channels")
    ending = description.get("file_ending", ENDING)
    if ending != ENDING:
        raise StoreError(f"its files end in {ending}, new ones in {ENDING}")
    return _class_of(description.get("labels"))


def describe(old: Mapping[str, Any], manifest: Manifest, name: str, training_cases: int) -> str:
    """Makes the new ``dataset.json``; entries of others stay, except labels, patients and the number of cases."""
    values = list(range(1, manifest.highest + 1))
    patients = old.get("patients")
    others = {k: v for k, v in patients.items() if k not in manifest.cases} if isinstance(patients, dict) else {}
    own = {case: record.patient for case, record in sorted(manifest.cases.items()) if record.patient}
    content = {
        "name": name,
        "description": "CT in Hounsfield units; every nodule of a case has its own label value",
        "channel_names": {"0": "CT"},
        **old,
        "labels": {"background": 0, manifest.class_name: values if len(values) > 1 else 1},
        "numTraining": training_cases,
        "file_ending": ENDING,
        "patients": {**others, **own},
    }
    content.pop("regions_class_order", None)
    if len(values) > 1:
        content["regions_class_order"] = [1]
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _class_of(labels: Any) -> Manifest:
    """Reads the class: {"background": 0, "nodule": 1}, version 1's {"0": "background", "1": "nodule"}, or a region."""
    classes: dict[str, int] = {}
    for key, value in (labels if isinstance(labels, dict) else {}).items():
        text, numbers = (value, key) if isinstance(value, str) else (key, value)
        try:
            highest = max((int(n) for n in (numbers if isinstance(numbers, list) else [numbers])), default=0)
        except (TypeError, ValueError) as error:
            raise StoreError(f"the labels in its dataset.json are not numbers ({text})") from error
        if highest > 0:
            classes[str(text)] = highest
    if len(classes) > 1:
        raise StoreError(f"its labels are several classes ({', '.join(list(classes)[:4])}), not numbered nodules")
    for name, highest in classes.items():
        return Manifest({}, highest, name)
    return Manifest()


@dataclass(frozen=True)
class FileRecord:
    """A file as it was written."""

    bytes: int
    mtime_ns: int
    sha256: str

    @staticmethod
    def of(path: Path) -> FileRecord:
        """Records a file as it is. Raises OSError."""
        status = path.stat()
        return FileRecord(status.st_size, status.st_mtime_ns, file_sha256(path))

    def fits(self, path: Path, thorough: bool = True) -> bool:
        """Whether the file is still the same; where only its time differs (a copied data set), its content decides.

        Args:
            path: the file as it is now.
            thorough: False trusts the size where only the time differs, for quick tables.
        """
        try:
            status = path.stat()
            if status.st_size != self.bytes:
                return False
            return status.st_mtime_ns == self.mtime_ns or not thorough or file_sha256(path) == self.sha256
        except OSError:
            return False


@dataclass(frozen=True)
class CaseRecord:
    """The manifest's record of a case that was written here."""

    patient: str
    source: str
    fingerprint: str
    content: str
    written: str
    nodules: Mapping[str, str]
    files: Mapping[str, FileRecord]


@dataclass(frozen=True)
class Manifest:
    """The content of the manifest.

    Attributes:
        cases: by name.
        others_highest: the highest label value of the cases that were there before.
        class_name: what the label values together are called in ``dataset.json``.
    """

    cases: Mapping[str, CaseRecord] = field(default_factory=dict)
    others_highest: int = 0
    class_name: str = "nodule"

    @property
    def highest(self) -> int:
        """The highest label value of all cases, at least 1."""
        return max([1, self.others_highest, *(len(case.nodules) for case in self.cases.values())])

    def with_case(self, name: str, case: CaseRecord) -> Manifest:
        """The manifest with a case added or replaced."""
        return Manifest({**self.cases, name: case}, self.others_highest, self.class_name)

    def without(self, name: str) -> Manifest:
        """The manifest without a case."""
        cases = {key: value for key, value in self.cases.items() if key != name}
        return Manifest(cases, self.others_highest, self.class_name)

    def text(self) -> str:
        """Returns the manifest as JSON."""
        cases = {name: asdict(case) for name, case in sorted(self.cases.items())}
        content = {"format": _FORMAT, "class": self.class_name, "others_highest": self.others_highest, "cases": cases}
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def read_manifest(folder: Path) -> Manifest | None:
    """Reads a data set's manifest, None where nothing was written here yet.

    Raises:
        StoreError: it cannot be read; then nothing here may be replaced.
    """
    path = folder / MANIFEST
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
        if content["format"] > _FORMAT:
            raise StoreError(f"{path} was written by a newer version of SAMMed3D: update it, or choose another folder")
        cases = {name: _record(values) for name, values in content["cases"].items()}
        return Manifest(cases, int(content["others_highest"]), str(content["class"]))
    except FileNotFoundError:
        return None
    except StoreError:
        raise
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(
            f"{path} cannot be read ({error}), so it is not known which cases were written here: correct it, or "
            "choose another folder"
        ) from error


def _record(values: dict[str, Any]) -> CaseRecord:
    files = {name: FileRecord(**record) for name, record in values["files"].items()}
    return CaseRecord(**{**values, "files": files})
