"""What followed: for each member active before `as_of`, whether they left and the margin they brought.

Without contracts, who buys nothing within the horizon has lapsed. With contracts, whose subscription ends within it and
is not renewed within the grace period after its end has churned: a cancellation is no churn before the term is over.

A label exists only when its window has fully passed. The window is [as_of + lead, as_of + lead + horizon), counted in
local days, with the grace period after it where there are contracts.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.errors import ContractError
from features.programme import Programme
from features.sheet import Sheet

TIMES: Final = ("as_of", "window_start", "window_end", "known_from")


def margins(transactions: pd.DataFrame, programme: Programme) -> pd.DataFrame:
    """Give one row per visit, ordered by time: member_id, occurred_at, margin (integer minor units)."""
    visits = transactions.groupby(["member_id", "transaction_id"], sort=False, as_index=False).agg(
        occurred_at=("occurred_at", "min"), margin=("margin" if "margin" in transactions else "amount", "sum")
    )
    rate = 1.0 if "margin" in transactions else programme.margin_rate
    margin = np.rint(visits["margin"].to_numpy(dtype=np.float64) * rate).astype(np.int64)
    return visits.assign(margin=margin).sort_values(["occurred_at", "member_id"], ignore_index=True)[
        ["member_id", "occurred_at", "margin"]
    ]


def between(visits: pd.DataFrame, start: datetime, end: datetime) -> pd.DataFrame:
    """Give the visits in [start, end), by bisection: `visits` is ordered by time."""
    times = visits["occurred_at"]
    return visits.iloc[times.searchsorted(pd.Timestamp(start)) : times.searchsorted(pd.Timestamp(end))]


def spells(terms: pd.DataFrame, programme: Programme) -> pd.DataFrame:
    """Give each term of a subscription, and when its spell ended: member_id, started_at, ends_at, ended_at.

    A term that begins within the grace period after another's end goes on with it. A term that was renewed, and whose
    next term is not there, is as long again.

    Parameters
    ----------
    terms : the table `subscriptions`
    """
    rows = terms.sort_values(["member_id", "started_at", "ends_at"], kind="stable", ignore_index=True)
    last = rows["ends_at"]
    if "renewed_at" in rows:
        last = last.where(rows["renewed_at"].isna(), last + (last - rows["started_at"]))
    covered = last.groupby(rows["member_id"]).cummax().groupby(rows["member_id"]).shift()
    begins = ~(rows["started_at"] <= covered + pd.Timedelta(days=programme.grace_days))  # also where none came before
    ended = last.groupby(begins.cumsum()).transform("max")
    return rows[["member_id", "started_at", "ends_at"]].assign(ended_at=ended)


def mature(dates: Sequence[datetime], *, known_until: datetime, programme: Programme) -> list[datetime]:
    """Keep the dates whose label window has fully passed by `known_until`."""
    return [as_of for as_of in dates if programme.days_before(as_of, -programme.label_days) <= known_until]


def maturity(
    dates: Sequence[datetime],
    *,
    known_until: datetime,
    programme: Programme,
    members: Mapping[datetime, int] | None = None,
) -> pd.DataFrame:
    """Keep the ledger of labels: for every date which days it is about, and from which moment on it exists.

    Parameters
    ----------
    members : how many were labelled at a date, where that is known

    Returns
    -------
    By as_of: `window_start`, `window_end` (after which there are no more days of the horizon), `known_from` (with the
    grace period after it), `mature`, and `members`, missing where there is no label yet
    """
    after = {
        "window_start": programme.lead_days,
        "window_end": programme.lead_days + programme.horizon_days,
        "known_from": programme.label_days,
    }
    moments = {name: _moments([programme.days_before(as_of, -n) for as_of in dates]) for name, n in after.items()}
    ledger = pd.DataFrame(moments, index=pd.Index(_moments(dates), name="as_of"))
    counted = [None if members is None else members.get(as_of) for as_of in dates]
    return ledger.assign(mature=ledger["known_from"] <= known_until, members=pd.array(counted, dtype="Int64"))


def _moments(times: Sequence[datetime]) -> pd.DatetimeIndex:
    return pd.DatetimeIndex(list(times), dtype="datetime64[us, UTC]")


def ledger_rows(ledger: pd.DataFrame) -> list[dict[str, Any]]:
    """Give the ledger as JSON values: a row per date, times in ISO 8601, `members` None where there is no label yet."""
    return [
        {name: row[name].isoformat() for name in TIMES}
        | {"mature": bool(row["mature"]), "members": None if pd.isna(row["members"]) else int(row["members"])}
        for row in ledger.reset_index().to_dict("records")
    ]


def maturity_sheet(ledger: Sequence[Mapping[str, Any]], programme: Programme) -> Sheet:
    """Show the labels that are not known yet, each with the day on which it will be.

    Parameters
    ----------
    ledger : as `ledger_rows` gives it
    """

    def days(row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(f"{datetime.fromisoformat(row[name]).astimezone(programme.zone):%Y-%m-%d}" for name in TIMES)

    known = [row for row in ledger if row["mature"]]
    span = f"Known: {days(known[0])[0]} to {days(known[-1])[0]}" if known else "Known: none"
    return Sheet(
        "Labels that are not known yet",
        ("as of", "window from", "until before", "known on"),
        tuple(days(row) for row in ledger if not row["mature"]),
        (f"{span}; {len(known)} snapshots, {sum(row['members'] or 0 for row in known):,} labels.",),
    )


def label(
    visits: pd.DataFrame,
    dates: Sequence[datetime],
    *,
    known_until: datetime,
    programme: Programme,
    subscribed: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Label every active member at every date; members who are already gone have no label.

    Parameters
    ----------
    visits : as `margins` gives them
    subscribed : as `spells` gives them, where churn is the end of a contract

    Returns
    -------
    member_id, as_of, churned (0 or 1), margin (within the horizon), previous_margin (in as many days before `as_of`)

    Raises
    ------
    ContractError
        If a window has not passed: there is no such label yet.
    """
    early = sorted(set(dates) - set(mature(dates, known_until=known_until, programme=programme)))
    if early:
        raise ContractError(
            f"the {programme.label_days} days after {early[0]:%Y-%m-%d} have not passed by {known_until:%Y-%m-%d}; "
            f"train with an earlier --as-of or a shorter horizon_days"
        )
    if (subscribed is None) == (programme.churn == "contract"):
        came = "did not come" if subscribed is None else "came"
        raise ContractError(
            f'churn = "{programme.churn}" in holdfast.toml, and spells {came}; '
            f'churn = "contract" needs the table subscriptions, "lapse" reads transactions alone'
        )
    return pd.concat([_label_one(visits, as_of, programme, subscribed) for as_of in dates], ignore_index=True)


