"""Enum values as PythonQt gives them: integers that can be combined."""

from __future__ import annotations

import enum
from typing import Any


class EnumValue(int):
    """A C++ enum value: compares and calculates like an int, and remembers what PySide6 wants to be given."""

    member: enum.Enum

    def __new__(cls, member: enum.Enum) -> EnumValue:
        value = super().__new__(cls, member.value)
        value.member = member
        return value

    def __or__(self, other: int) -> int:
        return self._combine(other, int(self) | int(other))

    def __and__(self, other: int) -> int:
        return self._combine(other, int(self) & int(other))

    def __xor__(self, other: int) -> int:
        return self._combine(other, int(self) ^ int(other))

    def __invert__(self) -> int:
        kind: Any = type(self.member)
        return EnumValue(~self.member) if issubclass(kind, enum.Flag) else ~int(self)

    __ror__, __rand__ = __or__, __and__

    def _combine(self, other: int, value: int) -> int:
        same = not isinstance(other, EnumValue) or type(other.member) is type(self.member)
        return EnumValue(type(self.member)(value)) if same and isinstance(self.member, enum.Flag) else value

    def __repr__(self) -> str:
        return f"{self.member.name} ({int(self)})"


def is_qt_enum(value: object) -> bool:
    """Whether this is an enum value of PySide6."""
    return isinstance(value, enum.Enum) and type(value).__module__.startswith("PySide6")
