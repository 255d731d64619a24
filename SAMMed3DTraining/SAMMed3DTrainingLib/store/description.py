"""``dataset.json`` as nnU-Net version 2 wants it, with what this package reads beside it.

Fields: https://github.com/MIC-DKFZ/nnUNet, documentation/dataset_format.md and region_based_training.md. Every nodule
of a case has a value of its own; nnU-Net is told that all of them together are one region, "nodule", and learns that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .dataset_files import ENDING
from .errors import StoreError
from .manifest import Manifest

DESCRIPTION = "dataset.json"


def read_description(folder: Path) -> dict[str, Any]:
    """The file's content, empty where there is none. Raises StoreError."""
    path = folder / DESCRIPTION
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}; correct the file or remove it") from error
    if not isinstance(content, dict):
        raise StoreError(f"{path} holds no JSON object; correct the file or remove it")
    return content


def adopt(description: Mapping[str, Any], has_cases: bool) -> Manifest:
    """A manifest for a folder that others have begun.

    Raises:
        StoreError: numbered nodules would be mistaken for something else there, or cannot be told apart by nnU-Net.
    """
    if not description:
        if has_cases:
            raise StoreError("it holds cases but no dataset.json that says what their labels mean")
        return Manifest()
    if "dataset" in description or isinstance(description.get("training"), list):
        raise StoreError("its dataset.json lists its files one by one")
    channels = description.get("channel_names", description.get("modality", {}))
    if isinstance(channels, dict) and len(channels) > 1:
        raise StoreError(f"its images have {len(channels)} channels")
    ending = description.get("file_ending", ENDING)
    if ending != ENDING:
        raise StoreError(f"its files end in {ending}, new ones in {ENDING}")
    return _class_of(description.get("labels"))


def describe(old: Mapping[str, Any], manifest: Manifest, name: str, training_cases: int) -> str:
    """The new ``dataset.json``; what others have written there stays, but for labels, patients and the number.

    Args:
        old: its content so far.
        manifest: the cases written here.
        name: of the data set, where it has none.
        training_cases: number of cases in imagesTr.
    """
    values = list(range(1, manifest.highest + 1))
    patients = old.get("patients")
    others = {k: v for k, v in patients.items() if k not in manifest.cases} if isinstance(patients, dict) else {}
    own = {case: record.patient for case, record in sorted(manifest.cases.items()) if record.patient}
    content = {
        "name": name, "description": "CT in Hounsfield units; every nodule of a case has its own label value",
        "channel_names": {"0": "CT"},
        **old,
        "labels": {"background": 0, manifest.class_name: values if len(values) > 1 else 1},
        "numTraining": training_cases, "file_ending": ENDING,
        "patients": {**others, **own},
    }
    content.pop("regions_class_order", None)
    if len(values) > 1:
        content["regions_class_order"] = [1]
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _class_of(labels: Any) -> Manifest:
    """From {"background": 0, "nodule": 1}, version 1's {"0": "background", "1": "nodule"}, or one region."""
    classes: dict[str, int] = {}
    for key, value in (labels if isinstance(labels, dict) else {}).items():
        text, numbers = (value, key) if isinstance(value, str) else (key, value)
        try:
            highest = max((int(n) for n in (numbers if isinstance(numbers, list) else [numbers])), default=0)
        except (TypeError, ValueError) as error:
            raise StoreError(f"the labels in its dataset.json are not numbers ({text})") from error
        if highest > 0:
            classes[str(text)] = highest
    if len(classes) > 1:
        raise StoreError(f"its labels are several classes ({', '.join(list(classes)[:4])}), not numbered nodules")
    for name, highest in classes.items():
        return Manifest({}, highest, name)
    return Manifest()
