"""All runs of a folder: what they were, what they reached, their place on the disk; renamed and deleted with care."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from . import run_files
from .run_files import RunError
from .run_monitor import RunState
from .run_request import name_problems

_KNOWN_FILES = (run_files.EVENTS, run_files.CONFIG, run_files.PROCESS)


@dataclass(frozen=True)
class RunRecord:
    """One run.

    Attributes:
        state: "running" while it is under way; else as in ``RunStatus``.
        started: its first start; None where it never began.
        ended: its last event.
        config: its configuration, resolved; empty where it has none.
        best_dice: mean validation Dice of its best weights.
        nodules, cases: that it trained on.
        size_bytes: of everything in its folder.
        weights: the best; None before the first save.
        checkpoint: what it started from; None for the bundled model.
        resumable: whether it can be continued.
        message: of its end.
    """

    name: str
    folder: Path
    state: RunState
    started: datetime | None = None
    ended: datetime | None = None
    config: dict[str, Any] | None = None
    best_dice: float | None = None
    nodules: int = 0
    cases: int = 0
    size_bytes: int = 0
    weights: Path | None = None
    checkpoint: Path | None = None
    resumable: bool = False
    message: str = ""

    @property
    def is_running(self) -> bool:
        """Whether a process trains it now."""
        return self.state == "running"


class RunHistory:
    """The runs of one folder.

    Args:
        work_dir: where runs keep their folders; need not be there yet.
    """

    def __init__(self, work_dir: Path) -> None:
        self.work_dir = Path(work_dir)
        self._read: dict[Path, tuple[tuple[int, int], RunRecord]] = {}

    def runs(self) -> list[RunRecord]:
        """All runs, the newest first. What has not changed since the last call is not read again."""
        records = [self._record(folder) for folder in self._folders()]
        oldest = datetime.min.replace(tzinfo=timezone.utc)
        return sorted(records, key=lambda each: (each.ended or each.started or oldest, each.name), reverse=True)

    def rename(self, name: str, new: str) -> Path:
        """Gives a run another name and returns its folder. It can still be resumed.

        Raises:
            RunError: no such run, under way, a name that no folder can have or that is taken, or the system refuses.
        """
        folder = self._idle(name)
        new = new.strip()
        for problem in name_problems(new):
            raise RunError(problem)
        target = self.work_dir / new
        if target.exists() and not (target.samefile(folder) and name != new):
            raise RunError(f"There is a run {new} already: choose another name.")
        try:
            folder.rename(target)
        except OSError as error:
            raise RunError(_refused("renamed", name, error)) from error
        config = run_files.read_config(target)
        if config:
            run_files.write_whole(target / run_files.CONFIG, json.dumps({**config, "task_name": new}, indent=1))
        return target

    def delete(self, name: str) -> int:
        """Removes a run with its weights and returns the freed bytes. Models that were adopted from it stay.

        Raises:
            RunError: no such run, under way, or the system refuses (a file is open in another program, say).
        """
        folder = self._idle(name)
        before = folder_size(folder)
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise RunError(_refused("deleted", name, error)) from error
        self._read.pop(folder, None)
        return before

    def _idle(self, name: str) -> Path:
        """The folder of a run that nobody trains."""
        folder = self.work_dir / name
        if folder not in self._folders():
            raise RunError(f"There is no run {name} in {self.work_dir}.")
        if run_files.lock_is_held(folder):
            raise RunError(f"The run {name} is under way: stop it first.")
        return folder

    def _folders(self) -> list[Path]:
        """Folders that hold a run; links to elsewhere are none of ours."""
        try:
            entries = sorted(self.work_dir.iterdir())
        except OSError:
            return []
        return [
            each
            for each in entries
            if not each.name.startswith(".")
            and each.is_dir()
            and not each.is_symlink()
            and any((each / name).is_file() for name in _KNOWN_FILES)
        ]

    def _record(self, folder: Path) -> RunRecord:
        try:
            state = (folder / run_files.EVENTS).stat()
            stamp = state.st_size, state.st_mtime_ns
        except OSError:
            stamp = -1, -1
        known = self._read.get(folder)
        record = known[1] if known is not None and known[0] == stamp else _read_record(folder)
        self._read[folder] = stamp, record
        weights, saved = run_files.best_weights(folder), (folder / run_files.STATE).is_file()
        ended: RunState = (
            "stopped" if record.state == "killed" and run_files.read_command(folder) == "stop" else record.state
        )
        running = run_files.lock_is_held(folder)
        return replace(
            record,
            state="running" if running else ended,
            size_bytes=folder_size(folder),
            weights=weights,
            resumable=saved and not running and ended != "finished",
        )


def _read_record(folder: Path) -> RunRecord:
    """Reads configuration and events; steps, nearly all of a long run's lines, are skipped."""
    config = run_files.read_config(folder)
    note = run_files.read_process(folder)
    begins = note.offset if note else 0
    first: float | None = None
    last = note.time if note else None
    best, nodules, cases = None, 0, 0
    state: RunState = "killed"
    message, offset = "", 0
    for line in _lines(folder / run_files.EVENTS):
        present, offset = offset >= begins, offset + len(line)
        if line.startswith(b'{"event": "step"'):
            continue
        try:
            event = json.loads(line)
            kind, moment = event["event"], float(event["time"])
        except (ValueError, KeyError, TypeError):
            continue
        first = moment if first is None else first
        last = moment if last is None else max(last, moment)
        if kind == "start":
            nodules, cases = int(event.get("nodules") or 0), int(event.get("cases") or 0)
            best = best if event.get("resumed") else None
            state, message = "killed", ""
        elif kind == "validation":
            best = event.get("mean_dice") if event.get("best") else best
        elif kind == "end" and present and state == "killed":
            reason, message = event.get("reason"), str(event.get("message", ""))
            state = reason if reason in ("finished", "stopped") else "failed"
    checkpoint = config.get("checkpoint")
    return RunRecord(
        folder.name,
        folder,
        state,
        _moment(last if first is None else first),
        _moment(last),
        config,
        best,
        nodules,
        cases,
        checkpoint=Path(checkpoint) if isinstance(checkpoint, str) else None,
        message=message,
    )


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines(keepends=True)
    except OSError:
        return []


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).astimezone()


def folder_size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    total = 0
    for parent, __, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118  os.walk gives strings
            except OSError:
                continue
    return total


def _refused(what: str, name: str, error: OSError) -> str:
    return (
        f"The run {name} could not be {what}: {error.strerror or error}. Close programs that have its files open "
        "and try again."
    )
