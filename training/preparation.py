"""What every model starts from: active members at past dates, what was known of them then, and what followed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from features.as_of.canary import DECIDED, HAPPENED
from features.catalogue.entries import CATALOGUE
from features.definitions import MODEL_FEATURES, model_features
from features.errors import ContractError
from features.privacy.consent import opted_out
from features.programme import Programme
from features.schema import KNOWN_AT
from features.snapshots import as_of_dates
from features.store import Store
from features.warehouse import Warehouse
from training import labels, splits
from training.constraints import CONSENT
from training.releases.manifest import FeatureSpec


@dataclass(frozen=True)
class Settings:
    """Say how much to search and what to hold back."""

    trials: int = 20
    folds: int = 3
    tune_every: int = 2  # tune on every second snapshot: neighbours a week apart say nearly the same
    as_of: datetime | None = None  # only what was known until then; everything if not given


@dataclass(frozen=True)
class Prepared:
    """Hold what every model starts from."""

    warehouse: Warehouse
    programme: Programme
    frame: pd.DataFrame  # a row per active member and date: the features, and what followed
    visits: pd.DataFrame
    dates: tuple[datetime, ...]  # of the snapshots; nothing is known of what came after the last
    split: splits.Split
    folds: list[splits.Split]
    subscribed: pd.DataFrame | None = None  # spells, where churn is the end of a contract
    silent: frozenset[str] = frozenset()  # who opted out: nothing is learned from them

    @property
    def known_until(self) -> datetime:
        """The moment after which nothing is known."""
        return self.dates[-1]

    def known(self, name: str, columns: list[str] | None = None) -> pd.DataFrame:
        """Read the rows of a table that had happened and were known by then."""
        return known(self.warehouse, name, self.known_until, columns)

    def part(self, dates: tuple[Any, ...]) -> pd.DataFrame:
        """Give the rows of some dates."""
        return self.frame[self.frame["as_of"].isin(list(dates))].reset_index(drop=True)

    @cached_property
    def features(self) -> tuple[str, ...]:
        """What this programme's models read."""
        return model_features(self.part(self.split.train), self.programme)


def prepare(warehouse: Warehouse, store: Store, programme: Programme, settings: Settings) -> Prepared:
    """Label every mature snapshot and join its features, point in time.

    Raises
    ------
    ContractError
        If the history is too short, or a feature is infinite.
    """
    dates = known_dates(warehouse, programme, settings.as_of)
    brought = warehouse.expression("transactions").columns
    columns = ["member_id", "transaction_id", "occurred_at", *(c for c in ("amount", "margin") if c in brought)]
    visits = labels.margins(known(warehouse, "transactions", dates[-1], columns), programme)
    mature = labels.mature(dates, known_until=dates[-1], programme=programme)
    split = splits.split_by_time(mature, programme=programme)
    folds = splits.time_folds(split.train, settings.folds, programme=programme)
    subscribed = None
    if programme.churn == "contract":
        subscribed = labels.spells(known(warehouse, "subscriptions", dates[-1]), programme)
    labelled = labels.label(visits, mature, known_until=dates[-1], programme=programme, subscribed=subscribed)
    silent = silent_members(warehouse)
    labelled = labelled[~labelled["member_id"].isin(silent) & _had_joined(labelled, warehouse)].reset_index(drop=True)
    frame = store.training_frame(labelled)
    _check_finite(frame)
    return Prepared(warehouse, programme, frame, visits, tuple(dates), split, folds, subscribed, silent)


def silent_members(warehouse: Warehouse) -> frozenset[str]:
    """Name who opted out, by the company's table or by their own word: nothing is learned from them."""
    own = opted_out(warehouse.home)
    if CONSENT not in warehouse.expression("members").columns:
        return own
    members = warehouse.frame("members", ["member_id", CONSENT])
    return own | frozenset(members.loc[members[CONSENT].eq(other=False), "member_id"])


