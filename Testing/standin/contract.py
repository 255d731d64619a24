"""What PythonQt shows of a C++ class: contract.json with its bases merged."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PATH = Path(__file__).with_name("contract.json")


@dataclass(frozen=True)
class Members:
    """The interface of one class, inherited names included."""

    name: str
    ancestors: tuple[str, ...]
    properties: dict[str, str]
    signals: frozenset[str]
    methods: frozenset[str]
    enums: frozenset[str]

    def signatures(self, signal: str) -> list[str]:
        """Signatures of a signal, the one with most arguments first."""
        return sorted((s for s in self.signals if s.partition("(")[0] == signal), key=len, reverse=True)


@functools.cache
def _classes() -> dict[str, dict[str, Any]]:
    return json.loads(_PATH.read_text(encoding="utf-8"))


def known(name: str) -> bool:
    """Whether the class is listed."""
    return name in _classes()


@functools.cache
def members(name: str) -> Members:
    """The interface of a listed class. Raises KeyError."""
    entry = _classes()[name]
    ancestors: tuple[str, ...] = (name,)
    properties: dict[str, str] = {}
    signals, methods, enums = set(entry.get("signals", ())), set(entry.get("methods", ())), set(entry.get("enums", ()))
    for base in entry.get("bases", ()):
        inherited = members(base)
        ancestors += inherited.ancestors
        properties |= inherited.properties
        signals |= inherited.signals
        methods |= inherited.methods
        enums |= inherited.enums
    properties |= entry.get("properties", {})
    if name == "QTimer":
        del properties["singleShot"]  # hidden by PythonQt: the name belongs to the static function
    return Members(name, ancestors, properties, frozenset(signals), frozenset(methods), frozenset(enums))
