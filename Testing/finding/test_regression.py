"""The regressions that find nodules: what they compute, and the file their weights come from."""

from __future__ import annotations

import json

import numpy as np
import pytest

from Research.logistic import write_section
from SAMMed3DLib.finding import blob_ranking, nodule_score, regression
from SAMMed3DLib.finding.regression import Regression, fitted, fitted_values
from SAMMed3DLib.inference.errors import InputError
from SAMMed3DLib.weights import FITTED, resource_path

SHIPPED = {
    ("blob_ranking", "peak"): (blob_ranking.MEASURES, None),
    ("blob_rays", "blob"): (blob_ranking.RAY_MEASURES, None),
    ("nodule_score", "place"): (nodule_score.PLACE, nodule_score.COMBINED),
    ("nodule_score", "click"): (nodule_score.OBJECT, nodule_score.COMBINED),
}


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A copy of the file that the module reads."""
    copy = tmp_path / "finding.json"
    copy.write_bytes(resource_path(FITTED).read_bytes())
    monkeypatch.setattr(regression, "resource_path", lambda name: copy)
    fitted_values.cache_clear()
    yield copy
    fitted_values.cache_clear()


def test_terms_are_bounded_inputs_and_products_of_some() -> None:
    rule = Regression(("a", "b", "c"), (1, 0, 0), (2, 1, 1), (1, 2, 3, 4, 5, 6), -1.0, ("a", "c"))
    assert rule.pairs == ((0, 0), (0, 2), (2, 2)) and rule.term_count == 6
    assert rule.terms([3.0, 9.0, -2.0]).tolist() == [1, 3, -2, 1, -2, 4]
    assert rule.log_odds([3.0, 9.0, -2.0]) == 1 + 6 - 6 + 4 - 10 + 24 - 1
    ones = Regression(("a",), (0,), (1,), (7, 0, 0))
    assert ones.terms(np.zeros((2, 1))).tolist() == [[1, 0, 0]] * 2 and ones.log_odds([[5.0]]).tolist() == [7.0]
    assert ones.log_odds(np.zeros((2, 1), np.float32)).dtype == np.float32


@pytest.mark.parametrize("where", SHIPPED)
def test_every_shipped_regression_has_its_weights_and_says_how_they_were_made(where) -> None:
    names, multiplied = SHIPPED[where]
    rule = fitted(*where, names, multiplied)
    assert len(rule.weights) == rule.term_count and np.isfinite(rule.weights).all() and min(rule.scales) > 0
    assert fitted_values(where[0])["made_by"].startswith("python -m Research.") and fitted_values(where[0])["about"]


def test_what_a_fit_writes_is_what_the_module_reads(file) -> None:
    before = json.loads(file.read_text(encoding="utf-8"))
    rng = np.random.default_rng(0)
    rule = Regression(("x", "y"), tuple(rng.normal(size=2)), (1.0, 2.0), tuple(rng.normal(size=5)), 0.25)
    write_section(file, "nodule_score", "python -m Research.x", "About.", {"place": rule, "usual": {"response": -1.5}})
    assert max(len(line) for line in file.read_text(encoding="utf-8").splitlines()) > 200, "a list stands in one line"
    after = json.loads(file.read_text(encoding="utf-8"))
    assert after.pop("nodule_score")["usual"] == {"response": -1.5} and before.pop("nodule_score")
    assert after == before, "other sections stay"
    read = fitted("nodule_score", "place", ("x", "y"))
    inputs = rng.normal(size=(20, 2))
    assert read.log_odds(inputs) == pytest.approx(rule.log_odds(inputs), abs=2e-3)


def test_the_shipped_file_is_as_the_scripts_write_it(file) -> None:
    text = file.read_text(encoding="utf-8")
    rule = fitted("blob_ranking", "peak", blob_ranking.MEASURES)
    section = fitted_values("blob_ranking")
    write_section(file, "blob_ranking", section["made_by"], section["about"], {"peak": rule})
    assert file.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:500],
        lambda text: "[]",
        lambda text: text.replace('"peak"', '"Peak"'),
        lambda text: text.replace('"log blob"', '"blob"'),
        lambda text: text.replace("[-4.0445, ", "["),
        lambda text: text.replace('"centers"', '"center"'),
        None,
    ],
)
def test_a_file_that_is_missing_or_damaged_is_named_with_its_cure(file, damage) -> None:
    if damage is None:
        file.unlink()
    else:
        file.write_text(damage(file.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(InputError, match=r"finding\.json.*install SAMMed3D again"):
        fitted("blob_ranking", "peak", blob_ranking.MEASURES)
