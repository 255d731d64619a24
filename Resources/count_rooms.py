"""Counts the files, lines and imports of each room, as the table in Resources/Documentation/architecture.md.

    python Resources/count_rooms.py

A room imports another where a file of it names the other in an import, at file scope or in a function.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = (ROOT / "SAMMed3D" / "SAMMed3DLib", ROOT / "SAMMed3DTraining" / "SAMMed3DTrainingLib")


def main() -> None:
    """Prints the table."""
    sys.stdout.write("| room | files | lines | imports from |\n|---|---|---|---|\n")
    totals = [0, 0]
    for library in LIBRARIES:
        sys.stdout.write(f"| **{library.name}** (root) | {row(library, library.glob('*.py'), totals)} |\n")
        for room in sorted(path for path in library.iterdir() if (path / "__init__.py").is_file()):
            sys.stdout.write(f"| {room.name}/ | {row(library, room.rglob('*.py'), totals)} |\n")
    modules = [ROOT / library.parent.name / f"{library.parent.name}.py" for library in LIBRARIES]
    scripts = [*modules, *(ROOT / "SAMMed3DTraining").glob("t*.py")]
    sys.stdout.write(f"| modules and scripts | {row(ROOT, scripts, totals)} |\n")
    sys.stdout.write(f"| **product** | {totals[0]} | {totals[1]} | |\n")
    for name in ("SAMMed3DTraining/Research", "Testing"):
        sys.stdout.write(f"| {name} | {row(ROOT, (ROOT / name).rglob('*.py'), [0, 0])} |\n")


def row(library: Path, files: Iterator[Path] | list[Path], totals: list[int]) -> str:
    """The cells of some files: how many, their lines, and the rooms of the two libraries that they import."""
    count = lines = 0
    rooms: set[str] = set()
    for file in files:
        text = file.read_text(encoding="utf-8")
        count, lines = count + 1, lines + text.count("\n")
        for name in imported(file, text):
            package, _, rest = name.partition(".")
            room = rest.partition(".")[0]
            for other in LIBRARIES:
                if package == other.name and (other / room / "__init__.py").is_file() and room:
                    rooms.add(room if other == library else f"{package}.{room}")
        if file.parent.parent == library:
            rooms.discard(file.parent.name)
    totals[0], totals[1] = totals[0] + count, totals[1] + lines
    return f"{count} | {lines} | {', '.join(sorted(rooms)) if library != ROOT else ''}"


def imported(file: Path, text: str) -> Iterator[str]:
    """Full names of the modules that a file imports."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    package = parts[1:-1]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)


if __name__ == "__main__":
    main()
