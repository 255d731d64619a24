"""The data of a training run: its cases, its samples in order, and their embeddings where the encoder is frozen."""

from __future__ import annotations

import atexit
import dataclasses
import platform
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from SAMMed3DLib.commandline.terminal import few, our_warnings_told
from SAMMed3DLib.model.profile import PreprocessingProfile
from SAMMed3DLib.model.sam import Sam3D
from SAMMed3DLib.synthesis import NoduleShapes

from ..data.augmentation import NO_AUGMENTATION, Augmentation
from ..data.case_cache import CachedCase, CaseCache
from ..data.datasets import DatasetError, find_datasets
from ..data.nodule_samples import NoduleSampler, Sample
from ..data.splits import Split, changed_labels, read_split, split_cases, unused_folds
from ..data.synthetic_samples import SampleSynthesizer
from ..runs.run_files import LATEST
from .training_config import TrainingConfig, TrainingError

Key = tuple[int, int]


@dataclass(frozen=True)
class RunCases:
    """The unpacked cases of a run."""

    split: Split
    train: tuple[CachedCase, ...]
    val: tuple[CachedCase, ...]

    @property
    def nodules(self) -> int:
        """Number of nodules to train on."""
        return sum(len(case.nodules) for case in self.train)

    @property
    def labels(self) -> dict[str, str]:
        """The digest of each case's nodules, by the case's full name."""
        return {case.case.full_name: case.labels for case in (*self.train, *self.val)}


def load_cases(
    config: TrainingConfig, report: Callable[[str], None], progress: Callable[[int, int], None] | None = None
) -> RunCases:
    """Finds, splits and unpacks the cases of a run; a continued run keeps the split that lies in its folder.

    Args:
        config: of the run.
        report: told, one sentence each, what is left out and why.
        progress: called after each case with (done, total).

    Raises:
        TrainingError: no data, a case that cannot be used, or, of a continued run, one whose labels are others than
            when it began; the message names the file.
    """
    try:
        datasets = tuple(d for path in config.data for d in find_datasets(path, config.patient_pattern, config.labels))
        names = [dataset.name for dataset in datasets]
        if len(set(names)) < len(names):
            raise DatasetError(f"two of the data sets have the same name ({', '.join(sorted(names))}): rename a folder")
        split = read_split(config.folder, datasets) if config.resume else None
        if split is None:
            split = split_cases(
                datasets,
                seed=config.seed,
                val_fraction=config.val_fraction,
                test_fraction=config.test_fraction,
                fold=config.fold,
            )
        for dataset in datasets:
            for problem in dataset.problems:
                report(f"{dataset.name}: {problem}")
            unlabelled = [case.name for case in dataset.part("Tr") if case.label is None]
            if unlabelled:
                report(
                    f"{dataset.name}: {len(unlabelled)} images without a label map are not used "
                    f"({', '.join(unlabelled[:3])})"
                )
        for note in (*split.notes, *unused_folds(datasets, config.fold)):
            report(note)
        owners = {dataset.name: dataset for dataset in datasets}
        cache = CaseCache(Path(config.work_dir) / ".case_cache")

        wanted, loaded = (*split.train, *split.val), []
        doubts: dict[str, None] = {}  # what the readers of files doubt about them, each once
        with our_warnings_told(doubts.setdefault):
            for case in wanted:
                loaded.append(cache.load(case, owners[case.dataset]))
                if progress is not None:
                    progress(len(loaded), len(wanted))
        for doubt in doubts:
            report(doubt)
        train, val = tuple(loaded[: len(split.train)]), tuple(loaded[len(split.train) :])
    except DatasetError as error:
        raise TrainingError(
            f"{error}. 'python -m SAMMed3DTrainingLib check DIR' lists everything that is wrong with a data set"
        ) from error
    for each in (*train, *val):
        if not each.nodules:
            report(f"{each.case.full_name}: the label map is empty; the case serves as background only")
    if not any(each.nodules for each in train):
        raise TrainingError("no nodule to train on: all label maps of the training cases are empty")
    cases = RunCases(split, train, val)
    changed = changed_labels(config.folder, cases.labels) if config.resume else []
    if changed:
        raise TrainingError(
            f"the labels of {len(changed)} cases have changed since this run began ({few(changed)}), and what it has "
            "learned and measured is of the old ones: begin a run of another --task_name with --checkpoint "
            f"{config.folder / LATEST}, or bring the old labels back"
        )
    return cases


