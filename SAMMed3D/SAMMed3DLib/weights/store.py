"""The only owner of checkpoint files: what there is, where it lies, how it comes and goes.

A store is a folder::

    sam_med3d_turbo.pth       downloads, by their name in the catalog (.pth.part while they are coming)
    finetuned/NAME.pth        models trained here; whatever appears in this folder appears in the list
    files.json                checkpoint files that lie elsewhere and were chosen: remembered, never copied

No torch is needed but for :meth:`WeightsStore.add_file`, which reads the file. Every method may be called from any
thread; those that take long say so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ..torch_setup.loading import load_torch
from . import default_checkpoint
from .catalog import APACHE_2, CATALOG, DETECTOR, CatalogModel, ModelEntry, ModelKind, WeightsError
from .download import Progress, discard_part, download, file_sha256, part_path

BUNDLED = "nodule"
FINETUNED_FOLDER = "finetuned"
_ENDING, _LIST = ".pth", "files.json"


@dataclass(frozen=True)
class ChosenFile:
    """A checkpoint file that a user chose somewhere.

    Attributes:
        name: unique among all models of the store.
        path: absolute.
        architecture: the network, found when it was chosen.
        sha256: of the file, when it was chosen.
    """

    name: str
    path: str
    architecture: str
    sha256: str


def default_folder() -> Path:
    """The folder for checkpoints where no application names one, as each system wants it."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "SAMMed3D"


def read_architecture(path: Path) -> str:
    """The network that a checkpoint is of, found by loading all of it (a second or two). Nothing stored in it is run.

    Raises:
        WeightsError: not a checkpoint of a known network, or PyTorch is missing.
    """
    with _checking():
        from ..model import load_model

        return load_model(path).name


def check_detector(path: Path) -> None:
    """Reads all of a detector's file (a second). Nothing stored in it is run.

    Raises WeightsError: it is none, or PyTorch is missing.
    """
    with _checking():
        from ..model.retina_net import load_retina_net

        load_retina_net(path)


@contextmanager
def _checking() -> Iterator[None]:
    """Loads PyTorch; what it lacks, and what is wrong with the file that is then read, is told as WeightsError."""
    try:
        load_torch()
        from ..model import CheckpointError
    except (ImportError, OSError) as error:  # OSError: a part of PyTorch that does not fit this system
        raise WeightsError("The file cannot be checked without a working PyTorch: install it first.") from error
    try:
        yield
    except CheckpointError as error:
        raise WeightsError(str(error)) from error


