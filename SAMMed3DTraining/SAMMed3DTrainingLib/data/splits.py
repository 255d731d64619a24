"""Which cases train, which choose the best weights, which are never seen: by patient, written down, reproducible."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from SAMMed3DLib.files.output_files import whole_file

from .datasets import Case, Dataset, DatasetError, ask

FILE_NAME = "split.json"


@dataclass(frozen=True)
class Split:
    """A run's cases.

    Attributes:
        train, val, test: labelled cases; ``test`` may be empty.
        source: where the split comes from, for logs and reports.
        notes: labelled cases that are in none of them, and why; one sentence each.
    """

    train: tuple[Case, ...]
    val: tuple[Case, ...]
    test: tuple[Case, ...]
    source: str
    notes: tuple[str, ...] = field(default=(), compare=False)


def split_cases(
    datasets: Sequence[Dataset], *, seed: int = 2023, val_fraction: float = 0.2, fold: int | None = None
) -> Split:
    """Splits all labelled cases of a run by patient.

    In this order: ``splits_final.json`` where a fold is asked for; a Val part; else a random choice of patients, which
    depends on nothing but the seed and the patients' names. A patient that appears in Ts is never trained on.

    Args:
        datasets: of one run.
        seed: of the random choice.
        val_fraction: share of the patients that is held out for validation, at least one.
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
    if fold is not None:
        train, val, source = _from_fold(datasets, pool, fold)
    elif val:
        held_out = {case.patient for case in val}
        train = [case for case in pool if case.patient not in held_out]
        source = "the data set's Val part"
        if not train:
            raise DatasetError("every patient of imagesTr is in imagesVal too: nothing is left to train on")
    else:
        train, val, source = _random(pool, seed, val_fraction)
    used = {case.full_name for case in (*train, *val, *test)}
    notes = _left_out([case for case in labelled if case.full_name not in used], tested, fold)
    return Split(tuple(train), tuple(val), test, source, notes)


def unused_folds(datasets: Sequence[Dataset], fold: int | None) -> tuple[str, ...]:
    """That ``splits_final.json`` is there and no fold of it is asked for, one sentence; () where it is used."""
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
        f"{len(names)} labelled cases are not used, {reason} ({', '.join(names[:3])}{', ...' * (len(names) > 3)})"
        for reason, names in reasons.items()
    )


def write_split(split: Split, folder: Path) -> Path:
    """Writes ``split.json`` into a run's folder, whole or not at all, and returns its path."""
    content = {
        "source": split.source,
        **{
            name: [{"case": case.full_name, "patient": case.patient} for case in getattr(split, name)]
            for name in ("train", "val", "test")
        },
    }
    path = folder / FILE_NAME
    with whole_file(path) as part:
        part.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    return path


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
            f"{path} names {len(missing)} cases that the data no longer holds ({', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}); bring them back, or remove the file to split anew"
        )
    train, val, test = (tuple(cases[name] for name in names[part]) for part in ("train", "val", "test"))
    return Split(train, val, test, source)


def _random(pool: list[Case], seed: int, val_fraction: float) -> tuple[list[Case], list[Case], str]:
    patients = sorted({case.patient for case in pool})
    if len(patients) == 1:
        return pool, list(pool), "one patient only: validation sees the training cases"
    count = min(max(1, round(val_fraction * len(patients))), len(patients) - 1)
    chosen = set(np.random.default_rng(seed).permutation(patients)[:count].tolist())
    train = [case for case in pool if case.patient not in chosen]
    val = [case for case in pool if case.patient in chosen]
    return train, val, f"random by patient, seed {seed}: {count} of {len(patients)} patients held out"


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
