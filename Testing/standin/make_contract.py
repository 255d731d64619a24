"""Writes contract.json: what PythonQt shows of each class, read from the headers of Slicer, CTK, PythonQt and Qt 5.

    python Testing/standin/make_contract.py --sources /path/to/sources --qt /usr/include/x86_64-linux-gnu/qt5

``--sources`` holds checkouts named Slicer, CTK and pythonqt. The stand-in refuses every class, property, method,
signal and enum value that is not listed, so a name that Slicer would not know cannot pass a test. Only names of the
interface are taken, as facts; run it again when a class is added to CLASSES or the support floor moves.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

CONTRACT = Path(__file__).with_name("contract.json")

#: Where a class comes from -> its names. Base classes are added by themselves.
CLASSES = {
    "Qt": """QObject QTimer QSettings QStandardPaths QUrl QSize QPoint QRect QByteArray QProcess QFile QDir QMimeData
        QEvent QItemSelectionModel QModelIndex QSignalBlocker QIcon QPixmap QImage QColor QPalette QFont
        QFontMetrics QCursor QPainter QPen QBrush QKeySequence QClipboard QDesktopServices QKeyEvent QMouseEvent
        QApplication QWidget QFrame QLabel QPushButton QToolButton QCheckBox QRadioButton QComboBox QLineEdit
        QTextEdit QPlainTextEdit QSpinBox QDoubleSpinBox QSlider QProgressBar QTableWidget QTableWidgetItem
        QTreeWidget QTreeWidgetItem QListWidget QListWidgetItem QHeaderView QStackedWidget QTabWidget QGroupBox
        QSplitter QScrollArea QMenu QAction QShortcut QDialog QMessageBox QFileDialog QInputDialog QProgressDialog
        QDialogButtonBox QHBoxLayout QVBoxLayout QGridLayout QFormLayout QSizePolicy QSpacerItem QStyle QButtonGroup
        QMainWindow QStatusBar QToolTip QAbstractItemView QCompleter""",
    "CTK": """ctkCollapsibleButton ctkCollapsibleGroupBox ctkPathLineEdit ctkDirectoryButton ctkSliderWidget
        ctkDoubleSpinBox ctkComboBox ctkCheckBox ctkMenuButton ctkFittedTextBrowser ctkMessageBox
        ctkColorPickerButton ctkSearchBox""",
    "Slicer": """qMRMLWidget qMRMLNodeComboBox qMRMLCheckableNodeComboBox qMRMLSliceWidget qMRMLSliceView
        qMRMLThreeDWidget qMRMLThreeDView qMRMLPlotView qMRMLPlotWidget qSlicerLayoutManager qSlicerAbstractModuleWidget
        qSlicerScriptedLoadableModule qSlicerScriptedLoadableModuleWidget qSlicerModuleManager qSlicerApplication""",
}
#: What PythonQt itself adds to every QObject (PythonQtStdDecorators).
_EVERY_OBJECT = frozenset(
    (
        "connect",
        "disconnect",
        "metaObject",
        "parent",
        "setParent",
        "children",
        "findChild",
        "findChildren",
        "setProperty",
        "property",
        "tr",
        "className",
        "inherits",
        "help",
        "delete",
        "deleteLater",
        "dynamicPropertyNames",
    )
)
_ACCESS = re.compile(r"^(public|protected|private|signals|Q_SIGNALS)(\s+(?:slots|Q_SLOTS))?\s*:$")
_CLASS = re.compile(r"\bclass\s+(?:[A-Z]\w*_EXPORT\s+)?(?P<name>\w+)(?:\s+final)?(?P<bases>\s*:\s*[^{;]*)?\s*\{")
_METHOD = re.compile(
    r"(?P<name>\w+)\s*\((?P<arguments>.*?)\)\s*(?:const)?\s*(?:override|final|=\s*0|noexcept)*\s*$", re.DOTALL
)
_PROPERTY = r"Q_PROPERTY\s*\(([^()]*(?:\([^()]*\)[^()]*)*)\)"
_MACROS = r"\b(?:Q_OBJECT|Q_GADGET)\b|\bQ_(?:ENUMS?|FLAGS?|DISABLE_COPY|DECLARE_PRIVATE|DECLARE_FLAGS)\s*\([^)]*\)\s*;?"
_SECTION = r"(Q_SIGNALS|signals|Q_SLOTS|slots|public|protected|private)(\s+(?:Q_SLOTS|slots))?\s*:(?!:)"
_ARGUMENT = re.compile(
    r"^(?P<type>(?:const\s+)?(?:unsigned\s+|long\s+)*[\w:]+(?:<[^>]*>)?(?:\s+const)?[*&]*)(?:\s*\w+)?$"
)


@dataclass
class Description:
    """One class: its bases and what it adds to them."""

    origin: str
    bases: list[str] = field(default_factory=list)
    properties: dict[str, str] = field(default_factory=dict)  # name -> "r" or "rw"
    signals: set[str] = field(default_factory=set)  # signatures
    methods: set[str] = field(default_factory=set)
    enums: set[str] = field(default_factory=set)  # values


def main() -> int:
    """Reads the headers and writes the list. Returns 1 when a class is in no header."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=Path, required=True)
    parser.add_argument("--qt", type=Path, required=True)
    options = parser.parse_args()
    wrappers = _wrappers(options.sources / "pythonqt" / "generated_cpp_515")
    headers = _headers(options.qt, options.sources)
    found: dict[str, Description] = {}
    missing = []
    pending = [(name, origin) for origin, names in CLASSES.items() for name in names.split()]
    while pending:
        name, origin = pending.pop()
        if name in found:
            continue
        description = _describe(name, headers, wrappers)
        if description is None:
            missing.append(name)
            continue
        found[name] = description
        pending += [(base, origin) for base in description.bases]
    _add_decorators(found, options.sources)
    found["Qt"] = _namespace(options.qt / "QtCore" / "qnamespace.h")
    lines = (f"{json.dumps(name)}: {json.dumps(_as_json(found[name]), sort_keys=True)}" for name in sorted(found))
    CONTRACT.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    sys.stdout.write(f"{len(found)} classes written to {CONTRACT}; in no header: {missing}\n")
    return 1 if set(missing) & {name for names in CLASSES.values() for name in names.split()} else 0


