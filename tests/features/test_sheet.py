"""A table loses nothing on its way to a terminal, however narrow that is."""

import io

import pytest
from rich.console import Console

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
    console.print(sheet.layout(console.width))
    return console.file.getvalue()


def characters(text):
    return sorted("".join(text.split()))


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 250])
@pytest.mark.parametrize("sheet", [RIVALS, REFUSED], ids=["rivals", "refused"])
def test_every_character_is_printed_at_every_width(sheet, width):
    said = [sheet.title, *sheet.header, *(cell for row in sheet.rows for cell in row), *sheet.notes]
    assert characters(printed(sheet, width).replace("─", "")) == characters("".join(said))


def test_an_interval_is_beside_its_estimate_where_there_is_room_and_below_it_where_there_is_none():
    assert BESIDE in printed(RIVALS, 120)
    narrow = [line.split() for line in printed(RIVALS, 80).splitlines()]
    assert ["calibration", "0.090", "0.049"] in narrow
    assert ["error", "[0.078,", "0.103]", "[0.037,", "0.061]"] in narrow


def test_a_long_name_over_short_figures_leaves_the_room_to_the_rows_own_names():
    assert max(map(len, printed(RIVALS, 250).splitlines())) < 110
    assert "transactions  406,829  a guest's row, set aside as said" in printed(REFUSED, 80)
