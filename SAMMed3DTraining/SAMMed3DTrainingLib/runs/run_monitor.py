"""Follows a run through its folder: one started here, or one found on disk that goes on by itself.

A poll reads what is new in two files and asks the system whether the process lives: about 0.1 ms.
"""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from . import run_files
from .child_process import AttachedProcess, ChildProcess
from .json_lines import GrowingFile, JsonLines
from .run_files import Command, ProcessNote, RunError
from .run_request import TrainingRequest

_LOG_LINES = 200
_WARNINGS = 50
#: How often the lock is tried, which is dearer than a look at a child of this process.
_LOCK_SECONDS = 0.25
_FULL_DISK = 2**20
RunState = Literal["starting", "encoding", "running", "paused", "stopping", "finished", "stopped", "failed", "killed"]
OVER: tuple[RunState, ...] = ("finished", "stopped", "failed", "killed")


class RunMonitor:
    """Follows one run.

    Args:
        folder: of the run.
        process: what was started for it just now; None for a run found on disk, which may be over or under way.
        clock: seconds, for the pace of looks at the lock.
        wall: seconds since 1970, for the time that has gone by.
    """

    def __init__(
        self,
        folder: Path,
        process: ChildProcess | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self._own = process is not None
        self._process: ChildProcess = process if process is not None else AttachedProcess(folder)
        self._clock, self._wall = clock, wall
        self._events = JsonLines(folder / run_files.EVENTS)
        self._log = GrowingFile(folder / run_files.LOG, self._process.log_offset)
        self._log_lines: deque[str] = deque(maxlen=_LOG_LINES)
        self._stamps: dict[str, int] = {}
        self._restarts = 0
        self._note: ProcessNote | None = None
        self._command: Command = "run"
        self._stop_asked = False
        self._lock_held, self._lock_seen = True, -math.inf
        self._curves = Curves()
        #: Byte of events.jsonl at which the events of the present process begin.
        self._begins: float = math.inf if self._own else 0.0
        self._end: dict[str, Any] | None = None
        self._first_encoding: dict[str, Any] | None = None
        self._phase: RunState = "starting"
        self._verdict: tuple[object, object] | None = None
        self.status = RunStatus(curves=self._curves)

    # -- what can be asked of the run --------------------------------------------------------------------------------

    def pause(self) -> None:
        """Pauses after the step under way, with everything saved. Raises RunError."""
        self._ask("pause")

    def resume(self) -> None:
        """Goes on after a pause. Raises RunError."""
        self._ask("run")

    def stop(self) -> None:
        """Ends the run after the step under way, with everything saved; at once while it is only starting.

        Raises:
            RunError: it cannot be asked.
        """
        self._stop_asked = True
        self._ask("stop")
        if self.status.state == "starting":
            self._process.terminate()

    def kill(self, grace_s: float = 0.0) -> None:
        """Ends the run's process and all that come from it; what was saved last stays. Raises RunError."""
        self._stop_asked = True
        with suppress(RunError):  # a full disk does not keep it alive
            self._ask("stop")
        self._process.kill_tree(grace_s)
        if self._own and self._note is not None:  # a launcher may have ended before what it had started
            AttachedProcess(self.folder).kill_tree(grace_s)

    def _ask(self, command: Command) -> None:
        run_files.write_command(self.folder, command)
        self._command = command

    # -- looking -----------------------------------------------------------------------------------------------------

    def poll(self) -> RunStatus:
        """The run now."""
        self._read_note()
        code = self._exit_code()  # before the events: what a dead process has written is all there
        events = self._events.read()
        self._read_note()  # after the events: whose they are was noted before them
        if self._events.restarts != self._restarts:
            self._restarts = self._events.restarts
            self._forget()
        for offset, event in events:
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                with suppress(KeyError, TypeError, ValueError, AttributeError):  # a line of another version of us
                    self._take(event, offset >= self._begins)
        log = [text for __, line in self._log.lines() if (text := line.decode("utf-8", "replace").rstrip())]
        self._log_lines.extend(log)
        self._read_command()
        self._conclude(code)
        if log:
            self._set(log=tuple(self._log_lines))
        self._set(elapsed_s=self._elapsed())
        return self.status

    def _exit_code(self) -> int | None:
        """None while the run is alive."""
        code = self._process.poll() if self._own else None
        if self._own and code is None:
            return None
        # A launcher, such as PythonSlicer, may end before the process that trains.
        if self._own and self._note is None:
            return code
        if self._clock() - self._lock_seen >= _LOCK_SECONDS:
            self._lock_seen = self._clock()
            self._lock_held = run_files.lock_is_held(self.folder)
        return None if self._lock_held else (code or 0)

    def _read_note(self) -> None:
        """Whether another process has taken over; events of those before it are history."""
        if not self._changed(run_files.PROCESS):
            return
        note = run_files.read_process(self.folder)
        if note is None or note == self._note or (self._own and note.session != self._process.session):
            return
        self._note, self._begins = note, note.offset
        self._phase, self._end, self._first_encoding = "starting", None, None
        self._lock_seen = -math.inf
        self._set(warnings=(), message="", kind="", suggestion=None, started=note.time, left_s=None)

    def _read_command(self) -> None:
        if self._changed(run_files.CONTROL):
            self._command = run_files.read_command(self.folder)

    def _changed(self, name: str) -> bool:
        """Whether a small file was written since the last question."""
        try:
            stamp = (self.folder / name).stat().st_mtime_ns
        except OSError:
            return False
        changed = self._stamps.get(name) != stamp
        self._stamps[name] = stamp
        return changed

    def _forget(self) -> None:
        """Starts anew after the file of events was replaced."""
        self._curves.cut(-1)
        self._phase, self._end, self._first_encoding = "starting", None, None
        self.status = RunStatus(curves=self._curves, log=self.status.log, started=self.status.started)

    # -- events ------------------------------------------------------------------------------------------------------

    def _take(self, event: dict[str, Any], present: bool) -> None:
        """One event; ``present`` says whether the process that lives wrote it (or the last that lived)."""
        kind = event["event"]
        if kind == "start":
            if present:
                self._phase, self._end = "starting", None
            self._curves.cut(int(event.get("step") or 0) if event.get("resumed") else -1)
            config = event.get("config") or {}
            self._set(
                epochs=int(config.get("num_epochs") or 0),
                steps=int(event["steps"]),
                step=int(event.get("step") or 0),
                nodules=int(event["nodules"]),
                cases=int(event["cases"]),
                split=str(event.get("split", "")),
                caution=str(event.get("caution", "")),
                best_dice=self.status.best_dice if event.get("resumed") else None,
                change=self.status.change if event.get("resumed") else None,
                fraction=0.0,
            )
        elif kind == "step":
            self._take_step(event, present)
        elif kind == "validation":
            self._take_validation(event)
        elif kind == "warning" and present:
            self._set(warnings=(*self.status.warnings[-_WARNINGS:], str(event["message"])))
        if not present:
            return
        if kind == "reading":
            done, total = int(event["done"]), int(event["total"])
            self._set(read=(done, total), message=f"Reading case {done} of {total}")
        elif kind == "encoding":
            self._take_encoding(event)
        elif kind in ("step", "validation", "resumed"):
            if self._phase == "encoding" and kind != "step":  # what is told is the share of the steps from here on
                self._set(fraction=self.status.step / max(self.status.steps, 1), left_s=None)
            self._phase = "running"
        elif kind == "paused":
            self._phase = "paused"
        elif kind == "end" and self._end is None:
            self._end = event

    def _take_step(self, event: dict[str, Any], present: bool) -> None:
        step, steps, curves = int(event["step"]), int(event["steps"]), self._curves
        curves.cut(step - 1)
        curves.steps.append(step)
        for values, name in ((curves.loss, "loss"), (curves.dice_first, "dice_first"), (curves.dice_last, "dice_last")):
            values.append(_number(event.get(name)))
        curves.revision += 1
        left = event.get("left_s")
        self._set(
            step=step,
            steps=steps,
            epoch=int(event["epoch"]),
            fraction=step / max(steps, 1),
            left_s=float(left) if present and left is not None else None,
        )

    def _take_validation(self, event: dict[str, Any]) -> None:
        curves, best = self._curves, bool(event.get("best"))
        curves.val_steps.append(int(event["step"]))
        curves.val_epochs.append(int(event["epoch"]))
        curves.val_loss.append(_number(event.get("loss")))
        curves.val_dice.append(tuple(_number(each) for each in event.get("dice") or ()))
        curves.val_mean_dice.append(_number(event.get("mean_dice")))
        curves.val_best.append(best)
        curves.revision += 1
        if best:
            change = event.get("change")
            self._set(
                best_dice=curves.val_mean_dice[-1],
                change=None if change is None else (float(change), _number(event.get("change_error"))),
            )

    def _take_encoding(self, event: dict[str, Any]) -> None:
        done, total = int(event["done"]), max(int(event["total"]), 1)
        self._phase = "encoding"
        first = self._first_encoding = self._first_encoding or event
        pace = (float(event["time"]) - float(first["time"])) / max(done - int(first["done"]), 1)
        left = pace * (total - done) if done > int(first["done"]) else None
        self._set(fraction=min(done / total, 1.0), left_s=left, message=f"Embedding {done} of {total}")

    # -- the state ---------------------------------------------------------------------------------------------------

    def _conclude(self, code: int | None) -> None:
        """The state from what the process, its events and the control file say together."""
        if code is None or not self._events.caught_up:
            self._verdict = None
            self._set(caught_up=self._events.caught_up)
            self._live_state()
            return
        verdict = (self._note, self._end)
        if verdict == self._verdict:
            return  # said already
        self._verdict = verdict
        state, message, kind = self._how_it_ended(code)
        saved = (self.folder / run_files.STATE).is_file()
        self._set(
            state=state,
            message=message,
            kind=kind,
            pausing=False,
            left_s=None,
            caught_up=True,
            resumable=saved and state != "finished",
            weights=run_files.best_weights(self.folder),
            suggestion=self._suggestion() if kind == "out_of_memory" else None,
        )

    def _live_state(self) -> None:
        state: RunState = self._phase
        if self._command == "stop" and (self._stop_asked or self._phase != "starting" or not self._own):
            state = "stopping"
        pausing = self._command == "pause" and state in ("encoding", "running", "starting")
        if state == "running":
            self._set(
                message=f"Epoch {max(self.status.epoch, 1)} of {self.status.epochs}, step {self.status.step} of "
                f"{self.status.steps}"
            )
        elif state == "starting" and not self.status.message:
            self._set(message="Loading PyTorch and the cases")
        self._set(state=state, pausing=pausing)

    def _how_it_ended(self, code: int) -> tuple[RunState, str, str]:
        """State, message and kind of failure."""
        end = self._end
        if end is not None:
            reason = end.get("reason")
            state: RunState = reason if reason in ("finished", "stopped") else "failed"
            return state, str(end.get("message", "")), str(end.get("kind") or "other") if state == "failed" else ""
        begun = self._note is not None or not self._own
        saved = (self.folder / run_files.STATE).is_file()
        stays = "what was saved last stays, and Resume goes on from there" if saved else "nothing had been saved yet"
        if self._stop_asked or (begun and self._command == "stop"):
            return "stopped", f"Ended at once: {stays}.", ""
        with suppress(OSError):
            if shutil.disk_usage(self.folder).free < _FULL_DISK:
                return "failed", f"The disk of {self.folder} is full: free some space; {stays}.", "disk_full"
        if not begun:
            last = self._log_lines[-1].removeprefix("failed: ") if self._log_lines else f"it ended with code {code}"
            return "failed", f"The training could not begin: {last}", "other"
        how = f" (signal {-code})" if code < 0 else ""
        memory = ", by hand or by a system out of memory" if code == -9 else ""
        return "killed", f"The training process was ended from outside{how}{memory}: {stays}.", ""

    def _suggestion(self) -> TrainingRequest | None:
        try:
            return TrainingRequest.of_run(self.folder).smaller()
        except RunError:
            return None

    def _elapsed(self) -> float:
        started = self.status.started
        if started is None:
            return 0.0
        if self._end is not None:
            return max(0.0, float(self._end.get("time", started)) - started)
        return self.status.elapsed_s if self.status.is_over else max(0.0, self._wall() - started)

    def _set(self, **values: Any) -> None:
        if any(getattr(self.status, name) != value for name, value in values.items()):
            self.status = dataclasses.replace(self.status, **values)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


@dataclass
class Curves:
    """Loss and Dice of a run. The lists only grow, but where a run was resumed and steps are done again.

    Attributes:
        steps, loss, dice_first, dice_last: one value a step; NaN where there is none.
        val_steps, val_epochs, val_loss, val_mean_dice, val_best: one value a validation.
        val_dice: Dice after each click, one tuple a validation.
        revision: counts changes.
        rewritten: counts changes to what was there before: draw all anew.
    """

    steps: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    dice_first: list[float] = field(default_factory=list)
    dice_last: list[float] = field(default_factory=list)
    val_steps: list[int] = field(default_factory=list)
    val_epochs: list[int] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    val_dice: list[tuple[float, ...]] = field(default_factory=list)
    val_mean_dice: list[float] = field(default_factory=list)
    val_best: list[bool] = field(default_factory=list)
    revision: int = 0
    rewritten: int = 0

    def cut(self, step: int) -> None:
        """Forgets everything after a step."""
        of_steps = (self.loss, self.dice_first, self.dice_last, self.steps)
        of_validations = (
            self.val_epochs,
            self.val_loss,
            self.val_dice,
            self.val_mean_dice,
            self.val_best,
            self.val_steps,
        )
        for group in (of_steps, of_validations):
            kept = bisect_right(group[-1], step)
            if kept < len(group[-1]):
                for values in group:
                    del values[kept:]
                self.revision += 1
                self.rewritten += 1


@dataclass(frozen=True)
class RunStatus:
    """A run at one moment.

    Attributes:
        state: see ``RunState``; "killed" is a process that ended without a word.
        pausing: asked to pause, and still doing the step under way.
        epoch, epochs, step, steps: from 1; 0 before the first.
        fraction: of the work under way (embeddings, then steps), 0 to 1.
        left_s: seconds to go; None where that is not known.
        elapsed_s: seconds since this start or continuation.
        started: seconds since 1970 of that; None before.
        best_dice: mean validation Dice of the best weights so far.
        nodules, cases: that are trained on.
        split: how validation cases were chosen.
        caution: what figures on them do not say, in a sentence; "" with a test part.
        change: mean change of Dice from the start to the best weights, and its standard error; None before it is known.
        read: cases that are read, of how many; (0, 0) where that takes no time.
        message: why it ended, or what is being done, in words.
        kind: of a failure: "out_of_memory", "disk_full", "bad_data" or "other"; "" without one.
        log: last lines of the run's output.
        suggestion: what could be tried instead of a run that ran out of memory.
        resumable: whether it can be continued.
        weights: the best so far.
        caught_up: False while a long run found on disk is being read.
    """

    state: RunState = "starting"
    pausing: bool = False
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    fraction: float = 0.0
    left_s: float | None = None
    elapsed_s: float = 0.0
    started: float | None = None
    best_dice: float | None = None
    nodules: int = 0
    cases: int = 0
    split: str = ""
    caution: str = ""
    change: tuple[float, float] | None = None
    read: tuple[int, int] = (0, 0)
    message: str = ""
    kind: str = ""
    warnings: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    suggestion: TrainingRequest | None = None
    resumable: bool = False
    weights: Path | None = None
    caught_up: bool = True
    curves: Curves = field(default_factory=Curves, compare=False)

    @property
    def is_over(self) -> bool:
        """Whether nothing trains any more."""
        return self.state in OVER
