"""Where a run is, as values for a panel."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .run_request import TrainingRequest

RunState = Literal["starting", "encoding", "running", "paused", "stopping", "finished", "stopped", "failed", "killed"]
OVER: tuple[RunState, ...] = ("finished", "stopped", "failed", "killed")


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
        of_validations = (self.val_epochs, self.val_loss, self.val_dice, self.val_mean_dice, self.val_best,
                          self.val_steps)
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
