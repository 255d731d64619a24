"""--point, --box and --nodule: negative numbers, order, conventions, mistakes."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

from SAMMed3DLib.commandline.prompts import NodulePrompt, add_prompt_options, join_negative_values


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("ct")
    add_prompt_options(parser)
    return parser.parse_args(join_negative_values(arguments))


@pytest.mark.parametrize("form", [("--point", "-45.2,10,-300"), ("--point=-45.2,10,-300",)])
def test_a_point_may_begin_with_a_minus(form: tuple[str, ...]) -> None:
    for arguments in ((*form, "ct"), ("ct", *form)):
        assert parse(*arguments).nodules == [NodulePrompt(((-45.2, 10.0, -300.0),), (True,))]


def test_a_minus_before_the_decimal_point() -> None:
    assert parse("ct", "--point", "-.5,-.5,1e1").nodules[0].points == ((-0.5, -0.5, 10.0),)


def test_labels_and_the_order_of_clicks() -> None:
    (nodule,) = parse("ct", "--point", "1,2,3", "--point", "-4,5,6,0", "--point", "7,8,9,1").nodules
    assert nodule.points == ((1, 2, 3), (-4, 5, 6), (7, 8, 9))
    assert nodule.positive == (True, False, True)


def test_nodule_starts_the_next_one_wherever_it_stands() -> None:
    expected = [
        NodulePrompt(((1, 2, 3), (4, 5, 6)), (True, False)),
        NodulePrompt(((7, 8, 9),), (True,), ((0, 0, 0), (1, 1, 1))),
    ]
    words = ["--point", "1,2,3", "--point", "4,5,6,0", "--nodule", "--point", "7,8,9", "--box", "0,0,0,1,1,1"]
    assert parse("ct", *words).nodules == expected
    assert parse("--nodule", *words, "ct").nodules == expected, "a --nodule before the first point changes nothing"


def test_parsing_twice_starts_afresh() -> None:
    parser = argparse.ArgumentParser()
    add_prompt_options(parser)
    assert len(parser.parse_args(["--point=1,2,3"]).nodules[0].points) == 1
    assert len(parser.parse_args(["--point=1,2,3"]).nodules[0].points) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--point", "1,2"], "is not R,A,S"),
        (["--point", "a,b,c"], "is not R,A,S"),
        (["--point", "1,2,nan"], "is not R,A,S"),
        (["--point", "1,2,3,2"], "must be 1"),
        (["--box", "1,2,3"], "is not R0,A0,S0"),
        (["--box", "0,0,0,1,1,1", "--box", "0,0,0,1,1,1"], "has a box already"),
        (["--lps", "--ijk"], "not allowed with"),
    ],
)
def test_mistakes_are_named(words: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("ct", *words)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_conventions() -> None:
    prompt = NodulePrompt(((1.0, 2.0, 3.0),), (True,), ((0.0, 0.0, 0.0), (2.0, 4.0, 6.0)))
    matrix = np.array([[0.0, -2.0, 0.0, 10.0], [1.0, 0.0, 0.0, 20.0], [0.0, 0.0, 3.0, 30.0], [0, 0, 0, 1.0]])
    assert prompt.in_ras("ras", matrix) is prompt
    lps = prompt.in_ras("lps", matrix)
    assert lps.points == ((-1.0, -2.0, 3.0),)
    assert lps.box == ((-2.0, -4.0, 0.0), (0.0, 0.0, 6.0))
    ijk = prompt.in_ras("ijk", matrix)
    assert ijk.points == ((6.0, 21.0, 39.0),)
    assert ijk.box == ((2.0, 20.0, 30.0), (10.0, 22.0, 48.0))
