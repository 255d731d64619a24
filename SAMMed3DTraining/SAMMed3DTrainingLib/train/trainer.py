"""Runs the training: epochs of click loops, validation, saving; it can be paused, stopped, killed and continued.

Nothing random depends on anything but the seed, the epoch and the sample's number, so a run that was killed and
continued is the run that was never interrupted.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from SAMMed3DLib.model.precision import PRECISIONS

from ..data.nodule_samples import Sample
from ..runs.progress import EMBEDDED_AT_ONCE
from .click_loop import ClickLoop, draw_click_count
from .distributed import World
from .run_folder import RunFolder, load_state, save_state
from .trainable import Trainable, save_weights
from .training_config import TrainingConfig, TrainingError
from .training_data import EmbeddingBank, Key, SampleSlots, loader
from .validation import Validator, change_since

_PAUSE_SECONDS = 0.2
#: Number of epochs whose different samples the bank of a frozen encoder holds.
BANK_EPOCHS = 2
_FLOOR = 0.02
#: Figures of a step that are logged as means over all processes.
_FIGURES = ("loss", "dice_first", "dice_last", "iou_error")


@dataclass
class TrainingProgress:
    """The progress of a run; saved with its state.

    Attributes:
        epoch: the one under way, from 0.
        batch: batches of it that are done.
        update: updates of the weights so far.
        best_dice, best_loss: of all validations.
        best_epoch: of the best Dice; 0 for the weights that the run began with.
        best_change, best_error: gain of the validated nodules until then, and its standard error.
        start_scores: of each validated nodule, its Dice before the first step.
    """

    epoch: int = 0
    batch: int = 0
    update: int = 0
    best_dice: float = -math.inf
    best_loss: float = math.inf
    best_epoch: int = 0
    best_change: float = 0.0
    best_error: float = 0.0
    start_scores: list[float] = field(default_factory=list)


@dataclass
class _Pace:
    """Measures how long steps take, for the time that is left."""

    seconds: list[float] = field(default_factory=list)

    def note(self, seconds: float) -> None:
        self.seconds = [*self.seconds[-49:], seconds]

    def left(self, steps: int) -> float:
        return float(np.median(self.seconds)) * steps if self.seconds else math.nan


class Trainer:
    """Trains a network: one process of a run."""

    def __init__(
        self,
        config: TrainingConfig,
        folder: RunFolder,
        world: World,
        network: Trainable,
        slots: SampleSlots,
        validator: Validator,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.config, self.folder, self.world, self.network = config, folder, world, network
        self.progress = TrainingProgress()
        self._slots, self._validator, self._clock, self._sleep = slots, validator, clock, sleep
        self._loop = world.wrap(ClickLoop(network.model))
        self._optimizer = network.optimizer(config)
        self._schedule = self._scheduled()
        self._dtype = PRECISIONS[config.precision]
        self._scaler = torch.amp.GradScaler(world.device.type, enabled=config.precision == "fp16")
        self._bank = EmbeddingBank(network.model, config.cache_gb * 2**30) if config.encoder == "frozen" else None
        self._pace = _Pace()
        self._saved_at = clock()
        self._stopping = False

    # -- the size of a run -------------------------------------------------------------------------------------------

    @property
    def epochs(self) -> int:
        """Epochs in all."""
        return int(self.config.num_epochs or 1)

    @property
    def batches_per_epoch(self) -> int:
        """Batches of one process per epoch: a step of the run each."""
        per_process = -(-self._slots.per_epoch // self.world.size)
        return -(-per_process // self.config.batch_size)

    @property
    def updates_per_epoch(self) -> int:
        """Updates of the weights per epoch."""
        return -(-self.batches_per_epoch // self.config.accumulation_steps)

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.batches_per_epoch

    @property
    def step(self) -> int:
        """Steps done."""
        return self.progress.epoch * self.batches_per_epoch + self.progress.batch

    # -- the run -----------------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Continues where the run was saved. Raises TrainingError."""
        values = load_state(self.folder.state, self.config, self.network, self._optimizer, self._scaler)
        self.progress = TrainingProgress(**values)
        self._schedule = self._scheduled()

    def _scheduled(self) -> LambdaLR:
        """Makes the scheduler of the learning rates, beginning at the present update."""
        for group in self._optimizer.param_groups:
            group["initial_lr"] = float(self.config.lr or 0) * group["factor"]
        updates, per_epoch = self.epochs * self.updates_per_epoch, self.updates_per_epoch

        def factor(update: int) -> float:
            return rate_factor(update, updates, per_epoch, self.config)

        return LambdaLR(self._optimizer, factor, last_epoch=self.progress.update - 1)

    def stop(self) -> None:
        """Ends the run after the step under way, with everything saved."""
        self._stopping = True

    def run(self) -> str:
        """Trains to the end. Returns "finished" or "stopped".

        Raises:
            TrainingError: the loss is not finite, or files cannot be written; what was saved last stays.
        """
        if self._bank is not None:
            self._fill_bank(self._bank)
        if self.progress.update == 0 and not self._stopping:
            # What training begins with has to be beaten: where no epoch does, its weights stay the best ones.
            self._validate(epoch=0)
        # One source for the whole run: the next epoch's samples are prepared while the last one is validated.
        source = self._batches(batch for part in self._remaining() for batch in part)
        while self.progress.epoch < self.epochs and not self._has_stalled():
            if not self._train_epoch(source):
                self._save("stopped")
                return "stopped"
            self._end_epoch()
        return "finished"

    def _has_stalled(self) -> bool:
        """Whether so many epochs have brought no better weights that the run ends here."""
        progress, patience = self.progress, self.config.patience or 0
        stalled = bool(patience and progress.start_scores and progress.epoch - progress.best_epoch >= patience)
        return bool(self.world.agree(float(stalled)))

    def _groups(self, epoch: int) -> list[list[list[Key]]]:
        """The batches of each update of an epoch that is not done yet.

        A state is only saved between updates, so that no gradient is lost.
        """
        keys = self._keys(epoch)
        size, group = self.config.batch_size, self.config.accumulation_steps
        batches = [keys[n : n + size] for n in range(0, len(keys), size)]
        groups = [batches[n : n + group] for n in range(0, len(batches), group)]
        return groups[-(-self.progress.batch // group) :] if epoch == self.progress.epoch else groups

    def _remaining(self) -> Iterator[list[list[Key]]]:
        first, groups = self.progress.epoch, self._groups(self.progress.epoch)
        yield from groups
        for epoch in range(first + 1, self.epochs):
            yield from self._groups(epoch)

    def _train_epoch(self, source: Iterator[tuple[list[Sample], Tensor | None]]) -> bool:
        """Trains the rest of the epoch; False when the run is to stop."""
        for part in self._groups(self.progress.epoch):
            if not self._may_go_on():
                return False
            self._update(part, source)
            if self._clock() - self._saved_at > 60 * self.config.save_minutes:
                self._save("time")
        return True

    def _update(self, batches: Sequence[Sequence[Key]], source: Iterator[tuple[list[Sample], Tensor | None]]) -> None:
        """Updates the weights once from one or several batches, each weighted with its size."""
        progress = self.progress
        rate = max(self._schedule.get_last_lr())
        total = sum(len(batch) for batch in batches)
        self._optimizer.zero_grad(set_to_none=True)
        for number, batch in enumerate(batches):
            begun = self._clock()
            samples, embedding = next(source)
            drawn = self._clock()
            last = number == len(batches) - 1
            loss, figures = self._backward(batch, samples, embedding, len(batch) / total, synchronize=last)
            if last:
                self._step_optimizer()
            progress.batch += 1
            ended = self._clock()
            self._pace.note(ended - begun)
            mine = {"loss": loss, **figures}
            told = {**mine, **self.world.mean({name: mine.get(name, math.nan) for name in _FIGURES})}
            if self.world.is_main:
                self.folder.write(
                    "step",
                    epoch=progress.epoch + 1,
                    step=self.step,
                    steps=self.steps,
                    lr=rate,
                    data_s=drawn - begun,
                    step_s=ended - begun,
                    left_s=self._pace.left(self.steps - self.step),
                    **told,
                )

    def _backward(
        self, keys: Sequence[Key], samples: list[Sample], embedding: Tensor | None, weight: float, synchronize: bool
    ) -> tuple[float, dict[str, float]]:
        progress, config = self.progress, self.config
        clicks = draw_click_count(np.random.default_rng([config.seed, 3, progress.epoch, progress.batch]))
        rngs = [np.random.default_rng([config.seed, 4, progress.epoch, *key]) for key in keys]
        loop: Any = self._loop
        later = loop.no_sync() if self.world.size > 1 and not synchronize else contextlib.nullcontext()
        with later:
            with torch.autocast(self.world.device.type, self._dtype, enabled=self._dtype != torch.float32):
                loss, figures = loop(samples, clicks, rngs, embedding)
            self._scaler.scale(loss * weight).backward()
        value = float(loss.detach())
        bad = self.world.agree(float(not math.isfinite(value)))
        if bad:
            raise TrainingError(
                f"the loss is not finite at step {self.step + 1}: try a smaller --lr, or --precision fp32. {self._kept}"
            )
        return value, figures

    @property
    def _kept(self) -> str:
        """Makes a sentence for the error message on the saved state that is left after a failure."""
        state = self.folder.state
        return (
            f"The last saved state ({state.name}) is from before and stays"
            if state.is_file()
            else "Nothing had been saved before"
        )

    def _step_optimizer(self) -> None:
        self._scaler.unscale_(self._optimizer)
        norm = nn.utils.clip_grad_norm_(self.network.parameters, self.config.clip)
        if not self._scaler.is_enabled() and not torch.isfinite(norm):
            raise TrainingError(f"the gradient is not finite at step {self.step + 1}: try a smaller --lr. {self._kept}")
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._schedule.step()
        self.progress.update += 1
        self.network.update_average(self.progress.update)

    def _end_epoch(self) -> None:
        """Validates, keeps the best weights, and saves the state at the beginning of the next epoch."""
        progress = self.progress
        self._validate(progress.epoch + 1)
        progress.epoch, progress.batch = progress.epoch + 1, 0
        self._save("epoch", weights=False)
        self.world.barrier()

    def _validate(self, epoch: int) -> None:
        """Validates the averaged weights and keeps them where they are the best so far; epoch 0 is the beginning."""
        if not self.world.is_main or not (epoch or len(self._validator)):
            return
        progress = self.progress
        averaged = self.network.averaged()
        result = self._validator.validate(averaged)
        if epoch == 0:
            progress.start_scores = result.scores
        # What a state of an earlier version began with is not known.
        comparable = epoch > 0 and result.nodules > 0 and len(progress.start_scores) == result.nodules
        change = change_since(progress.start_scores, result) if comparable else None
        better_dice = result.nodules > 0 and result.mean_dice > progress.best_dice
        better_dice = better_dice and (change is None or change.is_gain)
        better_loss = result.nodules > 0 and result.loss < progress.best_loss
        if better_dice or not result.nodules:
            save_weights(averaged, self.folder.dice_best)
        if better_loss or not result.nodules:
            save_weights(averaged, self.folder.loss_best)
        if epoch:
            save_weights(averaged, self.folder.latest)
        if better_dice:
            progress.best_dice, progress.best_epoch = result.mean_dice, epoch
            progress.best_change, progress.best_error = (
                (change.mean, change.error) if change is not None else (0.0, 0.0)
            )
        progress.best_loss = min(progress.best_loss, result.loss) if result.nodules else progress.best_loss
        self.folder.write(
            "validation",
            epoch=epoch,
            step=epoch * self.batches_per_epoch,
            loss=result.loss,
            dice=result.dice,
            mean_dice=result.mean_dice,
            nodules=result.nodules,
            best=better_dice,
            **({} if change is None else {"change": change.mean, "change_error": change.error, "sizes": change.sizes}),
        )
        if better_dice and change is not None and change.falling:
            fallen = ", ".join(
                f"{name} ({each['nodules']}): {each['change']:+.3f}"
                for name, each in change.sizes.items()
                if name in change.falling
            )
            self.folder.write(
                "warning",
                message=f"the best weights so far (epoch {epoch}) are worse than those of the start on some sizes of "
                f"nodules, {fallen}: look at them in the comparison; more nodules of that size would help, or --replay",
            )

    @property
    def verdict(self) -> str:
        """Sums up the run's gain in a sentence; "" where nothing was validated."""
        progress = self.progress
        if not progress.start_scores:
            return ""
        nodules = len(progress.start_scores)
        early = ""
        if progress.epoch < self.epochs and self.config.patience and not self._stopping:
            early = f"; ended after {progress.epoch} of {self.epochs} epochs, the last {self.config.patience} no better"
        if not progress.best_epoch:
            return (
                f"no epoch beat the weights that the run began with by more than the standard error on {nodules} "
                f"validated nodules: those stay the best{early}"
            )
        chance = f", standard error {progress.best_error:.3f}" if nodules > 1 else ", of one nodule"
        return (
            f"best at epoch {progress.best_epoch}: Dice {progress.best_dice:.3f}, {progress.best_change:+.3f} since "
            f"the start ({nodules} validated nodule{'s' * (nodules != 1)}{chance}){early}"
        )

    def _save(self, reason: str, weights: bool = True) -> None:
        """Saves the state to continue from, and the latest weights."""
        self._saved_at = self._clock()
        if not self.world.is_main:
            return
        save_state(self.folder.state, self.config, self.network, self._optimizer, self._scaler, vars(self.progress))
        if weights:
            save_weights(self.network.averaged(), self.folder.latest)
        self.folder.write("saved", path=self.folder.latest, reason=reason)

    def _may_go_on(self) -> bool:
        """Whether the control file lets all processes go on; waits while it says pause."""
        paused = False
        while True:
            word = self.folder.command() if self.world.is_main else "run"
            code = self.world.agree(float({"run": 0, "pause": 1, "stop": 2}["stop" if self._stopping else word]))
            if code == 1 and not paused:
                paused = True
                self._save("paused")
                self._note("paused")
            if code != 1:
                if paused and code == 0:
                    self._note("resumed")
                return code == 0
            self._sleep(_PAUSE_SECONDS)

    def _note(self, event: str, **values: Any) -> None:
        if self.world.is_main:
            self.folder.write(event, epoch=self.progress.epoch + 1, step=self.step, **values)

    def rehearse(self, keys: Sequence[Key], samples: list[Sample], embedding: Tensor | None) -> None:
        """Runs forward and backward of a step without an update, to measure its cost."""
        self._backward(keys, samples, embedding, 1.0, synchronize=False)
        self._optimizer.zero_grad(set_to_none=True)

    # -- samples -----------------------------------------------------------------------------------------------------

    def _keys(self, epoch: int) -> list[Key]:
        """Returns this process's samples of an epoch, in order."""
        if self._bank is None:
            return self.world.share(self._slots.slots(epoch))
        stored = [key for key in self._bank_keys() if key in self._bank]
        order = np.random.default_rng([self.config.seed, 5, epoch]).permutation(len(stored))
        return [stored[n] for n in np.resize(order, len(self.world.share(self._slots.slots(epoch))))]

    @property
    def encodings(self) -> int:
        """Number of samples that are encoded before the first step."""
        return len(self._bank_keys()) if self._bank is not None else 0

    def _bank_keys(self) -> list[Key]:
        """Returns the samples that the bank holds if there is memory for all."""
        return list(dict.fromkeys(k for e in range(BANK_EPOCHS) for k in self.world.share(self._slots.slots(e))))

    def _batches(self, batches: Iterable[list[Key]]) -> Iterator[tuple[list[Sample], Tensor | None]]:
        if self._bank is not None:
            return (self._bank.batch(batch) for batch in batches)
        return ((samples, None) for samples in loader(self._slots, batches, self.config.num_workers or 0))

    def _fill_bank(self, bank: EmbeddingBank) -> None:
        keys = self._bank_keys()
        batches = [keys[n : n + EMBEDDED_AT_ONCE] for n in range(0, len(keys), EMBEDDED_AT_ONCE)]
        samples = loader(self._slots, batches, self.config.num_workers or 0)
        bank.fill(zip(batches, samples, strict=True), lambda done: self._may_go_on_while_encoding(done, len(keys)))
        short = self.world.agree(float(len(bank) < len(keys) and not self._stopping))
        if short and self.world.is_main:
            self.folder.write(
                "warning",
                message=f"the embeddings of {len(bank)} of {len(keys)} samples fit into --cache_gb "
                f"{self.config.cache_gb:g}: the run sees only those",
            )

    def _may_go_on_while_encoding(self, done: int, total: int) -> bool:
        if self.world.is_main:
            self.folder.write("encoding", done=done, total=total)
            paused = False
            while (word := self.folder.command()) == "pause" and not self._stopping:
                if not paused:
                    paused = True
                    self._note("paused")
                self._sleep(_PAUSE_SECONDS)
            self._stopping = self._stopping or word == "stop"
            if paused and not self._stopping:
                self._note("resumed")
        return not self._stopping


def rate_factor(update: int, updates: int, updates_per_epoch: float, config: TrainingConfig) -> float:
    """Computes the share of the highest learning rate for the update of this number (from 0).

    A linear warm-up over ``config.warmup`` of all updates, then a cosine down to a fiftieth, steps at given epochs, or
    nothing.
    """
    warmup = max(1, round(config.warmup * updates))
    if update < warmup:
        return (update + 1) / warmup
    if config.lr_scheduler == "multisteplr":
        epoch = update / updates_per_epoch
        return config.gamma ** sum(epoch >= step for step in config.step_size)
    if config.lr_scheduler == "constant":
        return 1.0
    progress = min((update - warmup) / max(updates - warmup, 1), 1.0)
    return _FLOOR + (1 - _FLOOR) * 0.5 * (1 + math.cos(math.pi * progress))
