"""The .ui files against the code that uses them and against the widget classes of Slicer (standin/contract.json)."""

from __future__ import annotations

import ast
import xml.etree.ElementTree as ElementTree
from functools import cache
from pathlib import Path

import pytest

from standin import contract

ROOT = Path(__file__).resolve().parents[2]
#: Module -> its .ui files. The module's file and its library's gui folder may use what they name.
FILES = sorted(ROOT.glob("SAMMed3D*/Resources/UI/*.ui"))
_INTERACTIVE = frozenset(
    (
        "QPushButton",
        "QToolButton",
        "QCheckBox",
        "QRadioButton",
        "QComboBox",
        "QLineEdit",
        "QSpinBox",
        "QDoubleSpinBox",
        "QSlider",
        "QTableWidget",
        "QTreeWidget",
        "QListWidget",
        "QProgressBar",
        "QTextEdit",
        "QPlainTextEdit",
        "ctkSliderWidget",
        "ctkDoubleSpinBox",
        "ctkPathLineEdit",
        "ctkDirectoryButton",
        "ctkComboBox",
        "ctkCheckBox",
        "qMRMLNodeComboBox",
        "qMRMLCheckableNodeComboBox",
    )
)


@cache
def _tree(path: Path) -> ElementTree.Element:
    return ElementTree.parse(path).getroot()


def _widgets(path: Path) -> list[tuple[str, ElementTree.Element]]:
    return [(widget.get("class", ""), widget) for widget in _tree(path).iter("widget")]


def _names(path: Path) -> list[str]:
    root = _tree(path)
    found = [*root.iter("widget"), *root.iter("layout"), *root.iter("spacer"), *root.iter("action")]
    return [element.get("name", "") for element in found]


def _sources(path: Path) -> list[Path]:
    module = path.parents[2]
    files = [module / f"{module.name}.py", *sorted((module / f"{module.name}Lib" / "gui").glob("*.py"))]
    return [file for file in files if file.is_file()]


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _used_names(path: Path) -> dict[str, str]:
    """Name of a widget -> the source file that writes ``ui.name``, or names it beside an icon."""
    result: dict[str, str] = {}
    for file in _sources(path):
        for node in ast.walk(_parsed(file)):
            if isinstance(node, ast.Attribute):
                owner = getattr(node.value, "id", getattr(node.value, "attr", ""))
                if owner in ("ui", "_ui"):
                    result[node.attr] = file.name
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_ICONS":
                result |= dict.fromkeys(ast.literal_eval(node.value), file.name)
    return result


def _described_names(path: Path) -> dict[str, bool]:
    """Name of a widget in a view (``{"name": Control(...)}``) -> whether that gives it a tool tip."""
    result: dict[str, bool] = {}
    for file in _sources(path):
        nodes = list(ast.walk(_parsed(file)))
        named = {
            node.targets[0].id: node.value
            for node in nodes
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for node in nodes:
            for key, value in zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ():
                call = named.get(value.id) if isinstance(value, ast.Name) else value
                if isinstance(key, ast.Constant) and isinstance(call, ast.Call):
                    tip = _gives_tool_tip(call)
                    if tip is not None:
                        result[str(key.value)] = result.get(str(key.value), True) and tip
    return result


def _gives_tool_tip(call: ast.Call) -> bool | None:
    """Whether a Control has a tool tip; None for another call."""
    maker = getattr(call.func, "id", "")
    if maker not in ("Control", "_usable"):
        return None
    return any(word.arg == "toolTip" for word in call.keywords) or len(call.args) > (maker == "Control")


@pytest.fixture(params=FILES, ids=lambda path: path.name)
def ui_file(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_is_a_ui_file_for_each_module() -> None:
    modules = {path.parent.name for path in ROOT.glob("SAMMed3D*/SAMMed3D*.py") if path.stem == path.parent.name}
    assert {path.stem for path in FILES} >= modules


def test_names_are_unique_and_classes_known(ui_file: Path) -> None:
    names = _names(ui_file)
    assert sorted(set(names)) == sorted(names)
    unknown = {kind for kind, _widget in _widgets(ui_file) if not contract.known(kind)}
    assert not unknown, f"not in contract.json: {unknown}"


def test_every_name_in_the_code_is_in_the_file(ui_file: Path) -> None:
    missing = {name: file for name, file in _used_names(ui_file).items() if name not in _names(ui_file)}
    assert not missing


def test_every_name_in_the_views_is_in_the_file(ui_file: Path) -> None:
    assert set(_described_names(ui_file)) <= set(_names(ui_file))


def test_properties_belong_to_their_classes(ui_file: Path) -> None:
    for kind, widget in _widgets(ui_file):
        known = contract.members(kind).properties
        for entry in widget.findall("property"):
            name = entry.get("name", "")
            if entry.get("stdset") == "0":
                assert name == "SlicerParameterName", f"{widget.get('name')}: Qt Designer's {name}?"
            else:
                assert known.get(name, "r") == "rw", f"{kind} '{widget.get('name')}' has no property '{name}'"
            assert name != "styleSheet", "Slicer's conventions: no custom style sheets"


def test_everything_that_can_be_used_has_a_tool_tip(ui_file: Path) -> None:
    described = _described_names(ui_file)
    bare = []
    for kind, widget in _widgets(ui_file):
        in_file = any(entry.get("name") == "toolTip" for entry in widget.findall("property"))
        if kind in _INTERACTIVE and not in_file and not described.get(widget.get("name", "")):
            bare.append(widget.get("name"))
    assert not bare


def test_parameters_exist(ui_file: Path) -> None:
    source = _parsed(ui_file.parents[2] / f"{ui_file.stem}.py")
    declared = {
        item.target.id
        for node in source.body
        if isinstance(node, ast.ClassDef) and node.name == f"{ui_file.stem}ParameterNode"
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    }
    bound = {}
    for _kind, widget in _widgets(ui_file):
        for entry in widget.findall("property"):
            if entry.get("name") == "SlicerParameterName":
                bound[widget.get("name")] = entry.findtext("string")
    assert declared and set(bound.values()) <= declared
    assert len(set(bound.values())) == len(bound), "one widget for each parameter"


def test_connections_fit_the_classes(ui_file: Path) -> None:
    kinds = {widget.get("name"): kind for kind, widget in _widgets(ui_file)}
    connections = _tree(ui_file).findall("connections/connection")
    for connection in connections:
        sender, receiver = connection.findtext("sender", ""), connection.findtext("receiver", "")
        assert connection.findtext("signal") in contract.members(kinds[sender]).signals
        assert connection.findtext("slot", "").partition("(")[0] in contract.members(kinds[receiver]).methods
    selectors = {name for name, kind in kinds.items() if kind.startswith("qMRML") and kind != "qMRMLWidget"}
    given = {c.findtext("receiver") for c in connections if c.findtext("slot") == "setMRMLScene(vtkMRMLScene*)"}
    assert given == selectors, "every MRML widget gets the scene from the top widget"


def test_icons_named_in_the_code_are_there() -> None:
    source = _parsed(ROOT / "SAMMed3D" / "SAMMed3DLib" / "gui" / "panel.py")
    values = [
        ast.literal_eval(node.value)
        for node in source.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_ICONS"
    ]
    assert values
    for name in set(values[0].values()):
        for theme in ("light", "dark"):
            found = list((ROOT / "SAMMed3D" / "Resources" / "Icons" / theme).glob(f"{name}.*"))
            assert found, f"{theme}/{name}"
