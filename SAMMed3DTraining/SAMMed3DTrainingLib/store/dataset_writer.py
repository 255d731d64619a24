"""Adds, updates and removes the cases of a data set, one by one; the only writer of its files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..data.case_names import StoreError, safe_case_name, same_name, unique_case_name
from . import dataset_files
from .dataset_files import (
    DESCRIPTION,
    MANIFEST,
    CaseFiles,
    CaseRecord,
    FileRecord,
    Manifest,
    adopt,
    case_files,
    describe,
    image_file,
    label_file,
    read_description,
    read_manifest,
)
from .export_case import ExportCase, StoredCase, WriteOutcome, content_digest
from .file_moves import STAGING, FileMoves, complete, discard_staged, is_pending, one_writer
from .nifti_file import Progress, check_case, stored_image, stored_labels, write_nifti

#: Largest shares of the voxels' bytes that a gzipped CT and a label map take, as far as seen, and bytes in reserve.
_IMAGE_SHARE, _LABEL_SHARE, _RESERVE = 0.8, 0.02, 16 << 20


class DatasetWriter:
    """Writes cases into a folder in nnU-Net's layout, which may exist already, with cases of others in it.

    Only cases that were written here, and not changed by anybody else since, are ever replaced or removed; the
    manifest says which. Every method may be called from any thread; :meth:`put` takes seconds. At
    any moment, also after a kill or with a full disk, a case is either wholly there or not at all.

    Args:
        folder: the data set; made by the first case. Nothing is written before.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser().absolute()
        if is_pending(self.folder):
            # Without the right to write, or while another program is at work, it stays for later.
            try:
                with one_writer(self.folder):
                    complete(self.folder)
            except StoreError:
                return

    @property
    def problem(self) -> str:
        """Returns why no case can be written into the folder, "" where one can."""
        try:
            self._check_place()
            self._manifest()
        except StoreError as error:
            return str(error)
        return ""

    def cases(self) -> tuple[StoredCase, ...]:
        """Lists all cases of the data set, those of others too; quick, no image is opened.

        Raises:
            StoreError: the folder cannot be read.
        """
        manifest = read_manifest(self.folder) or Manifest()
        patients = read_description(self.folder).get("patients")
        patients = patients if isinstance(patients, dict) else {}
        return tuple(
            _stored(self.folder, files, manifest.cases.get(files.name), str(patients.get(files.name, "")))
            for files in self._files()
        )

    def put(self, case: ExportCase, progress: Progress | None = None) -> WriteOutcome:
        """Adds a case, or updates it where it was written here; unchanged files are not touched.

        Args:
            case: its arrays may not change meanwhile.
            progress: called with the share done (0 to 1); returning False stops.

        Raises:
            StoreError: the name is taken by a case of somebody else or by another image, the case or the folder cannot
                be used, the disk is full, another program writes here. The data set is as it was.
            ExportCancelled: progress returned False; the data set is as it was.
        """
        if safe_case_name(case.name) != case.name:
            raise StoreError(f"{case.name!r} is no name for files on every system: use {safe_case_name(case.name)!r}")
        self._check_length(case.name)
        check_case(case)
        image, labels = stored_image(case.array_kji), stored_labels(case)
        content = content_digest(case)
        with self._locked():
            manifest = self._manifest()
            existing = self._existing(case.name)
            record = manifest.cases.get(case.name)
            if existing is not None:
                _check_own(self.folder, case.name, existing, manifest)
                if record is not None and record.source != case.source:
                    raise StoreError(
                        f"case {case.name} is another image: choose another name, or remove the old case first"
                    )
                if record is not None and record.content == content and _is_complete(self.folder, record):
                    return self._unchanged(case, record, manifest)
            self._check_space(image.size, image.itemsize)
            moves = FileMoves(self.folder)
            with _whole(moves, self.folder):
                total, files = image.nbytes + labels.nbytes, {}
                for target, array, is_label, before in (
                    (label_file(case.name), labels, True, 0),
                    (image_file(case.name), image, False, labels.nbytes),
                ):
                    part = moves.add(target)
                    share = _part_of(progress, before / total, array.nbytes / total)
                    write_nifti(part, array, case.ijk_to_ras, is_label, share)
                    files[target] = FileRecord.of(part)
                self._stage_lists(moves, manifest.with_case(case.name, _record(case, content, files)), case.name)
                moves.commit()
        return "added" if existing is None else "updated"

    def remove(self, name: str) -> None:
        """Removes a case that was written here.

        Raises:
            StoreError: there is none, or somebody else wrote or changed it.
        """
        with self._locked():
            manifest = self._manifest()
            existing = self._existing(name)
            if name not in manifest.cases:
                raise StoreError(f"case {name} was not written here: remove it by hand if it is to go")
            _check_own(self.folder, name, existing, manifest)
            manifest = manifest.without(name)
            moves = FileMoves(self.folder)
            paths = [] if existing is None else [*existing.images, *existing.labels]
            moves.remove([path.relative_to(self.folder).as_posix() for path in paths])
            with _whole(moves, self.folder):
                self._stage_lists(moves, manifest, without=name)
                moves.commit()

    def _unchanged(self, case: ExportCase, record: CaseRecord, manifest: Manifest) -> WriteOutcome:
        if record.fingerprint != case.fingerprint:
            moves = FileMoves(self.folder)
            with _whole(moves, self.folder):
                self._stage_lists(moves, manifest.with_case(case.name, _record(case, record.content, record.files)))
                moves.commit()
        return "unchanged"

    def _stage_lists(self, moves: FileMoves, manifest: Manifest, added: str = "", without: str = "") -> None:
        """Stages the manifest and ``dataset.json`` as they are after the change."""
        names = {files.name for files in self._files() if files.part == "Tr" and files.images} | {added}
        training = len(names - {"", without})
        text = describe(self._description(without), manifest, self.folder.name, training)
        moves.add_text(MANIFEST, manifest.text())
        moves.add_text(DESCRIPTION, text)

    def _description(self, without: str) -> dict[str, Any]:
        description = read_description(self.folder)
        patients = description.get("patients")
        if without and isinstance(patients, dict):
            description["patients"] = {name: patient for name, patient in patients.items() if name != without}
        return description

    def _manifest(self) -> Manifest:
        """Reads or makes the manifest. Raises StoreError where nothing can be added to the folder."""
        manifest = read_manifest(self.folder)
        if manifest is not None:
            return manifest
        try:
            return adopt(read_description(self.folder), bool(self._files()))
        except StoreError as error:
            raise StoreError(
                f"nothing can be added to {self.folder}: {error}. Choose another folder (this one can be trained on as "
                "it is)"
            ) from error

    def _files(self) -> tuple[CaseFiles, ...]:
        try:
            return case_files(self.folder)
        except OSError as error:
            raise StoreError(f"{self.folder} cannot be read: {error.strerror or error}") from error

    def _existing(self, name: str) -> CaseFiles | None:
        found = [files for files in self._files() if same_name(files.name, name)]
        for files in found:
            if files.name != name or files.part != "Tr":
                raise StoreError(f"case {name} would be mistaken for {files.name} in images{files.part}: rename it")
        return found[0] if found else None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._check_place()
        try:
            (self.folder / STAGING).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _refused(self.folder, error) from error
        with one_writer(self.folder):
            complete(self.folder)
            discard_staged(self.folder)
            yield

    def _check_place(self) -> None:
        place = _nearest(self.folder)
        if not place.is_dir():
            raise StoreError(f"{place} is a file: choose a folder for the data set")
        if not os.access(place, os.W_OK | os.X_OK):
            raise StoreError(f"nothing can be written in {place}: it is read-only; choose another folder")

    def _check_length(self, name: str) -> None:
        longest = max(len(str(self.folder / target)) for target in (image_file(name), label_file(name)))
        if longest > dataset_files.LONGEST_PATH:
            raise StoreError(
                f"the path of case {name} would be {longest} characters long, {dataset_files.LONGEST_PATH} are "
                "allowed: choose a shorter name, or a folder nearer to the root"
            )

    def _check_space(self, voxels: int, bytes_per_voxel: int) -> None:
        needed = int(voxels * (bytes_per_voxel * _IMAGE_SHARE + _LABEL_SHARE)) + _RESERVE
        free = shutil.disk_usage(_nearest(self.folder)).free
        if free < needed:
            raise StoreError(
                f"the disk of {self.folder} is nearly full: {free / 1e6:.0f} MB are free, {needed / 1e6:.0f} MB are "
                "needed. Free some space or choose another folder"
            )