def label_rows(
    rows: pd.DataFrame, visits: pd.DataFrame, programme: Programme, *, subscribed: pd.DataFrame | None = None
) -> NDArray[np.float64]:
    """Label members each at a moment of their own, `(n_rows,)`: 1 who left, 0 who stayed, NaN who was gone already.

    The windows have to be past: `programme.label_days` after each moment.

    Parameters
    ----------
    rows : member_id, as_of
    visits, subscribed : as for `label`
    """
    moved = {n: days_after(rows["as_of"], n, programme) for n in (-programme.activity_days, 0, *_window(programme))}
    if subscribed is not None:
        return _left_contract(rows["member_id"], moved, subscribed, programme)
    count = visits.assign(total=visits.groupby("member_id").cumcount() + 1)[["member_id", "occurred_at", "total"]]
    at = rows[["member_id"]].assign(**{str(n): times for n, times in moved.items()})
    seen = {n: total_before(at, str(n), count) for n in moved}
    start, end = _window(programme)
    return np.where(seen[0] > seen[-programme.activity_days], (seen[end] == seen[start]).astype(np.float64), np.nan)


def days_after(times: pd.Series, days: int, programme: Programme) -> pd.Series:
    """Give the moment so many local days after each time."""
    ends = {time: programme.days_before(time.to_pydatetime(), -days) for time in times.unique()}
    return times.map(ends).astype(times.dtype)


