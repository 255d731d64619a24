"""What Slicer's Extensions Index checks of an extension's repository, checked before it does.

After scripts/check_description_files.py and the checklist for tier 3 of github.com/Slicer/ExtensionsIndex, and its
schema 1.0.2. Resources/Documentation/extensions_index.md has the state of every line of the checklist.
"""

from __future__ import annotations

import json
import re
import struct
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("SAMMed3D", "SAMMed3DTraining")
LICENSE_NAMES = {"LICENSE", "LICENCE", "License.txt", "license.txt", "LICENSE.txt", "COPYING", "COPYING.txt"}
#: Schema 1.0.2: key -> the type of its value. The first three are required, others than these forbidden.
SCHEMA_KEYS = {
    "$schema": str,
    "category": str,
    "scm_url": str,
    "scm_revision": str,
    "scm_type": str,
    "build_dependencies": list,
    "dicom_support_rule": str,
    "build_subdirectory": str,
    "enabled": bool,
    "tier": int,
}
#: Text that names addresses; Testing is about other addresses.
TEXTS = ("*.toml", "*.md", "*.json", "*.yml", "*.yaml", "*.py", "CMakeLists.txt")
(ENTRY,) = (ROOT / "Resources").glob("*.json")


@pytest.fixture(scope="module")
def cmake() -> str:
    return (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def entry() -> dict:
    return json.loads(ENTRY.read_text(encoding="utf-8"))


def value(cmake: str, name: str) -> str:
    """The value of ``set(EXTENSION_... "...")``, which has to stand on one line, in quotes."""
    found = re.findall(rf'^set\(EXTENSION_{name} "([^"\n]+)"\)$', cmake, re.MULTILINE)
    assert len(found) == 1, f"EXTENSION_{name}"
    return found[0]


def in_repository(url: str, homepage: str) -> Path:
    """The file behind the raw address of a file on the main branch."""
    owner_and_name = homepage.removeprefix("https://github.com/")
    prefix = f"https://raw.githubusercontent.com/{owner_and_name}/main/"
    assert url.startswith(prefix), url
    return ROOT / url.removeprefix(prefix)


def png_size(file: Path) -> tuple[int, int]:
    start = file.read_bytes()[:24]
    assert start[:8] == b"\x89PNG\r\n\x1a\n", file
    return struct.unpack(">II", start[16:24])


def test_the_extension_is_named_alike_everywhere(cmake, entry) -> None:
    (name,) = re.findall(r"project\(\s*(\w+)", cmake)
    assert name == ENTRY.stem
    assert not name.lower().startswith("slicer"), "the repository's name does, the extension's does not"
    repository = entry["scm_url"].rpartition("/")[2].removesuffix(".git")
    assert repository == f"Slicer{name}"
    assert entry["scm_url"] == value(cmake, "HOMEPAGE") + ".git"
    for module in MODULES:
        assert f"add_subdirectory({module})" in cmake


def test_the_catalog_entry_keeps_to_its_schema(entry) -> None:
    assert set(entry) <= set(SCHEMA_KEYS)
    assert {"$schema", "category", "scm_url"} <= set(entry)
    assert [key for key, value in entry.items() if type(value) is not SCHEMA_KEYS[key]] == []
    assert entry["category"] == "Segmentation"
    assert entry["tier"] in (1, 3, 5)
    assert b"\r" not in ENTRY.read_bytes()
    assert entry["$schema"].endswith("/slicer-extension-catalog-entry-schema-v1.0.2.json#")


def test_the_repository_has_one_address(cmake) -> None:
    """The homepage in CMakeLists.txt is the address; whoever moves the repository finds all others by it."""
    homepage = value(cmake, "HOMEPAGE").removeprefix("https://github.com/")
    run = subprocess.run(["git", "ls-files", "-z", "--", *TEXTS], cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in run.stdout.split("\0") if name and not name.startswith("Testing/")]
    pattern = re.compile(r"(?:github|githubusercontent)\.com/(\w+/Slicer\w*SAMMed3D\w*)")
    found = {
        (file.relative_to(ROOT).as_posix(), address)
        for file in files
        if file.is_file()
        for address in pattern.findall(file.read_text(encoding="utf-8"))
    }
    assert {address for _name, address in found} == {homepage}, found
    assert {"CMakeLists.txt", "pyproject.toml", "README.md", "Resources/SAMMed3D.json"} <= {name for name, _ in found}


def test_dependencies_agree(cmake, entry) -> None:
    (depends,) = re.findall(r"^set\(EXTENSION_DEPENDS ([^)]+)\)$", cmake, re.MULTILINE)
    assert depends.strip('"').split() == entry["build_dependencies"] == ["PyTorch"]


def test_the_description_says_it_in_a_sentence_or_two(cmake) -> None:
    description = value(cmake, "DESCRIPTION")
    assert 1 <= len(re.findall(r"\.(?:\s|$)", description)) <= 2
    assert value(cmake, "CONTRIBUTORS")


def test_icon_and_screenshots_are_pictures_of_this_repository(cmake) -> None:
    homepage = value(cmake, "HOMEPAGE")
    assert png_size(in_repository(value(cmake, "ICONURL"), homepage)) == (128, 128)
    screenshots = value(cmake, "SCREENSHOTURLS").split()
    assert screenshots
    for url in screenshots:
        width, height = png_size(in_repository(url, homepage))
        assert min(width, height) >= 300


def test_the_index_s_script_finds_name_icon_and_screenshots(cmake) -> None:
    """It reads CMakeLists.txt by patterns: the first project, and these two, each in quotes in its brackets."""
    assert re.findall(r"project\s*\(\s*([^\s)]+)", cmake, re.IGNORECASE)[0] == ENTRY.stem
    for name in ("ICONURL", "SCREENSHOTURLS"):
        (urls,) = re.findall(rf'set\s*\(EXTENSION_{name}\s*"([^"]+)"\)', cmake)
        assert all(url.startswith("https://") and url.lower().endswith(".png") for url in urls.split())


def test_the_lines_that_slicer_needs_are_there_in_order(cmake) -> None:
    needed = [
        "find_package(Slicer REQUIRED)",
        "include(${Slicer_USE_FILE})",
        "add_subdirectory(SAMMed3D)",
        "## NEXT_MODULE",
        "include(${Slicer_EXTENSION_GENERATE_CONFIG})",
        "include(${Slicer_EXTENSION_CPACK})",
    ]
    places = [cmake.index(line) for line in needed]
    assert places == sorted(places)


def test_the_license_lies_where_it_is_looked_for_and_is_named() -> None:
    assert LICENSE_NAMES & {file.name for file in ROOT.iterdir()}
    assert "Apache-2.0" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_homepage_shows_and_cites() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", readme)
    assert pictures, "a picture of what it does"
    for picture in pictures:
        assert (ROOT / picture).is_file(), picture
    assert "arxiv.org/abs/2310.15161" in readme or "arXiv:2310.15161" in readme, "the publication behind it"
    for module in MODULES:
        if (ROOT / module / f"{module}.py").is_file():
            assert module in readme, "a sentence on each module"


def test_the_repository_stays_far_below_the_limit_of_the_index() -> None:
    run = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in run.stdout.split("\0") if name]
    assert sum(file.stat().st_size for file in files if file.is_file()) < 50e6