def name_for(cases: Sequence[StoredCase], wanted: str, source: str, taken: Sequence[str] = ()) -> str:
    """Chooses the name to store an image under: its old one where it was written here before.

    Args:
        cases: of the data set.
        wanted: name for a new image.
        source: identifies the image (:func:`.export_case.image_source`).
        taken: names that others are about to get.
    """
    for case in cases:
        if case.source and case.source == source:
            return case.name
    return unique_case_name(wanted, [*(case.name for case in cases), *taken])


def _stored(folder: Path, files: CaseFiles, record: CaseRecord | None, patient: str) -> StoredCase:
    missing = "" if files.images and (files.labels or files.part == "Ts") else _missing(files)
    if record is None or files.part != "Tr":
        return StoredCase(files.name, files.part, problem=missing, patient=patient)
    own = _is_own(folder, files, record, thorough=False)
    problem = missing or ("" if own else "changed by another program since it was written here")
    nodules = {int(value): name for value, name in record.nodules.items()}
    return StoredCase(
        files.name, "Tr", own, problem, record.patient, nodules, record.written, record.source, record.fingerprint
    )


def _missing(files: CaseFiles) -> str:
    return f"labels{files.part} holds no label map for it" if files.images else f"images{files.part} holds no image"


def _is_own(folder: Path, files: CaseFiles, record: CaseRecord, thorough: bool) -> bool:
    for path in (*files.images, *files.labels):
        known = record.files.get(path.relative_to(folder).as_posix())
        if known is None or not known.fits(path, thorough):
            return False
    return True