def _headers(qt: Path, sources: Path) -> dict[str, tuple[str, Path]]:
    """Class name -> (where from, header)."""
    places = [("Qt 5.15", qt / module, "q*.h") for module in ("QtCore", "QtGui", "QtWidgets")]
    places.append(("CTK", sources / "CTK" / "Libs", "ctk*.h"))
    slicer = sources / "Slicer"
    places += [("Slicer", slicer / part, "q*.h") for part in ("Libs/MRML/Widgets", "Base", "Modules/Loadable")]
    result: dict[str, tuple[str, Path]] = {}
    for origin, folder, pattern in places:
        for path in sorted(folder.rglob(pattern)):
            for match in _CLASS.finditer(_plain(path)):
                result.setdefault(match["name"], (origin, path))
    return result


def _plain(path: Path) -> str:
    """A header without comments and preprocessor lines."""
    text = path.read_text(encoding="utf-8", errors="replace")
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
    text = _first_branches(text.replace("\\\n", " "))
    return re.sub(_SECTION, r"\1\2:", text)


def _first_branches(text: str) -> str:
    """Without preprocessor lines, and of each condition only the first branch."""
    kept: list[str] = []
    skipping: list[bool] = []
    for line in text.splitlines():
        directive = re.match(r"\s*#\s*(\w+)", line)
        if directive is None:
            if not any(skipping):
                kept.append(line)
        elif directive[1].startswith("if"):
            skipping.append("Q_CLANG_QDOC" in line or "Q_QDOC" in line)
        elif directive[1] in ("else", "elif") and skipping:
            skipping[-1] = not skipping[-1]
        elif directive[1] == "endif" and skipping:
            skipping.pop()
    return "\n".join(kept)


def _describe(name: str, headers: dict[str, tuple[str, Path]], wrappers: dict[str, str]) -> Description | None:
    if name not in headers:
        return None
    origin, path = headers[name]
    text = _plain(path)
    match = next(match for match in _CLASS.finditer(text) if match["name"] == name)
    bases = re.findall(r"public\s+(?:virtual\s+)?(\w+)", match["bases"] or "")
    result = Description(origin, [base for base in bases if base in headers and not base.startswith("QPaintDevice")])
    _read_body(_braces(text, match.end() - 1), result)
    if name in wrappers:
        _read_wrapper(name, wrappers[name], result)
    if name == "QObject":
        result.methods |= _EVERY_OBJECT
    return result


def _braces(text: str, start: int) -> str:
    depth = 0
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start + 1 : position]
    return text[start + 1 :]


