"""Findings as JSON: there and back, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from SAMMed3DLib.inference.errors import InputError
from SAMMed3DLib.report.findings import (
    Change,
    FollowUp,
    Interval,
    Pair,
    from_json,
    is_uid,
    mean_of_tenths,
    read_findings,
    tenth,
    to_json,
    tracking_uid,
    write_findings,
)

from .made_nodules import findings, nodule


def followed():
    """Findings with a nodule of each course."""
    before, gone, after, new = (nodule(label=number, mean_mm=5.0 + number) for number in (1, 2, 3, 4))
    current = findings(after, new)
    pairs = (
        Pair(
            "matched",
            after.tracking_uid,
            before.tracking_uid,
            distance_mm=1.5,
            volume=Change(100.0, 150.0, 50.0, Interval(20.0, 80.0)),
            is_measurable=True,
            doubling_days=200.0,
            doubling_days_interval=Interval(120.0, math.inf),
        ),
        Pair("new", new.tracking_uid, None),
        Pair("gone", None, gone.tracking_uid, expected_ras=(1.0, 2.0, 3.0)),
    )
    prior = findings(date="2024-01-01").scan
    return dataclasses.replace(
        current, follow_up=FollowUp(prior, (before, gone), 152, pairs, tuple(float(x) for x in range(16)), "affine")
    )


@pytest.mark.parametrize("made", [findings(), findings(nodule(), nodule(9.0, "part-solid", 4.0, label=2)), followed()])
def test_there_and_back(made) -> None:
    assert from_json(to_json(made)) == made


def test_a_file_with_umlauts(tmp_path) -> None:
    path = tmp_path / "Müller größe.json"
    write_findings(path, followed())
    assert read_findings(path) == followed()
    assert "Müller Änne" in path.read_text(encoding="utf-8")


def spoiled(change) -> str:
    content = json.loads(to_json(followed()))
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda c: c.update(version=2), "newer SAMMed3D"),
        (lambda c: c.update(version=0), "never existed"),
        (lambda c: c.update(schema="x"), "holds no findings"),
        (lambda c: c["scan"].pop("name"), r"scan\.name is missing"),
        (lambda c: c["scan"].update(colour="red"), "field that is not known: colour"),
        (lambda c: c["scan"].update(spacing_mm=[1.0, 2.0]), "has 2 entries, not 3"),
        (lambda c: c["nodules"][0].update(type="fluffy"), "not one of solid"),
        (lambda c: c["nodules"][0].update(volume_mm3="12"), r"nodules\[0\]\.volume_mm3 is '12', not a number"),
        (lambda c: c["nodules"][0].update(label=True), "not of the kind int"),
        (lambda c: c["nodules"][0].update(tracking_uid="1.02"), "no DICOM UID"),
        (lambda c: c["nodules"][0].update(tracking_uid=c["nodules"][1]["tracking_uid"]), "one tracking UID"),
        (lambda c: c["nodules"][0].update(volume_mm3=1e6), "outside its interval"),
        (lambda c: c["follow_up"]["pairs"][0].update(prior_uid="1.2.9"), "not there"),
        (lambda c: c["follow_up"]["pairs"][0].update(status="unmatched"), "not there"),
        (lambda c: c["follow_up"].update(prior_to_current=[1.0]), "not 16"),
    ],
)
def test_what_is_refused(change, message) -> None:
    with pytest.raises(InputError, match=message):
        from_json(spoiled(change))


@pytest.mark.parametrize("text", ["", "[]", "{", to_json(findings())[:-20]])
def test_no_findings_at_all(text) -> None:
    with pytest.raises(InputError):
        from_json(text)


@pytest.mark.parametrize(
    "long, short, mean", [(6.04, 5.96, 6.0), (6.05, 5.9, 6.0), (8.0, 7.9, 8.0), (7.94, 7.94, 7.9), (0.3, 0.2, 0.3)]
)
def test_diameters_are_rounded_before_their_mean_is(long, short, mean) -> None:
    assert mean_of_tenths(long, short) == mean
    assert tenth(4.25) == 4.3 and tenth(4.2499) == 4.2 and tenth(5.95) == 6.0


def test_tracking_uids_are_uids_and_stay() -> None:
    uid = tracking_uid("1.2.3", "1", "Rundherd")
    assert is_uid(uid) and len(uid) <= 64
    assert uid == tracking_uid("1.2.3", "1", "Rundherd") != tracking_uid("1.2.3", "2", "Rundherd")
    assert not is_uid("2.25.01") and not is_uid("2.25.") and not is_uid("x") and not is_uid("1." + "2" * 64)
