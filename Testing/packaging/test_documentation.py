"""What README and the documentation say can be done, can be done: links, pictures, commands, examples, figures."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTATION = ROOT / "Resources" / "Documentation"
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CHANGELOG.md", ".github/CONTRIBUTING.md", "Resources/model_card.md")),
        *DOCUMENTATION.rglob("*.md"),
    ]
)
PAGE_NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
PYTHON_PATH = [ROOT / "SAMMed3D", ROOT / "SAMMed3DTraining", ROOT / "Testing", ROOT / "Testing" / "benchmarks"]

#: Prints a JSON object: each command -> what it says when asked for help. One process, so that torch is imported once.
ASK_FOR_HELP = """
import contextlib, io, json, runpy, sys
sys.path[:0] = sys.argv[2:]
answers = {}
for command in json.loads(sys.argv[1]):
    words, said = command.split(), io.StringIO()
    sys.argv = [words[-1], "--help"]
    try:
        with contextlib.redirect_stdout(said):
            if words[0] == "sammed3d":
                from SAMMed3DLib.cli import main
                main([*words[1:], "--help"])
            elif words[:2] == ["-m", "SAMMed3DTrainingLib"]:
                sys.argv = ["SAMMed3DTrainingLib", *words[2:], "--help"]
                runpy.run_module("SAMMed3DTrainingLib", run_name="__main__")
            elif words[0] == "-m":
                runpy.run_module(words[1], run_name="__main__")
            else:
                runpy.run_path(words[0], run_name="__main__")
        answers[command] = said.getvalue()
    except SystemExit as end:
        answers[command] = said.getvalue() if not end.code else f"exit code {end.code}: {said.getvalue()}"
    except BaseException as error:
        answers[command] = f"{type(error).__name__}: {error}"
print(json.dumps(answers))
"""


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def without_code(text: str) -> str:
    return re.sub(r"`[^`]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


@cache
def anchors(page: Path) -> set[str]:
    """The fragments that GitHub gives a page's headings."""
    found = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.M), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in found}


@pytest.mark.parametrize("name", PAGE_NAMES)
def test_links_and_pictures_lead_somewhere(name: str) -> None:
    page = ROOT / name
    text = without_code(text_of(page))
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    dead = []
    for target in targets:
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (fragment and fragment not in anchors(file)):
            dead.append(target)
    assert not dead


@pytest.mark.parametrize("name", [name for name in PAGE_NAMES if name != "CHANGELOG.md"])
def test_files_that_are_named_exist(name: str) -> None:
    top = r"Testing|Resources|SAMMed3D\w*|inference|model|worker|\.github"
    named = re.findall(rf"`((?:{top})/[\w/.-]+\.\w+)`", text_of(ROOT / name))
    bases = (ROOT, ROOT / "SAMMed3D", ROOT / "SAMMed3DTraining", ROOT / "SAMMed3D" / "SAMMed3DLib")
    assert [each for each in named if not any((base / each).is_file() for base in bases)] == []


def test_every_page_is_reached_from_the_readme() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in reached:
            continue
        reached.add(page)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", without_code(text_of(page))):
            file = (page.parent / target).resolve()
            pages = file.glob("*.md") if file.is_dir() else [file]  # GitHub lists a folder's pages
            todo += [each for each in pages if each.suffix == ".md" and each.is_file()]
    assert {page.relative_to(ROOT).as_posix() for page in set(PAGES) - reached} == set()


def test_the_readme_is_a_landing_page() -> None:
    assert text_of(ROOT / "README.md").count("\n") <= 150


def commands_of(text: str) -> Iterator[list[str]]:
    """The words of each command in blocks of shell code and between backticks, comments left out."""
    blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    inline = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    for line in [*lines, *(" ".join(code.split()) for code in inline)]:
        for part in line.split("&&"):
            if re.match(r"\s*(nice )?(\S*python3? |sammed3d )", part):
                words = shlex.split(part, comments=True)
                yield words[1:] if words[0] == "nice" else words


