"""JSON, CSV and text of an evaluation."""

from __future__ import annotations

import csv
import json

import pytest

from SAMMed3DLib.inference import InputError
from SAMMed3DTrainingLib.evaluate.evaluation_config import EvaluationConfig
from SAMMed3DTrainingLib.evaluate.evaluation_report import Evaluation, text_report, write_csv, write_json, write_text
from SAMMed3DTrainingLib.evaluate.nodule_scores import summarize

from .scores import score


def evaluation(scores=None, **model) -> Evaluation:
    scores = tuple(scores or (score(patient=f"Müller {n}", dice=(0.5, 0.8, 0.9, 0.91, 0.92, 0.93)) for n in range(3)))
    return Evaluation(
        EvaluationConfig(num_clicks=6),
        {"title": "a model", "model": "m", **model},
        "the data's Ts part",
        ("a note",),
        {"lidc/Ts/bad": "it is 4D"},
        scores,
        summarize(scores),
    )


def test_json_holds_everything(tmp_path):
    write_json(tmp_path / "results.json", evaluation())
    content = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert content["schema"] == 1 and content["options"]["seed"] == 2023 and "torch" in content["versions"]
    assert content["skipped"] == {"lidc/Ts/bad": "it is 4D"} and content["notes"] == ["a note"]
    nodule = content["nodules"][0]
    assert nodule["dice"] == [0.5, 0.8, 0.9, 0.91, 0.92, 0.93] and nodule["patient"] == "Müller 0"
    assert set(nodule["nsd"]) == {"0.5", "1", "2"} and len(nodule["points_ras"]) == 6
    assert content["summary"][0]["noc"]["0.8"] == [2.0, 0.0] and content["summary"][0]["group"] == "all"


def test_csv_has_one_row_per_nodule(tmp_path):
    write_csv(tmp_path / "nodules.csv", evaluation().scores)
    with (tmp_path / "nodules.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and rows[1]["patient"] == "Müller 1"
    assert float(rows[0]["dice_6"]) == 0.93 and float(rows[0]["nsd_0.5mm"]) == 0.93 and rows[0]["clicks"] == "6"


def test_text_has_the_tables_and_what_to_keep_in_mind(tmp_path):
    write_text(tmp_path / "summary.txt", evaluation())
    text = (tmp_path / "summary.txt").read_text(encoding="utf-8")
    assert text == text_report(evaluation()) + "\n"
    head = next(line for line in text.splitlines() if line.startswith("group"))
    assert head.split()[3:9] == ["@1", "@2", "@3", "@5", "@6", "95"]
    assert "3 patients are few" in text and "last click" in text and "LEFT OUT lidc/Ts/bad: it is 4D" in text
    one = text_report(evaluation([score(dice=(0.5,))]))
    assert "one patient only" in one and "note: a note" in one
    sliced = text_report(evaluation(rounds="each round gives one click in every slice"))
    assert "rounds of clicks" in sliced and "more clicks than a 3D model" in sliced


def test_a_place_that_cannot_be_written_is_an_input_error(tmp_path):
    for write in (write_json, write_text):
        with pytest.raises(InputError, match="could not be written"):
            write(tmp_path / "gone" / "file", evaluation())
    with pytest.raises(InputError, match="could not be written"):
        write_csv(tmp_path / "gone" / "file", evaluation().scores)
