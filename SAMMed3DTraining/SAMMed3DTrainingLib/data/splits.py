"""Splits cases by patient into training, validation and test, reproducibly, and records the split."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np

from SAMMed3DLib.commandline.terminal import few
from SAMMed3DLib.files.output_files import write_text_whole

from .datasets import Case, Dataset, DatasetError, ask

FILE_NAME = "split.json"
#: From so many patients on some are held out from the choice of the weights too.
PATIENTS_FOR_TEST = 5


@dataclass(frozen=True)
class Split:
    """A run's cases.

    Attributes:
        train, val, test: labelled cases that train, that choose the best weights, and that do neither; ``test`` may be
            empty.
        source: where the split comes from, for logs and reports.
        notes: labelled cases that are in none of them, and why; one sentence each.
    """

    train: tuple[Case, ...]
    val: tuple[Case, ...]
    test: tuple[Case, ...]
    source: str
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def caution(self) -> str:
        """The caution about figures from a run without a test part, a sentence; "" where there is one."""
        if self.test:
            return ""
        if {case.patient for case in self.train} & {case.patient for case in self.val}:
            return "there is one patient only: the cases that are validated are those that train"
        return (
            f"no case is held out from the choice of the weights ({_patients(self.val)} validated): the "
            "validation cases choose the epoch, so figures on them are too good"
        )


def split_cases(
    datasets: Sequence[Dataset],
    *,
    seed: int = 2023,
    val_fraction: float = 0.2,
    test_fraction: float = 0.2,
    fold: int | None = None,
) -> Split:
    """Splits all labelled cases of a run by patient, into those that train, choose the best weights, and test them.

    In this order: ``splits_final.json`` where a fold is asked for; a Val part; else a random choice of patients, which
    depends on nothing but the seed and the patients' names. A patient that appears in Ts is never trained on.

    The Ts part tests. Where there is none, from five patients on: a fold's held-out half tests, as in cross-validation,
    and some patients of its other half choose; beside a Val part, which chooses, and in a random split some patients
    test.

    Args:
        datasets: of one run.
        seed: of the random choice.
        val_fraction: share of the patients that choose, at least one.
        test_fraction: share of the patients that test where there is no Ts part, at least one; 0 for none.
        fold: of ``splits_final.json``.

    Raises:
        DatasetError: no labelled case to train on, a fold that is not there, or a patient in both halves of it.
    """
    ask(datasets)
    labelled = [case for dataset in datasets for case in dataset.cases if case.label is not None]
    test = tuple(case for case in labelled if case.part == "Ts")
    tested = {case.patient for case in test}
    pool = [case for case in labelled if case.part == "Tr" and case.patient not in tested]
    val = [case for case in labelled if case.part == "Val" and case.patient not in tested]
    if not pool:
        raise DatasetError(
            "no case to train on: imagesTr and labelsTr must hold files of the same names, and patients of imagesTs "
            "are never trained on"
        )
    patients = {case.patient for case in (*pool, *val)}
    tests = test_fraction > 0 and not test and len(patients) >= PATIENTS_FOR_TEST
    source = ""
    if fold is not None:
        train, val, source = _from_fold(datasets, pool, fold)
        if tests and len({case.patient for case in train}) > 1:
            test = tuple(val)
            train, val = _drawn(train, seed, val_fraction)
            source = f"the held-out half of {source} tests; {_patients(val)} of the other half choose"
    elif val:
        held_out = {case.patient for case in val}
        train = [case for case in pool if case.patient not in held_out]
        source = "the data set's Val part"
        if not train:
            raise DatasetError("every patient of imagesTr is in imagesVal too: nothing is left to train on")
        if tests and len({case.patient for case in train}) > 1:
            train, drawn = _drawn(train, seed, test_fraction)
            test = tuple(drawn)
            source += f" chooses; {_patients(test)} drawn with seed {seed} test"
    elif len(patients) == 1:
        train, val, source = pool, list(pool), "one patient only: validation sees the training cases"
    else:
        train, val = _drawn(pool, seed, val_fraction, left=2 if tests else 1)
        source = f"random by patient, seed {seed}: {_patients(val)} of {len(patients)} "
        if tests:
            train, drawn = _drawn(train, seed, test_fraction, of=len(patients))
            test = tuple(drawn)
        source += f"choose, {_patients(test)} test" if tests else "held out"
    used = {case.full_name for case in (*train, *val, *test)}
    notes = _left_out([case for case in labelled if case.full_name not in used], tested, fold)
    return Split(tuple(train), tuple(val), test, source, notes)


def unused_folds(datasets: Sequence[Dataset], fold: int | None) -> tuple[str, ...]:
    """The warning that ``splits_final.json`` is there but no fold of it is asked for; () where it is used."""
    unused = [dataset.name for dataset in datasets if dataset.splits and fold is None]
    return (f"splits_final.json of {', '.join(unused)} is not used: --fold 0 takes its first fold",) if unused else ()


def _left_out(cases: Sequence[Case], tested: set[str], fold: int | None) -> tuple[str, ...]:
    reasons: dict[str, list[str]] = {}
    for case in cases:
        if case.patient in tested:
            reason = "their patients are in the test part"
        elif fold is not None:
            reason = f"fold {fold} of splits_final.json does not name them"
        else:
            reason = "their patients are in the Val part"
        reasons.setdefault(reason, []).append(case.full_name)
    return tuple(
        f"{len(names)} labelled cases are not used, {reason} ({few(names)})" for reason, names in reasons.items()
    )


def write_split(split: Split, folder: Path, labels: Mapping[str, str] = MappingProxyType({})) -> Path:
    """Writes ``split.json`` into a run's folder, whole or not at all, and returns its path.

    Args:
        split: of the run.
        folder: of the run.
        labels: by the full name of a case what its nodules are known by, for :func:`changed_labels`.
    """

    def entry(case: Case) -> dict[str, str]:
        known = labels.get(case.full_name)
        return {"case": case.full_name, "patient": case.patient, **({"labels": known} if known else {})}

    content = {
        "source": split.source,
        **{name: [entry(case) for case in getattr(split, name)] for name in ("train", "val", "test")},
    }
    path = folder / FILE_NAME
    write_text_whole(path, json.dumps(content, indent=1, ensure_ascii=False))
    return path


def changed_labels(folder: Path, labels: Mapping[str, str]) -> list[str]:
    """Names of the cases whose nodules are others than when ``split.json`` was written; [] where nobody knows.

    Args:
        folder: of the run.
        labels: by the full name of a case what its nodules are known by now.
    """
    try:
        content = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        entries = [entry for part in ("train", "val", "test") for entry in content[part]]
        known = {str(entry["case"]): entry.get("labels") for entry in entries}
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return sorted(name for name, now in labels.items() if known.get(name) not in (None, now))


def read_split(folder: Path, datasets: Sequence[Dataset]) -> Split | None:
    """The split that a run wrote down, for the same data sets; None where the folder holds none.

    Raises:
        DatasetError: the file is broken, or names a case that the data sets no longer have.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    cases = {case.full_name: case for dataset in datasets for case in dataset.cases}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {part: [entry["case"] for entry in content[part]] for part in ("train", "val", "test")}
        source = str(content["source"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path} cannot be read ({error}); remove it to split anew") from error
    missing = [name for part in names.values() for name in part if name not in cases]
    if missing:
        raise DatasetError(
            f"{path} names {len(missing)} cases that the data no longer holds ({few(missing)}); bring them back, or "
            "remove the file to split anew"
        )
    train, val, test = (tuple(cases[name] for name in names[part]) for part in ("train", "val", "test"))
    return Split(train, val, test, source)


def _patients(cases: Sequence[Case]) -> str:
    """ "1 patient", "3 patients" of cases."""
    count = len({case.patient for case in cases})
    return f"{count} patient{'s' * (count != 1)}"


def _drawn(
    pool: Sequence[Case], seed: int, fraction: float, left: int = 1, of: int = 0
) -> tuple[list[Case], list[Case]]:
    """The cases of the patients that stay and of those that are drawn, at least one.

    Args:
        pool: of two patients or more.
        seed: of the draw.
        fraction: share of the patients that is drawn.
        left: patients that have to stay.
        of: number of patients that the share refers to; 0 for those of ``pool``.
    """
    patients = sorted({case.patient for case in pool})
    count = min(max(1, round(fraction * (of or len(patients)))), len(patients) - left)
    chosen = set(np.random.default_rng(seed).permutation(patients)[:count].tolist())
    return ([case for case in pool if case.patient not in chosen], [case for case in pool if case.patient in chosen])


def _from_fold(datasets: Sequence[Dataset], pool: Iterable[Case], fold: int) -> tuple[list[Case], list[Case], str]:
    chosen: dict[str, dict[str, str]] = {}
    for dataset in datasets:
        if not 0 <= fold < len(dataset.splits):
            raise DatasetError(
                f"{dataset.folder}/splits_final.json has {len(dataset.splits)} folds, not one of number {fold}"
            )
        chosen[dataset.name] = {name: half for half in ("train", "val") for name in dataset.splits[fold][half]}
    halves: dict[str, list[Case]] = {"train": [], "val": []}
    for case in pool:
        half = chosen[case.dataset].get(case.name)
        if half is not None:
            halves[half].append(case)
    both = {case.patient for case in halves["train"]} & {case.patient for case in halves["val"]}
    if both:
        raise DatasetError(
            f"fold {fold} of splits_final.json has patients in both halves ({', '.join(sorted(both)[:3])}): "
            "split by patient, never by nodule"
        )
    if not halves["train"] or not halves["val"]:
        raise DatasetError(f"fold {fold} of splits_final.json names no case of this data set in one of its halves")
    return halves["train"], halves["val"], f"fold {fold} of splits_final.json"
