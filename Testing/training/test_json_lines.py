"""Files that grow are followed: every line once, none before it is whole."""

from __future__ import annotations

import json

from SAMMed3DTrainingLib.runs.json_lines import GrowingFile, JsonLines


def append(path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_a_line_is_read_once_and_only_when_it_is_whole(tmp_path):
    path = tmp_path / "events.jsonl"
    lines = JsonLines(path)
    assert lines.read() == [] and lines.caught_up  # not there yet
    append(path, b'{"a": 1}\n{"b": ')
    assert lines.read() == [(0, {"a": 1})]
    append(path, '"ü'.encode()[:2])  # torn within a letter
    assert lines.read() == []
    append(path, '"ü'.encode()[2:] + b'"}\r\nno json\n[1]\n')
    assert lines.read() == [(9, {"b": "ü"}), (22, "no json"), (30, "[1]")]
    assert lines.read() == [] and lines.restarts == 0


def test_a_shortened_file_and_a_replaced_one_are_read_anew(tmp_path):
    path, other = tmp_path / "events.jsonl", tmp_path / "other"
    append(path, b'{"a": 1}\n{"a": 2}\n')
    lines = JsonLines(path)
    assert len(lines.read()) == 2
    path.write_bytes(b'{"a": 3}\n')
    assert lines.read() == [(0, {"a": 3})] and lines.restarts == 1
    other.write_bytes(b'{"a": 4}\n{"a": 5}\n')
    other.replace(path)
    assert [each for _, each in lines.read()] == [{"a": 4}, {"a": 5}] and lines.restarts == 2


def test_a_long_file_comes_in_parts_that_lose_nothing(tmp_path):
    path = tmp_path / "events.jsonl"
    append(path, b"".join(json.dumps({"n": n}).encode() + b"\n" for n in range(100)))
    lines, found, calls = JsonLines(path, most_bytes=64), [], 0
    while not lines.caught_up:
        new = lines.read()
        assert sum(len(json.dumps(each)) for _, each in new) <= 64
        found += new
        calls += 1
    assert [each["n"] for _, each in found] == list(range(100)) and calls > 10
    assert all(path.read_bytes()[offset:].startswith(json.dumps(each).encode()) for offset, each in found)


def test_reading_may_begin_in_the_middle(tmp_path):
    path = tmp_path / "run.log"
    append(path, b"old\nnew\n")
    assert [line for _, line in GrowingFile(path, start=4).lines()] == [b"new"]
