"""The catalogue of texts is whole: every text in both languages, with the same blanks, and none that nobody says."""

import re
import string
from pathlib import Path

import pytest

import monitoring.overview
import serving.pages
from serving.pages.texts import catalogue

FOLDERS = [Path(package.__file__).parent for package in (serving.pages, monitoring.overview)]
SOURCES = [path for folder in FOLDERS for kind in ("*.html", "*.py") for path in folder.rglob(kind)]


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_a_text_has_the_same_blanks_in_both_languages(name):
    english, chinese = catalogue()[name]["en"], catalogue()[name]["zh"]
    blanks = [{field for _, field, _, _ in string.Formatter().parse(text) if field} for text in (english, chinese)]
    assert blanks[0] == blanks[1]
    assert english
    assert chinese


def test_every_text_that_is_asked_for_is_there():
    asked = {
        name for path in SOURCES for name in re.findall(r'\b(?:t|tell)\("([a-z_]+\.[a-z_]+)"[,)]', path.read_text())
    }
    assert asked
    assert asked <= set(catalogue())


def test_every_section_is_asked_for():
    text = "".join(path.read_text() for path in SOURCES)
    unused = [
        name
        for name in catalogue()
        if f'"{name}"' not in text and f'"{name.partition(".")[0]}." ~' not in text
        and f'{name.partition(".")[0]}.{{' not in text
        and f"'{name}'" not in text
        and not name.endswith(".title")  # of a section of the page, by its name
    ]  # fmt: skip
    assert unused == []