def _had_joined(labelled: pd.DataFrame, warehouse: Warehouse) -> pd.Series:
    """Mark the rows of who was a member by then: a purchase, or a term, may be older, and has no features yet."""
    brought = warehouse.expression("members").columns
    times = ["joined_at", *([KNOWN_AT.name] if KNOWN_AT.name in brought else [])]
    since = warehouse.frame("members", ["member_id", *times]).set_index("member_id")[times].max(axis=1)
    return labelled["member_id"].map(since) < labelled["as_of"]


def _check_finite(frame: pd.DataFrame) -> None:
    numbers = frame.select_dtypes("number")
    infinite = [str(name) for name in numbers if np.isinf(numbers[name].to_numpy(dtype=np.float64)).any()]
    if infinite:
        wanted = "finite or missing was wanted; `holdfast features build`"
        raise ContractError(f"features {infinite} are infinite, {wanted}")


def parse_as_of(text: str, programme: Programme) -> datetime | None:
    """Read a date, at whose local midnight it begins, or a time in ISO 8601; nothing typed is no limit.

    >>> parse_as_of("2017-10-01", Programme(timezone="Europe/Berlin")).isoformat()
    '2017-09-30T22:00:00+00:00'

    Raises
    ------
    ContractError
        If it is neither.
    """
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ContractError(f"--as-of {text} came; wanted a date such as 2017-10-01") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=programme.zone)).astimezone(UTC)


def known_dates(warehouse: Warehouse, programme: Programme, as_of: datetime | None) -> list[datetime]:
    """Give the `as_of` of every snapshot up to a moment.

    Raises
    ------
    ContractError
        If there is none.
    """
    dates = as_of_dates(warehouse, programme)
    kept = [date for date in dates if as_of is None or date <= as_of]
    if not kept:
        raise ContractError(f"--as-of {as_of:%Y-%m-%d} came; the first snapshot is of {dates[0]:%Y-%m-%d}")
    return kept


def known(warehouse: Warehouse, name: str, until: datetime, columns: list[str] | None = None) -> pd.DataFrame:
    """Read the rows of a table that had happened and were known by a moment; what befell them later is undone."""
    brought = warehouse.expression(name).columns
    late = KNOWN_AT.name
    extra = [late] if columns and late in brought else []
    rows = warehouse.frame(name, [*columns, *extra] if columns else None)
    time = next(column for column in HAPPENED if column in brought)
    there = rows[time] < pd.Timestamp(until)
    if late in rows:
        there &= ~(rows[late] >= pd.Timestamp(until))
    rows = rows[there].reset_index(drop=True)
    return rows.assign(**{c: rows[c].where(rows[c] < pd.Timestamp(until)) for c in DECIDED if c in rows})


def feature_specs(names: Sequence[str] = MODEL_FEATURES) -> tuple[FeatureSpec, ...]:
    """Describe the models' features, in the order in which they are read."""
    return tuple(
        FeatureSpec(
            name, CATALOGUE[name].meaning, CATALOGUE[name].unit, CATALOGUE[name].minimum, CATALOGUE[name].maximum
        )
        for name in names
    )


def label_ledger(prepared: Prepared) -> list[dict[str, Any]]:
    """Say for every snapshot from when on its labels are known, and how many there are, as JSON values."""
    counts = prepared.frame["as_of"].value_counts()
    members = {as_of: int(counts[pd.Timestamp(as_of)]) for as_of in prepared.dates if pd.Timestamp(as_of) in counts}
    ledger = labels.maturity(
        prepared.dates, known_until=prepared.known_until, programme=prepared.programme, members=members
    )
    return labels.ledger_rows(ledger)


def described(prepared: Prepared) -> dict[str, Any]:
    """Say what was learned from, and on which dates."""
    days = {
        name: [f"{dates[0]:%Y-%m-%d}", f"{dates[-1]:%Y-%m-%d}", len(dates)]
        for name, dates in asdict(prepared.split).items()
    }
    return {
        "source": prepared.warehouse.source,
        "fingerprint": prepared.warehouse.fingerprint,
        "rows": len(prepared.frame),
        "members": int(prepared.frame["member_id"].nunique()),
        "churned": float(prepared.frame["churned"].mean()),
        "known_until": prepared.known_until.isoformat(),
        "margin_is_brought": "margin" in prepared.warehouse.expression("transactions").columns,
        "dates": days,
    }
