"""What members buy again, from transactions alone: the models that every learned lifetime value has to beat.

* BG/NBD, how often: while active a member buys at a rate λ, drawn from a gamma law of shape r and rate α, and falls
  silent for good after any purchase with a probability p, drawn from a beta law of a and b. Fader, Hardie and Lee,
  "Counting your customers the easy way: an alternative to the Pareto/NBD model", Marketing Science 2005.
* Gamma-Gamma, how much: a member's purchases scatter around a mean of their own, whatever their frequency. Fader and
  Hardie, "The Gamma-Gamma model of monetary value", 2013.

Both know no season, no price and no offer. Days here are any unit of time, as long as it is one.
"""

from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import betaln, digamma, expit, gammaln, hyp2f1

from features.errors import ContractError
from features.programme import Programme

Floats = NDArray[np.float64]
# Logarithms: a member who never falls silent has neither an end of a and b nor of p and v. SciPy's hypergeometric
# function is right up to an a of 20, which is a chance to fall silent that hardly differs between members
REACH: Final = (7.0, 7.0, 3.0, 7.0)
FEWEST_BUYERS: Final = 10  # who came back at least once, for each of the two models
HISTORY: Final = ("frequency", "recency", "age", "mean_margin")


def purchase_history(visits: pd.DataFrame, as_of: datetime, programme: Programme) -> pd.DataFrame:
    """Sum up each member's purchases before `as_of`; the visits of one local day are one purchase.

    Parameters
    ----------
    visits : member_id, occurred_at, margin, as `training.labels.margins` gives them

    Returns
    -------
    By member_id, `frequency`: days with a purchase after the first one; `recency`: days from the first to the last;
    `age`: days from the first to `as_of`; `mean_margin`: of a day after the first, NaN where there is none
    """
    before = visits[visits["occurred_at"] < pd.Timestamp(as_of)]
    day = before["occurred_at"].dt.tz_convert(programme.zone).dt.tz_localize(None).dt.floor("D")
    days = before["margin"].groupby([before["member_id"], day]).sum().rename_axis(["member_id", "day"]).reset_index()
    members = days.groupby("member_id")
    first, last, frequency = members["day"].min(), members["day"].max(), members.size() - 1
    today = pd.Timestamp(as_of).tz_convert(programme.zone).tz_localize(None).floor("D")
    again = members["margin"].sum() - days.drop_duplicates("member_id").set_index("member_id")["margin"]
    columns = (frequency, (last - first).dt.days, (today - first).dt.days, again / frequency.replace(0, np.nan))
    return pd.DataFrame(dict(zip(HISTORY, columns, strict=True))).astype(np.float64)


def expected_in_horizon(visits: pd.DataFrame, rows: pd.DataFrame, programme: Programme) -> Floats:
    """Expect each row's purchases within the horizon, `(n_rows,)`, by a model of what was known at its date.

    Parameters
    ----------
    visits : as `training.labels.margins` gives them
    rows : member_id and as_of, of members who had bought by then
    """
    lead, expected = programme.lead_days, np.zeros(len(rows))
    members = rows["member_id"].to_numpy()
    for as_of in rows["as_of"].unique():
        places = np.flatnonzero(rows["as_of"] == as_of)
        history = purchase_history(visits, as_of, programme)
        model, asked = fit_beta_geometric(history), history.loc[members[places]]
        until, before = (model.expected_purchases(asked, days) for days in (lead + programme.horizon_days, lead))
        expected[places] = until - before
    return expected


@dataclass(frozen=True)
class BetaGeometric:
    """Hold the four parameters of a BG/NBD model."""

    r: float
    alpha: float
    a: float
    b: float

    def expected_purchases(self, history: pd.DataFrame, days: float) -> Floats:
        """Expect the purchases of the next days, `(n_members,)`.

        Equation 10 of the paper, its hypergeometric function transformed as Euler did, which keeps it from overflowing
        for members of a thousand purchases.
        """
        x, recency, age = _columns(history)
        r, alpha, a, b = astuple(self)
        z = days / (alpha + age + days)
        series = (1 - z) ** (a - 1) * hyp2f1(a + b - 1 - r, a - 1, a + b + x - 1, z)
        return np.asarray((a + b + x - 1) / (a - 1) * (1 - series) * self._alive(x, recency, age))

    def alive(self, history: pd.DataFrame) -> Floats:
        """Estimate the probability `(n_members,)` of not being silent for good; 1 for who bought once.

        That 1 is the model's own and makes it useless as a churn score: rank by the expected purchases.
        """
        return self._alive(*_columns(history))

    def _alive(self, x: Floats, recency: Floats, age: Floats) -> Floats:
        active, silent = _log_likelihoods(x, recency, age, astuple(self))
        return np.asarray(expit(active - silent))


@dataclass(frozen=True)
class GammaGamma:
    """Hold the three parameters of a Gamma-Gamma model."""

    p: float
    q: float
    v: float

    def expected_margin(self, history: pd.DataFrame) -> Floats:
        """Expect the margin of a purchase, `(n_members,)`: between the member's own mean and that of all."""
        x, mean = history["frequency"].to_numpy(dtype=np.float64), history["mean_margin"].to_numpy(dtype=np.float64)
        own = np.where((x > 0) & (mean > 0), x, 0.0)
        return np.asarray(self.p * (self.v + own * np.nan_to_num(mean)) / (self.p * own + self.q - 1))


