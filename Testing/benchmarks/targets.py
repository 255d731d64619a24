"""How the benchmarks say whether what was measured is what was wanted."""

from __future__ import annotations

from collections.abc import Iterable

Check = tuple[str, float, str, float]
"""Title, measured value, ">=" or "<=", wanted value."""


def print_targets(checks: Iterable[Check]) -> bool:
    """Prints a Markdown table; whether every target is reached."""
    print("\n| target | measured | wanted | reached |\n|---|---|---|---|")
    reached = []
    for title, value, sign, wanted in checks:
        reached.append(value >= wanted if sign == ">=" else value <= wanted)
        print(f"| {title} | {value:.3g} | {sign} {wanted:g} | {'yes' if reached[-1] else 'NO'} |")
    return all(reached)
