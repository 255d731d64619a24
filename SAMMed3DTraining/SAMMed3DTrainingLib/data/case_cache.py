"""Cases unpacked once: a scan as a memory map, its nodules as blocks, so that a sample reads only what it needs."""

from __future__ import annotations

import hashlib
import json
import mmap
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from SAMMed3DLib.commandline.terminal import our_warnings_told
from SAMMed3DLib.files.output_files import temporary_folder

from .datasets import Case, Dataset, DatasetError, load_finite_case
from .instances import LabelledNodule

_VERSION = 3


@dataclass(frozen=True, eq=False)
class CachedCase:
    """A case ready for random access.

    Attributes:
        array_kji: (K, J, I) HU, a read-only memory map.
        ijk_to_ras: (4, 4).
        nodules: all of its nodules.
    """

    case: Case
    array_kji: NDArray
    ijk_to_ras: NDArray[np.float64]
    nodules: tuple[LabelledNodule, ...]

    @property
    def labels(self) -> str:
        """A digest of the nodules, which changes with the outline, value or place of any of them."""
        known = hashlib.sha256()
        for nodule in self.nodules:
            known.update(repr((nodule.value, nodule.offset_kji, nodule.mask.shape)).encode())
            known.update(np.packbits(nodule.mask).tobytes())
        return known.hexdigest()[:24]

    def __getstate__(self) -> dict[str, Any]:
        """Pickles the scan as its file's name, not its voxels, for processes that are not forked (Windows, macOS)."""
        array = self.array_kji
        file = None
        if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap):  # no view of a part
            file = array.filename
        return {**self.__dict__, "array_kji": array if file is None else Path(file)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        array = state["array_kji"]
        if isinstance(array, Path):
            array = np.load(array, mmap_mode="r", allow_pickle=False)
        self.__dict__.update({**state, "array_kji": array})


class CaseCache:
    """Unpacked copies of cases in a folder; a changed image or label map is unpacked again.

    Args:
        folder: made when needed; may be deleted at any time between runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, case: Case, dataset: Dataset) -> CachedCase:
        """A case, from the cache or from its files.

        Raises:
            DatasetError: the case cannot be read, its label map does not fit, it holds NaN or infinite values, or the
                disk is full.
        """
        entry = self.folder / self._key(case, dataset)
        if not (entry / "case.json").is_file():
            self._unpack(case, dataset, entry)
        try:
            description = json.loads((entry / "case.json").read_text(encoding="utf-8"))
            array = np.load(entry / "image.npy", mmap_mode="r", allow_pickle=False)
            with np.load(entry / "nodules.npz", allow_pickle=False) as masks:
                nodules = tuple(
                    LabelledNodule(
                        n["value"],
                        n["component"],
                        np.unpackbits(masks[str(index)], count=int(np.prod(n["shape"]))).reshape(n["shape"]) > 0,
                        tuple(n["offset_kji"]),
                        n["volume_mm3"],
                    )
                    for index, n in enumerate(description["nodules"])
                )
            for doubt in description["doubts"]:  # every run is to hear them, not the first alone
                warnings.warn(f"case {case.full_name}: {doubt}", stacklevel=2)
            return CachedCase(case, array, np.array(description["ijk_to_ras"]), nodules)
        except (OSError, ValueError, KeyError) as error:
            raise DatasetError(f"the cached copy of {case.full_name} is damaged ({error}): delete {entry}") from error

    def _unpack(self, case: Case, dataset: Dataset, entry: Path) -> None:
        doubts: list[str] = []
        with our_warnings_told(doubts.append):
            loaded = load_finite_case(case, dataset.ignored_values)
        description = {
            "doubts": doubts,
            "ijk_to_ras": loaded.ijk_to_ras.tolist(),
            "nodules": [
                {
                    "value": n.value,
                    "component": n.component,
                    "offset_kji": list(n.offset_kji),
                    "shape": list(n.mask.shape),
                    "volume_mm3": n.volume_mm3,
                }
                for n in loaded.nodules
            ],
        }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary_folder(self.folder) as part:
                whole = part / "entry"
                whole.mkdir()
                np.save(whole / "image.npy", loaded.array_kji, allow_pickle=False)
                masks = {str(i): np.packbits(n.mask) for i, n in enumerate(loaded.nodules)}
                np.savez(whole / "nodules.npz", **masks)  # type: ignore[arg-type]  # stubs: any name is "allow_pickle"
                (whole / "case.json").write_text(json.dumps(description), encoding="utf-8")
                if (entry / "case.json").is_file():  # another process was faster
                    return
                shutil.rmtree(entry, ignore_errors=True)
                whole.replace(entry)
        except OSError as error:
            raise DatasetError(
                f"case {case.full_name} could not be unpacked to {self.folder}: {error.strerror or error}; "
                "free disk space or choose another work folder"
            ) from error

    def _key(self, case: Case, dataset: Dataset) -> str:
        """Name of the case's entry: changes with its files."""
        parts: list[object] = [_VERSION, sorted(dataset.ignored_values)]
        for path in (case.image, case.label):
            if path is not None:
                try:
                    state = path.stat()
                except OSError as error:
                    raise DatasetError(f"case {case.full_name}: {path} cannot be read: {error.strerror}") from error
                parts += [str(path.resolve()), state.st_size, state.st_mtime_ns]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]