def _is_complete(folder: Path, record: CaseRecord) -> bool:
    return all((folder / name).is_file() for name in record.files)


def _check_own(folder: Path, name: str, existing: CaseFiles | None, manifest: Manifest) -> None:
    record = manifest.cases.get(name)
    if existing is None:
        return
    if record is None:
        raise StoreError(f"case {name} is there already and was not written here: choose another name")
    if not _is_own(folder, existing, record, thorough=True):
        raise StoreError(
            f"case {name} was changed by another program since it was written here: it is left as it is. Move its "
            "files away, or choose another name"
        )


def _record(case: ExportCase, content: str, files: Mapping[str, FileRecord]) -> CaseRecord:
    nodules = {str(value): name for value, name in sorted(case.nodules.items())}
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return CaseRecord(case.patient, case.source, case.fingerprint, content, now, nodules, files)


def _part_of(progress: Progress | None, start: float, share: float) -> Callable[[float], bool | None] | None:
    return None if progress is None else lambda done: progress(start + share * done)


@contextmanager
def _whole(moves: FileMoves, folder: Path) -> Iterator[None]:
    """Discards staged files when anything fails before the change counts."""
    try:
        yield
    except OSError as error:
        moves.discard()
        raise _refused(folder, error) from error
    except BaseException:
        moves.discard()
        raise


def _refused(folder: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{folder} could not be written: {error.strerror or error}; nothing was changed. Free some space or choose "
        "another folder"
    )


def _nearest(folder: Path) -> Path:
    """Returns the folder itself, or the nearest one above that exists."""
    for place in (folder, *folder.parents):
        if place.exists():
            return place
    return folder
