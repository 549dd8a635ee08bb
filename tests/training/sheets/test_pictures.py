import sys

import numpy as np
import pytest

from training.judging.curves import Band
from training.judging.uplift_metrics import UpliftBin
from training.metrics import Estimate
from training.sheets.pictures import policies_picture, reliability_picture, uplift_calibration_picture, uplift_picture

X = np.linspace(0, 1, 11)
BAND = Band(X, X * (2 - X), X * (2 - X) - 0.1, X * (2 - X) + 0.1)
POLICIES = {"model": Estimate(12.0, 3.0, 21.0, 900), "no contact": Estimate(0.0, 0.0, 0.0, 900)}
PICTURES = {
    "uplift": lambda band: uplift_picture(band, title="Offer A", unit="USD per member"),
    "reliability": lambda band: reliability_picture(band, title="Churn"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_a_png_that_changes_with_its_numbers_and_with_nothing_else(name):
    draw = PICTURES[name]
    png = draw(BAND)
    assert png.startswith(b"\x89PNG")
    assert draw(BAND) == png
    assert draw(Band(X, BAND.y / 2, BAND.lower / 2, BAND.upper / 2)) != png


def test_policies_are_drawn_with_their_intervals():
    png = policies_picture(POLICIES, title="Policies", unit="USD per decision")
    assert png.startswith(b"\x89PNG")
    wider = POLICIES | {"model": Estimate(12.0, -3.0, 27.0, 900)}
    assert policies_picture(wider, title="Policies", unit="USD per decision") != png


def test_promises_are_drawn_beside_what_came_and_one_is_enough():
    bins = [UpliftBin(promised, Estimate(promised + 1, promised - 1, promised + 3, 90)) for promised in (2.0, 5.0)]
    both, one, wider = (
        uplift_calibration_picture(some, title="Offer A", unit="USD per member")
        for some in (bins, bins[:1], [bins[0], UpliftBin(5.0, Estimate(6.0, 1.0, 11.0, 90))])
    )
    assert both.startswith(b"\x89PNG")
    assert len({both, one, wider}) == 3


def test_drawing_keeps_no_state_of_pyplot():
    PICTURES["uplift"](BAND)
    assert "matplotlib.pyplot" not in sys.modules