class SampleSlots(Dataset):
    """The samples of a run by number: slot ``n`` of epoch ``e`` is the same in every process and after every resume."""

    def __init__(self, cases: Sequence[CachedCase], profile: PreprocessingProfile, config: TrainingConfig) -> None:
        self._config = config
        self._profile = profile
        augmentation = Augmentation() if config.augment else NO_AUGMENTATION
        self._sampler = NoduleSampler(cases, profile, augmentation)
        self._shapes: NoduleShapes | None = None
        # Synthetic lungs need a profile that shows lungs in HU at a spacing that can be chosen.
        self._replay = config.replay if profile.spacing_mm is not None else 0.0

    def slots(self, epoch: int) -> list[tuple[int, int]]:
        """(epoch, slot) in this epoch's order."""
        count = self.per_epoch
        order = np.random.default_rng([self._config.seed, epoch]).permutation(count)
        return [(epoch, int(slot)) for slot in order]

    @property
    def per_epoch(self) -> int:
        """Samples of an epoch: every nodule as often as is asked for, and the empty and synthetic ones on top."""
        own = len(self._sampler) * int(self._config.samples_per_nodule or 1)
        return own + round(own * self._extra_share / (1 - self._extra_share))

    @property
    def _extra_share(self) -> float:
        return self._config.empty_share + self._replay

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, slot = key
        rng = np.random.default_rng([self._config.seed, epoch, slot])
        own = len(self._sampler) * int(self._config.samples_per_nodule or 1)
        if slot < own:
            return self._sampler.sample(slot % len(self._sampler), rng)
        if rng.random() * self._extra_share < self._config.empty_share:
            return self._sampler.empty(rng)
        self._shapes = self._shapes or NoduleShapes.load()
        return SampleSynthesizer(self._shapes, self._profile, rng).sample()


def loader(slots: SampleSlots, batches: Iterable[list[tuple[int, int]]], workers: int) -> Iterator[list[Sample]]:
    """The samples of each batch, prepared by worker processes ahead of time.

    Each worker computes on one thread, so that the training's own threads are not crowded out. ``batches`` are taken
    one by one, as they are needed.
    """
    if workers < 1:
        return iter([slots[key] for key in batch] for batch in batches)
    context = None if platform.system() == "Linux" else "spawn"
    return _from_workers(
        DataLoader(
            slots,
            batch_sampler=batches,
            collate_fn=list,
            num_workers=workers,
            prefetch_factor=3,
            worker_init_fn=_begin_worker,
            multiprocessing_context=context,
        )
    )


def _from_workers(data: DataLoader) -> Iterator[list[Sample]]:
    """The batches of a loader. Its workers obey no signal, so they are ended here, whatever ends the run."""
    held: list[Iterator[list[Sample]]] = []
    atexit.register(held.clear)  # before Python waits for its child processes
    try:
        with _signals_wait():
            held.append(iter(data))
        while True:
            try:
                samples = next(held[0])
            except StopIteration:
                return
            yield samples
    finally:
        held.clear()
        atexit.unregister(held.clear)


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Blocks the signals that end a run within the block, for processes started in it too."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ending_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ending_signals() -> list[signal.Signals]:
    return [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def _begin_worker(worker: int) -> None:
    """Schedulers and terminals send their signals to the whole group: the training process hears them, saves, and ends
    its workers itself. A worker that ended before would take the step under way with it."""
    torch.set_num_threads(1)
    for each in _ending_signals():
        signal.signal(each, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ending_signals())


@dataclass(frozen=True, eq=False)
class _Stored:
    """A stored sample without its crop: the truth as bits, and the embedding in half precision."""

    sample: Sample
    truth_shape: tuple[int, ...]
    embedding: Tensor


class EmbeddingBank:
    """Stores embeddings and truths of samples by key, within a bound of memory; a step then costs a fraction."""

    def __init__(self, model: Sam3D, budget_bytes: float) -> None:
        self._model = model
        self._budget = budget_bytes
        self._stored: dict[Key, _Stored] = {}
        self.bytes = 0

    def __len__(self) -> int:
        """Number of samples that are kept."""
        return len(self._stored)

    def __contains__(self, key: Key) -> bool:
        return key in self._stored

    @property
    def is_full(self) -> bool:
        """Whether more samples of the same size would exceed the bound."""
        return bool(self._stored) and self.bytes * (1 + 1 / len(self._stored)) > self._budget

    def fill(
        self,
        batches: Iterable[tuple[Sequence[Key], Sequence[Sample]]],
        progress: Callable[[int], bool | None] | None = None,
    ) -> None:
        """Encodes batches of samples until there are no more, the bound is reached, or ``progress`` returns False.

        Args:
            batches: keys and samples.
            progress: called with the number of samples that are kept.
        """
        for keys, samples in batches:
            crops = torch.from_numpy(np.stack([sample.crop for sample in samples]))
            embeddings = self._model.encode(crops).half().cpu()
            for key, sample, embedding in zip(keys, samples, embeddings, strict=True):
                bits = np.packbits(sample.truth)
                kept = dataclasses.replace(sample, crop=np.empty(0, np.float32), truth=bits)
                self._stored[key] = _Stored(kept, sample.truth.shape, embedding.clone())
                self.bytes += bits.nbytes + embedding.numel() * embedding.element_size()
            if self.is_full or (progress is not None and progress(len(self._stored)) is False):
                return

    def batch(self, keys: Sequence[Key]) -> tuple[list[Sample], Tensor]:
        """Returns samples (with empty crops) and their embeddings (B, ...), float32, on the model's device.

        Raises:
            KeyError: a key that is not kept.
        """
        stored = [self._stored[key] for key in keys]
        samples = []
        for item in stored:
            bits = np.unpackbits(item.sample.truth, count=int(np.prod(item.truth_shape)))
            samples.append(dataclasses.replace(item.sample, truth=bits.reshape(item.truth_shape) > 0))
        return samples, torch.stack([item.embedding for item in stored]).to(self._model.device).float()