def program_of(words: list[str]) -> tuple[str, list[str]] | None:
    """What is started, as ASK_FOR_HELP takes it, and its options; None where a placeholder stands for it."""
    words = words if words[0] == "sammed3d" else words[1:]
    if words and words[0] == "Testing/bootstrap.py" and words[1:2] not in ([], ["test"]):
        words = ["sammed3d", *words[1:]]
    if not words or words[0] in ("-c", "Testing/bootstrap.py") or words[:2] in (["-m", "pytest"], ["-m", "mypy"]):
        return None
    count = {"sammed3d": 2, "-m": 3 if words[1:2] == ["SAMMed3DTrainingLib"] else 2}.get(words[0], 1)
    if words[:2] == ["sammed3d", "weights"] and len(words) > 2:
        count = 3
    start = words[:count]
    if any(re.search(r"\b[A-Z]{3,}\b|\.\.\.|[|{*]", word) for word in start):
        return None
    if words[0].endswith(".py"):
        folder = ROOT if (ROOT / words[0]).is_file() else ROOT / "SAMMed3DTraining"
        start = [str(folder / words[0])]
        if "argparse" not in text_of(folder / words[0]) and len(words) == 1:
            return None  # it takes no options, and would do its work
    return " ".join(start), [word.partition("=")[0] for word in words[count:] if re.match(r"--?[a-z]", word)]


@pytest.fixture(scope="module")
def said_commands() -> dict[str, set[str]]:
    """Program -> the options with which the documentation calls it."""
    found: dict[str, set[str]] = {}
    for page in PAGES:
        for words in commands_of(text_of(page)):
            program = program_of(words)
            if program is not None:
                found.setdefault(program[0], set()).update(program[1])
    return found


def test_the_documentation_is_looked_through(said_commands: dict[str, set[str]]) -> None:
    """Guards the reader of commands above: what is there for sure is seen."""
    assert "--point" in said_commands["sammed3d segment"]
    assert "--write" in said_commands["-m Research.score_fitting"]
    assert "--preset" in said_commands[str(ROOT / "SAMMed3DTraining" / "train.py")]
    assert len(said_commands) > 20


def test_every_command_exists_and_has_the_options_it_is_called_with(said_commands: dict[str, set[str]]) -> None:
    run = subprocess.run(
        [sys.executable, "-c", ASK_FOR_HELP, json.dumps(sorted(said_commands)), *map(str, PYTHON_PATH)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert run.returncode == 0, run.stderr
    helps = json.loads(run.stdout.splitlines()[-1])
    wrong = {
        command: [each for each in sorted(options) if not re.search(rf"(?<![\w-]){re.escape(each)}\b", helps[command])]
        for command, options in said_commands.items()
    }
    broken = {command: text for command, text in helps.items() if not text.lstrip().startswith("usage:")}
    if broken and find_spec("slicer") is None:
        broken = {command: text for command, text in broken.items() if "No module named 'slicer'" not in text}
    assert broken == {}
    assert {command: options for command, options in wrong.items() if options} == {}


def test_every_research_command_is_documented(said_commands: dict[str, set[str]]) -> None:
    """A script that makes or measures shipped weights and stands nowhere is lost."""
    scripts = {
        f"-m Research.{file.stem}"
        for file in (ROOT / "SAMMed3DTraining" / "Research").glob("*.py")
        if '__name__ == "__main__"' in text_of(file)
    }
    assert scripts - set(said_commands) == set()


def test_the_examples_in_python_run(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", text_of(DOCUMENTATION / "python.md"), flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 4
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT / "SAMMed3D"), "OMP_NUM_THREADS": "1"},  # other tests run beside it
    )
    assert run.returncode == 0, run.stderr
    volume, long_axis, _density, overlap = re.findall(r"-?\d+(?:\.\d+)?(?= mm3| mm,| HU|$)", run.stdout.splitlines()[0])
    # The nodule of the first example has a diameter of 21.87 mm.
    assert float(volume) == pytest.approx(5477, rel=0.25) and 21 < float(long_axis) < 35 and float(overlap) > 0.5
    assert (tmp_path / "nodule.seg.nrrd").is_file()


def figures(text: str) -> set[str]:
    return set(re.findall(r"\d+\.\d+", text))


@pytest.mark.parametrize(
    ("heading", "page"),
    [("How accurate", "accuracy.md"), ("What fine-tuning brings", "training.md"), ("How fast", "speed.md")],
)
def test_the_figures_of_the_readme_are_those_of_their_page(heading: str, page: str) -> None:
    section = text_of(ROOT / "README.md").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    assert len(figures(section)) > 4
    assert figures(section) - figures(text_of(DOCUMENTATION / page)) == set()
