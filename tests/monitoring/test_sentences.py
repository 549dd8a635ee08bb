"""Whatever a check says, a Chinese reader has it in Chinese: every sentence is in the catalogue, and no other."""

import ast
import re
from datetime import date
from pathlib import Path

import pytest

from features.saying import Saying, day, saying
from monitoring.distances import NEW, RARER
from monitoring.kpis import LAYERS, PERIODS
from serving.pages.texts import say, sentences
from training.judging import findings

MONDAY = day(date(2026, 3, 2))
ROOT = Path(__file__).parents[2]
BY_NAME = {"median", "mean", RARER, NEW, *PERIODS, *(metric.replace("_", " ") for metric in LAYERS)}
BY_NAME |= {findings._MISCALIBRATED, findings._CONTACTED, *findings._SCORING}
BY_NAME |= {*findings.IDENTIFIED, "observational", findings.NO_OFFERS, "not identified"}


def texts(node):
    """Give the text that stands there, or either of two; of several values the first is meant."""
    if isinstance(node, ast.IfExp):
        return texts(node.body) + texts(node.orelse)
    node = node.elts[0] if isinstance(node, ast.Tuple) else node
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def said_in(path):
    """Give the words that a module passes to `saying` as they stand, or by a variable named `words`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in {"saying", "Saying"} and node.args:
            yield from texts(node.args[0])
        if isinstance(node, ast.Assign) and "words" in {getattr(one, "id", "") for one in ast.walk(node.targets[0])}:
            yield from texts(node.value)


def test_the_catalogue_holds_every_sentence_and_no_other():
    every = [path for layer in ("training", "monitoring") for path in ROOT.joinpath(layer).rglob("*.py")]
    modules = [path for path in every if "from features.saying import" in path.read_text(encoding="utf-8")]
    said = {words for path in modules for words in said_in(path)}
    assert said | BY_NAME | {MONDAY.words} == set(sentences())


@pytest.mark.parametrize(("words", "chinese"), sentences().items())
def test_a_sentence_is_filled_alike_in_both_languages(words, chinese):
    english, other = (set(re.findall(r"\{(\w+)", text)) for text in (words, chinese))
    assert english == other
    assert chinese != words


def test_dates_and_what_stands_within_a_sentence_are_said_in_its_language():
    told = saying(
        "{left} of the week of {week} left without an offer; {predicted} was predicted",
        left="12.0%",
        predicted="9.0%",
        week=MONDAY,
    )
    assert str(told) == "12.0% of the week of 2026-03-02 left without an offer; 9.0% was predicted"
    assert say(told, "zh") == "2026年3月2日当周未获优惠的会员有12.0%流失，预测为9.0%"


def test_what_the_catalogue_lacks_stays_as_it_came():
    assert say(saying("could not act: {failure}", failure="no such file {x}"), "zh") == "未能执行：no such file {x}"
    assert say(Saying("words of another {kind}", {"kind": "version"}), "zh") == "words of another version"
