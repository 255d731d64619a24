"""What a control point says about itself: the nodule it belongs to and whether it adds or removes.

It stands in the point's description, which .mrk.json files and scenes keep: ``segment=<segment ID>;label=1``. Text that
the user wrote before it stays.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_PATTERN = re.compile(r"(?:^|(?<=\s))segment=(?P<segment>.*);label=(?P<label>[01])\s*$", re.DOTALL)


@dataclass(frozen=True)
class PromptTag:
    """The nodule (segment ID) and the polarity of a point."""

    segmentId: str
    positive: bool


def readTag(description: str) -> PromptTag | None:
    """The tag in a point's description, None without."""
    found = _PATTERN.search(description or "")
    return PromptTag(found["segment"], found["label"] == "1") if found and found["segment"] else None


def withTag(description: str, tag: PromptTag | None) -> str:
    """The description with its tag replaced (None: removed)."""
    text = _PATTERN.sub("", description or "").rstrip()
    if tag is None:
        return text
    own = f"segment={tag.segmentId};label={int(tag.positive)}"
    return f"{text} {own}" if text else own
