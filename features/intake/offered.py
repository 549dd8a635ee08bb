"""The offers of a batch as a whole: what no look at single rows finds."""

from datetime import datetime

from duckdb import DuckDBPyConnection as Queries

from features.intake.batch import Verdict
from features.intake.held import columns_then
from features.intake.shifts import Shift
from features.offers import check_catalogue, expired, offers_of
from features.programme import Programme


def catalogue_faults(queries: Queries, verdict: Verdict, programme: Programme, *, now: datetime | None) -> list[Shift]:
    """Check the offers that the warehouse would hold; those that are bad by themselves are known, and no more.

    Parameters
    ----------
    now : None: it is no matter whether an offer's time is over
    """
    name, names = verdict.staged.table.name, columns_then(verdict.staged, verdict.held)
    rows = queries.sql(f"FROM {name}_then ORDER BY place").to_arrow_table()
    offers = offers_of(rows.drop_columns("place").rename_columns(names))
    (own,) = verdict.staged.columns("offer_id")
    came = {offer_id for (offer_id,) in queries.sql(f"SELECT {own} FROM {name}_came").fetchall()}  # noqa: S608 (as above)
    faults = [Shift(None, fault) for fault in check_catalogue(offers, programme, others=came)]
    over = expired(offers, now) if now else []
    if over and programme.replay_from is None:
        over[-1] += "; for a programme of the past, replay_from in holdfast.toml says where its clock begins"
    return faults + [Shift("expired", fault) for fault in over]
