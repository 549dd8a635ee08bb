"""A table loses nothing on its way to a terminal, however narrow that is."""

import io
from collections import Counter

import pytest
from rich.console import Console

from features.layout import lay_out
from features.sheet import Sheet

BESIDE = "0.090 [0.078, 0.103]"
RIVALS = Sheet(
    "Lapse",
    ("", "model", "logistic regression", "best single feature (spend_84d)", "BG/NBD expected purchases"),
    (("calibration error", BESIDE, "0.049 [0.037, 0.061]", "", ""), ("lift at a tenth", *["1.733 [1.632, 1.840]"] * 4)),
    ("Out of time.",),
)
REFUSED = Sheet(
    "Rows", ("table", "rows", "most often because"), (("transactions", "406,829", "a guest's row, set aside as said"),)
)


def printed(sheet, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(lay_out(sheet, console.width))
    return console.file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 250])
@pytest.mark.parametrize("sheet", [RIVALS, REFUSED], ids=["rivals", "refused"])
def test_every_character_is_printed_at_every_width(sheet, width):
    said = [sheet.title, *sheet.header, *(cell for row in sheet.rows for cell in row), *sheet.notes]
    assert not Counter("".join("".join(said).split())) - Counter(printed(sheet, width))


def test_an_interval_is_beside_its_estimate_where_there_is_room_and_below_it_where_there_is_none():
    assert BESIDE in printed(RIVALS, 120)
    narrow = [line.split() for line in printed(RIVALS, 80).splitlines()]
    assert ["calibration", "0.090", "0.049"] in narrow
    assert ["error", "[0.078,", "0.103]", "[0.037,", "0.061]"] in narrow


def test_rows_become_columns_where_not_even_that_fits_and_no_word_is_broken():
    lines = [line.split("  ") for line in printed(RIVALS, 60).splitlines()]
    assert ["calibration error", "lift at a tenth"] in [[cell.strip() for cell in line if cell] for line in lines]
    assert f"{BESIDE}  1.733 [1.632, 1.840]" in printed(RIVALS, 60)
    narrow = printed(RIVALS, 40).split()
    assert {"calibration", "regression", "(spend_84d)", "purchases"} <= set(narrow)
    assert narrow.count("model") == 2  # one block below the other, each with its rows' names


def test_a_path_is_broken_rather_than_the_sentence_beside_it():
    path = "/home/" + "a-very-long-folder-" * 5
    sheet = Sheet("14 parts", ("part", "set to", "found"), (("studies", path, "nothing listens there"),))
    assert "nothing listens there" in printed(sheet, 100)


def test_a_long_name_over_short_figures_leaves_the_room_to_the_rows_own_names():
    assert max(map(len, printed(RIVALS, 250).splitlines())) < 110
    assert "transactions  406,829  a guest's row, set aside as said" in printed(REFUSED, 80)
