"""Records what results were made from, so that they are not made again while nothing of that has changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from ..inference.errors import InputError
from ..weights import default_checkpoint
from ..weights.download import file_sha256
from .image_file import given_path
from .output_files import write_text_whole

_Content = TypeVar("_Content")


class MadeRecord:
    """A JSON file beside the results; it is written last, so that results without one are unfinished.

    Args:
        path: of the record.
        made_by: what decides the results beside the files: options, weights, version; plain values.
        sources: files that the results are made from.
        base: names of the sources are kept relative to this folder, so that both may move together.
        results: files that have to be there.
    """

    def __init__(
        self, path: Path, made_by: Mapping[str, Any], sources: Sequence[Path], base: Path, results: Sequence[Path]
    ) -> None:
        self._path, self._results = path, results
        self._made_by = json.loads(json.dumps(made_by))  # as it comes back
        self._files = [file for file in sources if file.is_file()]  # of what is missing the reader tells
        self._sources: list[dict[str, Any]] = []
        for file in self._files:
            facts = file.stat()
            name = file.relative_to(base).as_posix() if file.is_relative_to(base) else str(file)
            self._sources.append({"name": name, "bytes": facts.st_size, "time_ns": facts.st_mtime_ns})

    def known(self, decode: Callable[[dict[str, Any]], _Content]) -> _Content | None:
        """Reads an earlier run's record, if its sources and options were the same; None where the work has to be done.

        Files of the same size and time are taken for the same, as by git and rsync; of others the content decides.
        ``decode`` makes what is wanted of the content; what it cannot read, such as an edited one, is done anew.
        """
        then = self._read()
        if (
            then is not None
            and then["made_by"] == self._made_by
            and len(then["sources"]) == len(self._sources)
            and all(result.is_file() for result in self._results)
            and all(map(self._same, then["sources"], self._sources, self._files))
        ):
            with suppress(AttributeError, IndexError, KeyError, TypeError, ValueError):
                return decode(then["content"])
        for source, file in zip(self._sources, self._files, strict=True):
            source["sha256"] = file_sha256(file)
        return None

    def write(self, content: Mapping[str, Any]) -> None:
        """Writes the record of new results, after :meth:`known` returned None. Raises InputError."""
        whole = {"made_by": self._made_by, "sources": self._sources, "content": content}
        write_text_whole(self._path, json.dumps(whole, indent=1, ensure_ascii=False) + "\n")

    def _read(self) -> dict[str, Any] | None:
        try:
            then = json.loads(self._path.read_text(encoding="utf-8"))
            sound = all({"name", "bytes", "time_ns", "sha256"} <= set(source) for source in then["sources"])
            return then if sound and {"made_by", "content"} <= set(then) else None
        except (OSError, ValueError, KeyError, TypeError):  # there is none, or it is damaged
            return None

    @staticmethod
    def _same(then: dict[str, Any], now: dict[str, Any], file: Path) -> bool:
        if (then["name"], then["bytes"]) != (now["name"], now["bytes"]):
            return False
        return then["time_ns"] == now["time_ns"] or then["sha256"] == file_sha256(file)


def weights_of(checkpoint: str | None) -> dict[str, str]:
    """Checksums of the weights that decide results: those that come with the package, and a checkpoint in their place.

    Raises:
        InputError: they cannot be read.
    """
    try:
        bundled = default_checkpoint()
        files = sorted(each for each in bundled.parent.iterdir() if each.is_file())
        weights = {each.name: file_sha256(each) for each in files if checkpoint is None or each != bundled}
        if checkpoint is not None:
            weights["checkpoint"] = file_sha256(given_path(checkpoint))
    except OSError as error:
        raise InputError(
            f"the weights {error.filename or error} cannot be read: {error.strerror or error}; check the checkpoint"
        ) from error
    return weights