def total_before(rows: pd.DataFrame, time: str, total: pd.DataFrame) -> NDArray[np.float64]:
    """Read each member's running total just before a time, `(n_rows,)`; 0 where there is none yet.

    Parameters
    ----------
    rows : member_id, and the time
    total : member_id, occurred_at, total; in order of time
    """
    asked = rows[["member_id", time]].rename(columns={time: "occurred_at"}).assign(row=np.arange(len(rows)))
    asked = asked.astype({"occurred_at": total["occurred_at"].dtype}).sort_values("occurred_at", kind="stable")
    found = pd.merge_asof(asked, total, on="occurred_at", by="member_id", allow_exact_matches=False)
    return found.sort_values("row")["total"].fillna(0).to_numpy(dtype=np.float64)


def _window(programme: Programme) -> tuple[int, int]:
    return programme.lead_days, programme.lead_days + programme.horizon_days


def _left_contract(
    members: "pd.Series[Any]", moved: Mapping[int, Any], subscribed: pd.DataFrame, programme: Programme
) -> NDArray[np.float64]:
    start, end = _window(programme)
    at = pd.DataFrame({"member_id": members, "now": moved[0], "start": moved[start], "end": moved[end]})
    pairs = at.reset_index(drop=True).reset_index(names="row").merge(subscribed)
    now = pairs[(pairs["started_at"] < pairs["now"]) & (pairs["ends_at"] > pairs["now"])]
    ended = now.groupby("row")[["ended_at", "start", "end"]].max()
    ended = ended[ended["ended_at"] >= ended["start"]]
    label = np.full(len(at), np.nan)
    label[ended.index] = (ended["ended_at"] < ended["end"]).astype(np.float64)
    return label


def _label_one(
    visits: pd.DataFrame, as_of: datetime, programme: Programme, subscribed: pd.DataFrame | None
) -> pd.DataFrame:
    days = programme.horizon_days
    start, end = (programme.days_before(as_of, -n) for n in (programme.lead_days, programme.lead_days + days))
    after = between(visits, start, end).groupby("member_id")["margin"].agg(["size", "sum"])
    before = between(visits, programme.days_before(as_of, days), as_of).groupby("member_id")["margin"].sum()
    if subscribed is None:
        bought = between(visits, programme.days_before(as_of, programme.activity_days), as_of)["member_id"]
        members = pd.Index(np.sort(bought.unique()), name="member_id")
        gone = ~members.isin(after.index)
    else:
        ends = _ends(subscribed, as_of)
        ends = ends[ends >= pd.Timestamp(start)]
        members, gone = ends.index, (ends < pd.Timestamp(end)).to_numpy()
    return pd.DataFrame(
        {
            "member_id": members.to_numpy(),
            "as_of": pd.Timestamp(as_of).as_unit("us"),
            "churned": gone.astype(np.int8),
            "margin": after["sum"].reindex(members, fill_value=0).to_numpy(dtype=np.int64),
            "previous_margin": before.reindex(members, fill_value=0).to_numpy(dtype=np.int64),
        }
    )


def _ends(subscribed: pd.DataFrame, as_of: datetime) -> pd.Series:
    """Give when the spell of each member ends who is in a term at `as_of`, by member_id.

    Who is in the grace period then is not among them: that they came back is not known yet.
    """
    moment = pd.Timestamp(as_of)
    now = subscribed[(subscribed["started_at"] < moment) & (subscribed["ends_at"] > moment)]
    return now.groupby("member_id")["ended_at"].max()