def _read_body(body: str, result: Description) -> None:
    for match in re.finditer(_PROPERTY, body):
        words = match[1].replace("*", " ").split()
        name = words[words.index("READ") - 1] if "READ" in words else words[1]
        result.properties[name] = "rw" if "WRITE" in words or "MEMBER" in words else "r"
    for match in re.finditer(r"\benum\s+(?:class\s+)?\w*\s*(?::\s*\w+\s*)?\{([^}]*)\}", body):
        result.enums |= {part.partition("=")[0].strip() for part in match[1].split(",") if part.strip()}
    body = re.sub(_PROPERTY + r"\s*;?|\benum\b[^;]*;|" + _MACROS, ";", body)
    access, slots = "private", False
    for statement in _statements(body):
        words = " ".join(statement.split())
        section = _ACCESS.match(words)
        if section:
            access, slots = section[1].replace("Q_SIGNALS", "signals"), bool(section[2])
            continue
        invokable = "Q_INVOKABLE" in words
        method = _METHOD.search(re.sub(r"=\s*(?:\w|::|\(\)|\"|<|>|-|\.)+\s*(?=[,)])", "=0", words))
        if not method or "operator" in words or words.startswith(("friend", "typedef", "template")):
            continue
        if access == "signals":
            result.signals |= _signatures(method["name"], method["arguments"])
        elif access == "public" and (slots or invokable) or invokable:
            result.methods.add(method["name"])


def _statements(body: str) -> list[str]:
    """Declarations at the class's own level; bodies of inline functions are dropped."""
    result, current, depth = [], "", 0
    for character in body:
        if character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if depth == 0:
                result.append(current)
                current = ""
        elif depth == 0:
            if character == ";" or (character == ":" and _ACCESS.match(current.strip() + ":")):
                result.append(current.strip() + (":" if character == ":" else ""))
                current = ""
            else:
                current += character
    return result


def _signatures(name: str, arguments: str) -> set[str]:
    """The signature and those that moc makes by leaving out default arguments."""
    arguments = arguments.replace("QPrivateSignal", "").strip().rstrip(",")
    parts = [part.strip() for part in re.split(r",(?![^<]*>)", arguments) if part.strip() and part.strip() != "void"]
    types = [_type(part) for part in parts]
    result = {f"{name}({','.join(types)})"}
    for count in range(len(parts) - 1, -1, -1):
        if "=" not in parts[count]:
            break
        result.add(f"{name}({','.join(types[:count])})")
    return result


def _type(argument: str) -> str:
    """An argument's type as in a normalized signature."""
    text = argument.partition("=")[0].strip()
    text = re.sub(r"\s*([*&<>,])\s*", r"\1", text)
    match = _ARGUMENT.match(text)
    name = match["type"].strip() if match else text
    if name.startswith("const ") and name.endswith("&"):
        name = name[len("const ") : -1]
    elif name.startswith("const ") and not name.endswith("*"):
        name = name[len("const ") :]
    return name


def _wrappers(folder: Path) -> dict[str, str]:
    """Qt class -> the body of its generated PythonQt wrapper."""
    result: dict[str, str] = {}
    for path in sorted(folder.glob("com_trolltech_qt_*/*.h")):
        text = path.read_text(encoding="utf-8", errors="replace")
        for match in re.finditer(r"class PythonQtWrapper_(\w+)\s*:\s*public QObject\s*\{", text):
            result.setdefault(match[1], _braces(text, match.end() - 1))
    return result


def _read_wrapper(name: str, body: str, result: Description) -> None:
    for match in re.finditer(r"enum\s*\w*\s*\{([^}]*)\}", body):
        result.enums |= {part.partition("=")[0].strip() for part in match[1].split(",") if part.strip()}
    for match in re.finditer(rf"\b(\w+)\({name}\*\s+\w+", body):
        if not match[1].startswith(("py_q_", "delete_", "new_")):
            result.methods.add(match[1])
    result.methods |= {match[1] for match in re.finditer(rf"\bstatic_{name}_(\w+)\(", body)}


def _add_decorators(found: dict[str, Description], sources: Path) -> None:
    """Methods that CTK's and Slicer's PythonQt decorators add to a class."""
    for path in sorted(sources.rglob("*PythonQtDecorators.h")):
        text = _plain(path)
        for match in re.finditer(r"\b(\w+)\s*\(\s*(\w+)\s*\*\s*\w+", text):
            method, name = match[1], match[2]
            if name in found and not method.startswith(("new_", "delete_")):
                found[name].methods.add(method)
        for match in re.finditer(r"\bstatic_(\w+?)_(\w+)\s*\(", text):
            if match[1] in found:
                found[match[1]].methods.add(match[2])


def _namespace(path: Path) -> Description:
    result = Description("Qt 5.15")
    for match in re.finditer(r"\benum\s+(?:class\s+)?\w*\s*(?::\s*\w+\s*)?\{([^}]*)\}", _plain(path)):
        result.enums |= {part.partition("=")[0].strip() for part in match[1].split(",") if part.strip()}
    return result


def _as_json(description: Description) -> dict[str, object]:
    parts = {"origin": description.origin, "bases": description.bases, "properties": description.properties}
    lists = {name: sorted(getattr(description, name)) for name in ("signals", "methods", "enums")}
    return {name: value for name, value in {**parts, **lists}.items() if value}


if __name__ == "__main__":
    sys.exit(main())
