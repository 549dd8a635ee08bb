"""What a member will bring over a year (CLV), learned from windows that are shorter where the history is.

A model of repeat purchases (BG/NBD with Gamma-Gamma) says how much to expect of any number of days; boosting learns,
from everything else that is known of members, by which factor they bring more or less than that. The factor is learned
on the longest window that has passed for members with as long a history before it, and is assumed to hold over the
year: the one assumption, which `judge_lifetime` puts to the test on days that have passed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.errors import ContractError
from features.programme import Programme
from training.judging.tables import MODEL, Judged, judge_value
from training.labels import between
from training.repeat_purchase import RepeatPurchases, fit_repeat_purchases, purchase_history
from training.shape import SHALLOW, Parameters
from training.value import POWER, ValueModel, fit_value, share_within

Floats = NDArray[np.float64]
Features = Mapping[datetime, pd.DataFrame]  # as_of -> numbers and words by member_id, of everybody who ever bought

YEAR: Final = 365
# Few trees: more of them held for members held out, yet not for the days after the window (on purchases of music, and
# those of a web shop)
FACTOR: Final[Parameters] = SHALLOW | {"rounds": 30}
LAST_PERIOD: Final = "last period"
REPEAT_PURCHASES: Final = "BG/NBD with Gamma-Gamma"


@dataclass(frozen=True)
class LifetimeModel:
    """Hold what is expected from purchases alone, and the factor by which members differ from it."""

    purchases: RepeatPurchases
    factor: ValueModel
    window_days: int  # over which the factor was learned

    def predict(self, X: pd.DataFrame, history: pd.DataFrame, *, days: int = YEAR) -> Floats:
        """Expect the margin of the next days, `(n_members,)`, in minor units.

        Parameters
        ----------
        X : the features that were learned from
        history : of the same members, as `purchase_history` gives it
        """
        return self.factor.predict(X) * self.purchases.expected_margin(history, days)

    def interval(self, X: pd.DataFrame, history: pd.DataFrame, *, days: int = YEAR) -> tuple[Floats, Floats]:
        """Bound the margin that a member will bring, 19 times in 20: the lower and the upper end `(n_members,)`.

        A window shorter than the days has more chance in it, so that the interval is rather too wide then.
        """
        expected = self.purchases.expected_margin(history, days)
        lower, upper = self.factor.interval(X)
        return lower * expected, upper * expected


def learn_lifetime(
    visits: pd.DataFrame,
    features: Features,
    *,
    known_until: datetime,
    programme: Programme,
    days: int = YEAR,
    rng: np.random.Generator | None = None,
) -> LifetimeModel:
    """Learn on every date of `features` whose window had passed by `known_until`; nothing later is looked at.

    Parameters
    ----------
    visits : as `training.labels.margins` gives them
    days : that are to be predicted: the window is no longer than these

    Raises
    ------
    ContractError
        If there is no such date, or hardly anybody who came back.
    """
    window = longest_window(visits, known_until, days)
    dates = learnable(visits, sorted(features), known_until=known_until, programme=programme, days=days)
    if not dates:
        raise ContractError(
            f"no features came whose {window} days after have passed by {known_until:%Y-%m-%d}, with half as long a "
            f"history before them; build snapshots of then, or bring a longer history"
        )
    rows = [_rows(visits, features[as_of], as_of, window=window, programme=programme) for as_of in dates]
    X = pd.concat([features for features, _, _ in rows])
    margin, expected = (np.concatenate([row[place] for row in rows]) for place in (1, 2))
    weight = expected ** (2 - POWER)  # with which the loss of the factor is that of the margin
    factor = fit_value(X, margin / expected, clusters=X.index, weight=weight, parameters=FACTOR, rng=rng)
    history = purchase_history(visits, known_until, programme)
    return LifetimeModel(fit_repeat_purchases(history), factor, window)


def learnable(
    visits: pd.DataFrame, dates: Sequence[datetime], *, known_until: datetime, programme: Programme, days: int = YEAR
) -> list[datetime]:
    """Keep the dates that `learn_lifetime` learns on: the window after them has passed, and there is some history."""
    window = longest_window(visits, known_until, days)
    earliest = visits["occurred_at"].iloc[0] + pd.Timedelta(days=window // 2)  # before, there is little to go by
    latest = programme.days_before(known_until, window)
    return [as_of for as_of in dates if earliest <= as_of <= latest]


def back_test(
    visits: pd.DataFrame, dates: Sequence[datetime], *, known_until: datetime, programme: Programme
) -> tuple[datetime, int]:
    """Choose the date from which the most days are foretold that have passed, and give it with their number.

    They are at most as many as were known before it: that far a window of half of these is carried, as one of half a
    year is to the year.

    Raises
    ------
    ContractError
        If the history is too short.
    """
    start = programme.days_before(known_until, longest_window(visits, known_until, YEAR))
    for as_of in dates:
        days = (known_until.astimezone(programme.zone).date() - as_of.astimezone(programme.zone).date()).days
        known = learnable(visits, dates, known_until=as_of, programme=programme, days=max(days, 1))
        if as_of >= start and days >= programme.horizon_days and known:
            return as_of, days
    span = (pd.Timestamp(known_until) - visits["occurred_at"].iloc[0]).days
    raise ContractError(
        f"{span} days of purchases are too few to learn from and to foretell {programme.horizon_days} that have "
        f"passed, with {programme.history_days} days before the first snapshot; bring a longer history"
    )


def longest_window(visits: pd.DataFrame, known_until: datetime, days: int) -> int:
    """Give the days of the longest window with as long a history before it: half of what is known, at most `days`."""
    span = pd.Timestamp(known_until) - visits["occurred_at"].iloc[0]
    return max(1, min(days, int(span / pd.Timedelta(days=2))))


def margin_within(visits: pd.DataFrame, members: pd.Index, start: datetime, end: datetime) -> Floats:
    """Sum what each member brought in [start, end), `(n_members,)`."""
    sums = between(visits, start, end).groupby("member_id")["margin"].sum()
    return sums.reindex(members, fill_value=0).to_numpy(dtype=np.float64)


def judge_lifetime(
    visits: pd.DataFrame,
    features: Features,
    *,
    as_of: datetime,
    days: int,
    programme: Programme,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Predict days that have passed from what was known before, by the same rule, beside the rivals.

    Returns
    -------
    The table, the window learned from, the days it was carried to, and the share of members within their interval
    """
    model = learn_lifetime(visits, features, known_until=as_of, programme=programme, days=days, rng=rng)
    X, history = features[as_of], purchase_history(visits, as_of, programme).reindex(features[as_of].index)
    margin = margin_within(visits, X.index, as_of, programme.days_before(as_of, -days))
    predictions = {MODEL: model.predict(X, history, days=days)} | rivals(
        model, visits, history, as_of=as_of, days=days, programme=programme
    )
    table: Judged = judge_value(margin, predictions, X.index.to_numpy(), rng)
    within = share_within(margin, model.interval(X, history, days=days))
    return {"table": table, "window_days": model.window_days, "days": days, "within_interval": within}


def rivals(
    model: LifetimeModel,
    visits: pd.DataFrame,
    history: pd.DataFrame,
    *,
    as_of: datetime,
    days: int,
    programme: Programme,
) -> dict[str, Floats]:
    """Predict as one would without learning: the last window again, and from purchases alone; `(n_members,)` each."""
    window = model.window_days
    last = margin_within(visits, history.index, programme.days_before(as_of, window), as_of)
    return {
        LAST_PERIOD: last * days / window,
        REPEAT_PURCHASES: model.purchases.expected_margin(history, days),
    }


def _rows(
    visits: pd.DataFrame, X: pd.DataFrame, as_of: datetime, *, window: int, programme: Programme
) -> tuple[pd.DataFrame, Floats, Floats]:
    """Give features, what followed within the window, and what was to be expected of it then."""
    everybody = purchase_history(visits, as_of, programme)
    bought = X[X.index.isin(everybody.index)]
    expected = fit_repeat_purchases(everybody).expected_margin(everybody.loc[bought.index], window)
    margin = margin_within(visits, bought.index, as_of, programme.days_before(as_of, -window))
    return bought, margin, expected
