"""Nodule and polarity in a point's description."""

from __future__ import annotations

import pytest

from SAMMed3DLib.scene.prompt_store import PromptTag, readTag, withTag


@pytest.mark.parametrize("segment_id", ["Segment_1", "S_x;y", "größer = 3; label=0", "segment=1;label=1", "a b"])
@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("text", ["", "seen in the 2024 scan", "with; and = signs", "two\nlines"])
def test_round_trip_keeps_the_users_text(segment_id, positive, text) -> None:
    tag = PromptTag(segment_id, positive)
    description = withTag(text, tag)
    assert readTag(description) == tag
    assert description.startswith(text)
    assert readTag(withTag(description, PromptTag("other", not positive))) == PromptTag("other", not positive)
    assert withTag(description, None) == text and readTag(withTag(description, None)) is None


@pytest.mark.parametrize("text", ["", "segment=;label=1", "segment=a;label=2", "segment=a", "mysegment=a;label=1"])
def test_other_text_is_no_tag(text) -> None:
    assert readTag(text) is None


def test_the_documented_form() -> None:
    assert withTag("", PromptTag("S_1", False)) == "segment=S_1;label=0"