@dataclass(frozen=True)
class RepeatPurchases:
    """Hold how often members buy and how much they bring then."""

    purchases: BetaGeometric
    margin: GammaGamma

    def expected_margin(self, history: pd.DataFrame, days: float) -> Floats:
        """Expect the margin of the next days, `(n_members,)`: purchases times the margin of each, as if independent."""
        return self.purchases.expected_purchases(history, days) * self.margin.expected_margin(history)


def fit_repeat_purchases(history: pd.DataFrame) -> RepeatPurchases:
    """Fit both models to what `purchase_history` gives."""
    return RepeatPurchases(fit_beta_geometric(history), fit_gamma_gamma(history))


def fit_beta_geometric(history: pd.DataFrame) -> BetaGeometric:
    """Fit by maximum likelihood, equation 6 of the paper.

    Parameters
    ----------
    history : `frequency`, `recency` and `age`, as `purchase_history` gives them

    Raises
    ------
    ContractError
        If hardly anybody came back, or a history is impossible: a last purchase after its end, or before its beginning.
    """
    x, recency, age = _columns(history)
    possible = (x >= 0) & (recency >= 0) & (recency <= age)
    if not possible.all():
        raise ContractError(f"{(~possible).sum()} histories are impossible; 0 <= recency <= age was wanted")
    _check(int((x > 0).sum()), len(x), "came back")

    def loss(logs: Floats) -> tuple[float, Floats]:
        r, alpha, a, b = np.exp(logs)
        active, silent = _log_likelihoods(x, recency, age, (r, alpha, a, b))
        either = np.logaddexp(active, silent)
        total = gammaln(r + x) - gammaln(r) + r * np.log(alpha) + betaln(a, b + x) - betaln(a, b) + either
        share = np.exp(silent - either)  # of the likelihood in which the member is silent for good
        gone, here = np.log(alpha + recency), np.log(alpha + age)
        slopes = (
            digamma(r + x) - digamma(r) + np.log(alpha) - share * gone - (1 - share) * here,
            r / alpha - (r + x) * (share / (alpha + recency) + (1 - share) / (alpha + age)),
            digamma(a + b) - digamma(a + b + x) + share / a,
            digamma(b + x) - digamma(a + b + x) - digamma(b) + digamma(a + b) - share / (b + np.maximum(x, 1) - 1),
        )
        return -float(total.mean()), -np.array([slope.mean() for slope in slopes]) * np.exp(logs)

    return BetaGeometric(*_minimum(loss, (1.0, float(age.mean()) + 1.0, 1.0, 2.0), REACH))


def fit_gamma_gamma(history: pd.DataFrame) -> GammaGamma:
    """Fit by maximum likelihood to members with repeat purchases and a positive margin; q > 1, so that means exist.

    Raises
    ------
    ContractError
        If there are hardly any of these.
    """
    known = history[(history["frequency"] > 0) & (history["mean_margin"] > 0)]
    x, mean = known["frequency"].to_numpy(dtype=np.float64), known["mean_margin"].to_numpy(dtype=np.float64)
    _check(len(x), len(history), "brought a margin when they came back")

    def loss(logs: Floats) -> tuple[float, Floats]:
        p, above, v = np.exp(logs)
        q, px, sums = 1 + above, p * x, x * mean + v
        amounts = px * np.log(x * mean) - (px + q) * np.log(sums)
        total = gammaln(px + q) - gammaln(px) - gammaln(q) + q * np.log(v) + amounts
        slopes = (
            x * (digamma(px + q) - digamma(px) + np.log(x * mean) - np.log(sums)),
            digamma(px + q) - digamma(q) + np.log(v) - np.log(sums),
            q / v - (px + q) / sums,
        )
        return -float(total.mean()), -np.array([slope.mean() for slope in slopes]) * np.exp(logs)

    p, above, v = _minimum(loss, (1.0, 1.0, float(mean.mean())), REACH[:2] + REACH[-1:])
    return GammaGamma(p, 1 + above, v)


def _log_likelihoods(x: Floats, recency: Floats, age: Floats, at: tuple[float, ...]) -> tuple[Floats, Floats]:
    """Weigh being active against being silent for good, `(n_members,)` each, up to what both have in common."""
    r, alpha, a, b = at
    silent = np.log(a) - np.log(b + np.maximum(x, 1) - 1) - (r + x) * np.log(alpha + recency)
    return -(r + x) * np.log(alpha + age), np.where(x > 0, silent, -np.inf)


def _minimum(
    loss: Callable[[Floats], tuple[float, Floats]], start: Sequence[float], reach: Sequence[float]
) -> list[float]:
    """Minimise over the logarithms of positive parameters, each no further from its start than its reach."""
    logs = np.log(start)
    bounds = list(zip(logs - reach, logs + reach, strict=True))
    found = minimize(loss, logs, jac=True, method="L-BFGS-B", bounds=bounds, tol=1e-12)
    return [float(value) for value in np.exp(found.x)]


def _check(buyers: int, members: int, what: str) -> None:
    if buyers < FEWEST_BUYERS:
        raise ContractError(f"{buyers} of {members} members {what}; at least {FEWEST_BUYERS} were wanted")


def _columns(history: pd.DataFrame) -> tuple[Floats, Floats, Floats]:
    frequency, recency, age = (history[name].to_numpy(dtype=np.float64) for name in HISTORY[:3])
    return frequency, recency, age
