"""What people type, as values."""

from __future__ import annotations

import re


def gpuNumbers(text: str) -> tuple[int, ...]:
    """ "0, 1" as (0, 1); one GPU or none is not several: ()."""
    numbers = tuple(dict.fromkeys(int(each) for each in re.findall(r"\d+", text)))
    return numbers if len(numbers) > 1 else ()