class WeightsStore:
    """The checkpoints of one folder, the bundled one, and the files chosen elsewhere.

    Args:
        folder: the store; made when first written to.
        catalog: what can be downloaded.
        read: tells a checkpoint's architecture, or raises WeightsError.
        detector: the detector of the thorough search.
        check: raises WeightsError for a file that is none.
    """

    def __init__(
        self,
        folder: Path | None = None,
        catalog: Sequence[CatalogModel] = CATALOG,
        read: Callable[[Path], str] = read_architecture,
        detector: CatalogModel = DETECTOR,
        check: Callable[[Path], None] = check_detector,
    ) -> None:
        self.folder = Path(folder) if folder is not None else default_folder()
        self._catalog, self._read = tuple(catalog), read
        self._detector, self._check = detector, check
        self._seen = self._fingerprint()

    # The list

    def entries(self) -> list[ModelEntry]:
        """All models: the bundled one, the catalog, fine-tuned ones (newest first), chosen files (newest last)."""
        chosen = self._chosen()
        return [
            self._bundled(),
            *(self._download(model) for model in self._catalog),
            *(self._finetuned(file) for file in self._finetuned_files()),
            *(self._file(each) for each in chosen if each.name != self._detector.name),
        ]

    def detector(self) -> ModelEntry:
        """The detector of the thorough search, which is no model to choose: the chosen file, else the download."""
        chosen = next((each for each in self._chosen() if each.name == self._detector.name), None)
        return self._download(self._detector) if chosen is None else self._detector_file(Path(chosen.path))

    def entry(self, name: str) -> ModelEntry:
        """The model or detector of that name. Raises WeightsError with the names there are."""
        entries = [*self.entries(), *([self.detector()] if name == self._detector.name else [])]
        for each in entries:
            if each.name == name:
                return each
        known = ", ".join(each.name for each in entries)
        raise WeightsError(f"There is no model {name!r}; there are {known}.")

    def checkpoint(self, name: str) -> Path:
        """The file to load. Raises WeightsError where it is not there, with what to do."""
        entry = self.entry(name)
        if entry.installed and entry.path is not None:
            return entry.path
        if entry.kind is ModelKind.CATALOG:
            raise WeightsError(f"{entry.title} is not on this computer: download it first.")
        if entry.kind is ModelKind.BUNDLED:
            raise WeightsError(entry.note)
        raise WeightsError(f"{entry.path} is gone: put it back, or remove it from the list.")

    def refresh(self) -> bool:
        """Whether the list may have changed since the last call, such as by a training that has ended. Cheap."""
        before, self._seen = self._seen, self._fingerprint()
        return before != self._seen

    def disk_use(self) -> int:
        """Bytes of everything in the store's folder; the bundled model and files elsewhere do not count."""
        total = 0
        for folder, __unused, names in os.walk(self.folder):
            for name in names:
                total += _size(Path(folder, name))
        return total

    # What changes it

    def download(self, name: str, progress: Progress | None = None) -> ModelEntry:
        """Fetches a model of the catalog, going on where an earlier try stopped (minutes).

        Raises:
            WeightsError: nothing of that name can be downloaded.
            DownloadError, DownloadCancelled: as :func:`.download.download`.
        """
        model = self._in_catalog(name)
        detects = model is self._detector
        exact = model.size_bytes if model.sha256 is None and not detects else None
        download(model.url, self._target(model), sha256=model.sha256, size=exact, progress=progress)
        if detects:
            try:
                self._check(self._target(model))
            except WeightsError:
                self._target(model).unlink(missing_ok=True)
                raise
        return self._download(model)

    def add_file(self, path: str | os.PathLike[str]) -> ModelEntry:
        """Puts a checkpoint that lies anywhere on the list, after reading it (a second or two). It is not copied.

        Raises:
            WeightsError: it cannot be read, or is no checkpoint of a known network.
        """
        file = Path(path).expanduser().absolute()
        for entry in self.entries():
            if entry.kind is not ModelKind.FILE and entry.path is not None and _same(entry.path, file):
                return entry
        with _readable(file):
            architecture, sha256 = self._read(file), file_sha256(file)
        others = [each for each in self._chosen() if Path(each.path) != file]
        taken = {self._detector.name, *(each.name for each in self.entries() if each.path != file)}
        added = ChosenFile(_free_name(file.stem, taken), str(file), architecture, sha256)
        with self._writable():
            self._remember([*others, added])
        return self._file(added)

    def add_detector(self, path: str | os.PathLike[str]) -> ModelEntry:
        """Takes a file that lies anywhere as the detector, after reading it (a second). It is not copied.

        Raises:
            WeightsError: it cannot be read, or is no such detector.
        """
        file = Path(path).expanduser().absolute()
        with _readable(file):
            self._check(file)
            sha256 = file_sha256(file)
        name = self._detector.name
        others = [each for each in self._chosen() if each.name != name and Path(each.path) != file]
        with self._writable():
            self._remember([*others, ChosenFile(name, str(file), name, sha256)])
        return self._detector_file(file)

    def remove(self, name: str) -> None:
        """Deletes a download (also an unfinished one) or a fine-tuned model; a chosen file is only forgotten.

        Raises:
            WeightsError: unknown, bundled, or the system refuses.
        """
        entry = self.entry(name)
        if not entry.removable:
            reason = "comes with SAMMed3D and stays" if entry.kind is ModelKind.BUNDLED else "is not on this computer"
            raise WeightsError(f"{entry.title} {reason}: there is nothing to remove.")
        if entry.kind is ModelKind.FILE:
            with self._writable():
                self._remember([each for each in self._chosen() if each.name != name])
            return
        with self._writable():
            if entry.kind is ModelKind.CATALOG:
                target = self._target(self._in_catalog(name))
                discard_part(target)
                target.unlink(missing_ok=True)
            elif entry.path is not None:
                entry.path.unlink(missing_ok=True)

    def finetuned_path(self, name: str) -> Path:
        """Returns where to save a new fine-tuned model: a free file name, made of ``name``, in an existing folder.

        Raises WeightsError where the folder cannot be made.
        """
        folder = self.folder / FINETUNED_FOLDER
        with self._writable():
            folder.mkdir(parents=True, exist_ok=True)
        taken = {each.name for each in self.entries()} | {file.stem for file in folder.iterdir()}
        return folder / f"{_free_name(name, taken)}{_ENDING}"

    def adopt(self, path: str | os.PathLike[str], name: str) -> ModelEntry:
        """Copies a checkpoint into the store as a fine-tuned model, after reading it (seconds).

        Raises:
            WeightsError: it cannot be read, is no checkpoint of a known network, or cannot be copied.
        """
        source = Path(path)
        with _readable(source):
            self._read(source)
        target = self.finetuned_path(name)
        temporary = target.with_name(f".{target.name}.tmp")
        with self._writable():
            try:
                shutil.copyfile(source, temporary)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
        return self._finetuned(target)

    # One entry of each kind

    def _bundled(self) -> ModelEntry:
        try:
            path, note = default_checkpoint(), "The compact model for lung nodules: the fastest, and the default."
        except FileNotFoundError as error:
            path, note = None, str(error)
        return ModelEntry(
            BUNDLED,
            "Nodule model (bundled)",
            ModelKind.BUNDLED,
            path,
            _size(path),
            APACHE_2,
            "SAMMed3D",
            note,
            removable=False,
            installed=path is not None,
        )

    def _download(self, model: CatalogModel) -> ModelEntry:
        target = self._target(model)
        begun, installed = _size(part_path(target)), target.is_file()
        verified = (
            "its weights are compared with the network" if model is self._detector else "only its size is verified"
        )
        note = model.note + (
            " Verified by its SHA-256." if model.sha256 else f" No SHA-256 of it is known: {verified}."
        )
        if begun:
            note += f" {begun / 1e6:.0f} of {model.size_bytes / 1e6:.0f} MB have come; Download goes on from there."
        return ModelEntry(
            model.name,
            model.title,
            ModelKind.CATALOG,
            target if installed else None,
            _size(target) if installed else model.size_bytes,
            model.license,
            model.source,
            note,
            removable=installed or begun > 0,
            installed=installed,
            sha256=model.sha256,
        )

    def _finetuned(self, file: Path) -> ModelEntry:
        reserved = {BUNDLED, *(model.name for model in self._catalog)}
        title = f"{file.stem} (fine-tuned)"
        return ModelEntry(
            title if file.stem in reserved else file.stem,
            title,
            ModelKind.FINETUNED,
            file,
            _size(file),
            "as the model it was trained from",
            str(file),
            "Trained on this computer.",
        )

    def _file(self, chosen: ChosenFile) -> ModelEntry:
        path = Path(chosen.path)
        there = path.is_file()
        known = next((model for model in self._catalog if model.sha256 == chosen.sha256), None)
        what = f"{known.title}, known by its SHA-256." if known else f"A network of the kind {chosen.architecture}."
        return ModelEntry(
            chosen.name,
            known.title if known else chosen.name,
            ModelKind.FILE,
            path,
            _size(path),
            known.license if known else "not known: ask whoever made the file",
            chosen.path,
            what if there else "The file is gone: put it back, or remove it from the list.",
            installed=there,
            sha256=chosen.sha256,
        )

    def _detector_file(self, file: Path) -> ModelEntry:
        model, there = self._detector, file.is_file()
        note = " Its weights were compared with the network." if there else " The file is gone: choose it again."
        return ModelEntry(
            model.name,
            model.title,
            ModelKind.FILE,
            file,
            _size(file) if there else model.size_bytes,
            model.license,
            str(file),
            model.note + note,
            installed=there,
        )

    # Files

    def _chosen(self) -> list[ChosenFile]:
        """Reads the list of chosen files anew, since two programs may use it; a missing or damaged one is empty."""
        try:
            found = [ChosenFile(**each) for each in json.loads((self.folder / _LIST).read_text(encoding="utf-8"))]
        except (OSError, ValueError, TypeError):
            return []
        return [each for each in found if all(isinstance(value, str) for value in asdict(each).values())]

    def _remember(self, files: Sequence[ChosenFile]) -> None:
        """Replaces the list of chosen files, at once. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{_LIST}.tmp"
        temporary.write_text(json.dumps([asdict(each) for each in files], indent=2), encoding="utf-8")
        temporary.replace(self.folder / _LIST)

    def _in_catalog(self, name: str) -> CatalogModel:
        for model in (*self._catalog, self._detector):
            if model.name == name:
                return model
        names = ", ".join(model.name for model in self._catalog)
        raise WeightsError(f"{name!r} cannot be downloaded; what can is {names}.")

    def _target(self, model: CatalogModel) -> Path:
        return self.folder / f"{model.name}{_ENDING}"

    def _finetuned_files(self) -> list[Path]:
        """The fine-tuned checkpoint files, newest first; hidden ones are still being written."""
        found = []
        for file in _listed(self.folder / FINETUNED_FOLDER):
            if file.suffix.lower() == _ENDING and not file.name.startswith(".") and file.is_file():
                found.append((-file.stat().st_mtime_ns, file.name, file))
        return [file for *__unused, file in sorted(found)]

    def _fingerprint(self) -> tuple[object, ...]:
        files = [*_listed(self.folder), *_listed(self.folder / FINETUNED_FOLDER)]
        files += [Path(each.path) for each in self._chosen()]
        return tuple((str(file), *_state(file)) for file in files)

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise WeightsError(
                f"{error.filename or self.folder} cannot be changed: {error.strerror or error}. Choose "
                "another model first if it is in use, or check the folder's permissions."
            ) from error


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WeightsError(f"{file} cannot be read: {error.strerror or error}.") from error


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _state(file: Path) -> tuple[int, int]:
    try:
        state = file.stat()
    except OSError:
        return (0, -1)
    return (state.st_mtime_ns, state.st_size)


def _size(file: Path | None) -> int:
    return max(_state(file)[1], 0) if file is not None else 0


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _free_name(wanted: str, taken: set[str]) -> str:
    """A name that is a safe file name on every system and not taken."""
    name = re.sub(r"[^\w.+-]+", "_", wanted).strip("._") or "model"
    if name.upper() in {"CON", "PRN", "AUX", "NUL"}:
        name += "_"
    lower, free, number = {each.lower() for each in taken}, name, 1
    while free.lower() in lower:
        number += 1
        free = f"{name}-{number}"
    return free
