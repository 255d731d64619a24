"""The translator: what Slicer's own function gives for the file that asks, which is asked once a text."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import types
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / "SAMMed3D" / "SAMMed3DLib" / "translation.py"


def load(monkeypatch: pytest.MonkeyPatch, **members) -> types.ModuleType:
    """The file under test, where ``slicer.i18n`` has these members."""
    module = types.ModuleType("slicer.i18n")
    vars(module).update(members)
    if "slicer" not in sys.modules:
        monkeypatch.setitem(sys.modules, "slicer", types.ModuleType("slicer"))
    monkeypatch.setitem(sys.modules, "slicer.i18n", module)
    spec = importlib.util.spec_from_file_location("translation_under_test", FILE)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def ask_elsewhere(tr, text: str) -> str:
    """Asks from another file."""
    return eval(compile("tr(text)", "/elsewhere/panel.py", "eval"), {"tr": tr, "text": text})


def test_the_context_is_the_file_that_asks_and_each_of_its_texts_is_looked_up_once(monkeypatch) -> None:
    asked: list[tuple[str, str]] = []

    def tr(text: str) -> str:
        context = Path(inspect.currentframe().f_back.f_code.co_filename).stem  # as Slicer's does it
        asked.append((context, text))
        return f"{context}: {text}"

    translation = load(monkeypatch, tr=tr)
    assert [translation.tr("Accept") for _ in range(3)] == ["test_translation: Accept"] * 3
    assert translation.tr("Undo") == "test_translation: Undo"
    assert [ask_elsewhere(translation.tr, "Accept") for _ in range(2)] == ["panel: Accept"] * 2
    assert asked == [("test_translation", "Accept"), ("test_translation", "Undo"), ("panel", "Accept")]


def test_without_the_application_texts_stay_as_they_are(monkeypatch) -> None:
    assert load(monkeypatch).tr("{n} nodules") == "{n} nodules"
