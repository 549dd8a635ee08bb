"""The pictures of a training, drawn from the test's rows: who leaves, what offers bring, and what policies earn."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from features.programme import Programme
from training.judging.curves import ranking_band, reliability_band
from training.judging.grounds import Trained
from training.judging.uplift_metrics import UpliftBin, uplift_curve
from training.metrics import Estimate
from training.sheets.pictures import policies_picture, reliability_picture, uplift_calibration_picture, uplift_picture
from training.sheets.uplift_table import OfferRow, Tried, tried

LONGEST: Final = 40  # letters of an offer's id in the name of a file


def pictures(trained: Trained, table: dict[str, OfferRow], rng: np.random.Generator) -> dict[str, bytes]:
    """Draw every picture, by file name; those of offers only where there are offers.

    Parameters
    ----------
    table : as `uplift_table` gives it
    """
    return dict([_churn(trained, rng), *_offers(trained, table, rng), *_policies(trained)])


def _churn(trained: Trained, rng: np.random.Generator) -> tuple[str, bytes]:
    prepared = trained.prepared
    test = prepared.part(prepared.split.test)
    scores = trained.models.score(test[list(prepared.features)].to_numpy(dtype=np.float32))
    churned, members = test["churned"].to_numpy(dtype=np.float64), test["member_id"].to_numpy()
    band = reliability_band(churned, scores.churn_probability, clusters=members, rng=rng)
    title = f"Churn within {prepared.programme.horizon_days} days, on later dates than those learned from"
    return "churn_reliability.png", reliability_picture(band, title=title)


def _offers(trained: Trained, table: dict[str, OfferRow], rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    if not table:
        return
    programme = trained.prepared.programme
    unit = f"{programme.currency} per member, before contact costs"
    for place, (offer, came) in enumerate(tried(trained).items(), 1):
        name, title = _file_name(place, offer), f"{offer}: {trained.log.experiment} experiment"
        yield f"uplift_{name}.png", _uplift(came, programme, title=title, unit=unit, rng=rng)
        bins = [_in_currency(one, programme) for one in table[offer].calibration]
        yield f"uplift_calibration_{name}.png", uplift_calibration_picture(bins, title=title, unit=unit)


def _uplift(came: Tried, programme: Programme, *, title: str, unit: str, rng: np.random.Generator) -> bytes:
    outcome = came.outcome / 10**programme.currency_digits
    rows = (outcome, came.uplift, came.treated)
    band = ranking_band(uplift_curve, *rows, clusters=came.members, weight=came.weight, rng=rng)
    return uplift_picture(band, title=title, unit=unit)


def _policies(trained: Trained) -> Iterator[tuple[str, bytes]]:
    if trained.judgement:
        programme = trained.prepared.programme
        gains = {name: row.against_no_contact for name, row in trained.judgement.table.items()}
        values = {name: _scaled(gain, programme) for name, gain in gains.items()}
        title = f"Policies over no contact: {trained.log.experiment} experiment"
        unit = f"{programme.currency} per decision, after all costs"
        yield "policies.png", policies_picture(values, title=title, unit=unit)


def _in_currency(one: UpliftBin, programme: Programme) -> UpliftBin:
    return UpliftBin(one.predicted / 10**programme.currency_digits, _scaled(one.actual, programme))


def _scaled(money: Estimate, programme: Programme) -> Estimate:
    one = 10**programme.currency_digits
    return replace(money, value=money.value / one, lower=money.lower / one, upper=money.upper / one)


def _file_name(place: int, offer: str) -> str:
    """Name an offer in a file's name; by its place too, for ids may hold what files may not.

    >>> _file_name(2, "win back/ü")
    '2_win_back_'
    """
    return f"{place}_{re.sub(r'[^A-Za-z0-9-]+', '_', offer)[:LONGEST]}"
