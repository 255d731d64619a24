"""``sammed3d_export.json``: which cases of a data set were written here, and from what.

::

    {"format": 1, "class": "nodule", "others_highest": 0,
     "cases": {NAME: {"patient", "source", "fingerprint", "content", "written", "nodules": {"1": "Nodule 1"},
                      "files": {"imagesTr/NAME_0000.nii.gz": {"bytes", "mtime_ns", "sha256"}, ...}}}}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .case_names import StoreError

MANIFEST = "sammed3d_export.json"
_FORMAT = 1


@dataclass(frozen=True)
class FileRecord:
    """A file as it was written."""

    bytes: int
    mtime_ns: int
    sha256: str

    @staticmethod
    def of(path: Path) -> FileRecord:
        """Raises OSError."""
        status = path.stat()
        return FileRecord(status.st_size, status.st_mtime_ns, _sha256(path))

    def fits(self, path: Path, thorough: bool = True) -> bool:
        """Whether the file is still the same. A copied data set has new times: then its content decides.

        Args:
            path: the file as it is now.
            thorough: False trusts the size where only the time differs: for tables.
        """
        try:
            status = path.stat()
            if status.st_size != self.bytes:
                return False
            return status.st_mtime_ns == self.mtime_ns or not thorough or _sha256(path) == self.sha256
        except OSError:
            return False


@dataclass(frozen=True)
class CaseRecord:
    """What is remembered of a case that was written here."""

    patient: str
    source: str
    fingerprint: str
    content: str
    written: str
    nodules: Mapping[str, str]
    files: Mapping[str, FileRecord]


@dataclass(frozen=True)
class Manifest:
    """The whole file.

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
        """As JSON."""
        cases = {name: asdict(case) for name, case in sorted(self.cases.items())}
        content = {"format": _FORMAT, "class": self.class_name, "others_highest": self.others_highest, "cases": cases}
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def read_manifest(folder: Path) -> Manifest | None:
    """A data set's manifest, None where nothing was written here yet.

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
            f"{path} cannot be read ({error}), so that nobody knows which cases were written here: correct it, or "
            "choose another folder"
        ) from error


def _record(values: dict[str, Any]) -> CaseRecord:
    files = {name: FileRecord(**record) for name, record in values["files"].items()}
    return CaseRecord(**{**values, "files": files})


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
