"""What members do besides buying: visits, views, support, surveys and points, from `events`.

Which kinds of events count as what is the programme's to say (`[events]` in holdfast.toml).
"""

import ibis
import ibis.expr.types as ir

from features.catalogue.entries import EVER, feature, programme_feature
from features.programme import Programme


@programme_feature("events", "events", "lapse")
def logins_28d(events: ir.Table, programme: Programme) -> ir.Value:
    """Logins and visits without a purchase, in the last 28 days."""
    return events.count(where=events.kind.isin(programme.events.visit) & (events.days_ago <= 28))


@programme_feature("events", "events", "lapse")
def logins_84d(events: ir.Table, programme: Programme) -> ir.Value:
    """Logins and visits without a purchase, in the last 12 weeks."""
    return events.count(where=events.kind.isin(programme.events.visit) & (events.days_ago <= 84))


@programme_feature("events", "days", "lapse")
def login_recency_days(events: ir.Table, programme: Programme) -> ir.Value:
    """Days since the last login or visit without a purchase."""
    return events.days_ago.min(where=events.kind.isin(programme.events.visit))


@programme_feature("events", "events", "response")
def views_28d(events: ir.Table, programme: Programme) -> ir.Value:
    """Pages, mails and offers viewed in the last 28 days."""
    return events.count(where=events.kind.isin(programme.events.view) & (events.days_ago <= 28))


@programme_feature("events", "events", "response")
def views_84d(events: ir.Table, programme: Programme) -> ir.Value:
    """Pages, mails and offers viewed in the last 12 weeks."""
    return events.count(where=events.kind.isin(programme.events.view) & (events.days_ago <= 84))


@programme_feature("events", "days", "response")
def view_recency_days(events: ir.Table, programme: Programme) -> ir.Value:
    """Days since something was viewed."""
    return events.days_ago.min(where=events.kind.isin(programme.events.view))


@programme_feature("events", "events", "satisfaction")
def support_84d(events: ir.Table, programme: Programme) -> ir.Value:
    """Support contacts in the last 12 weeks."""
    return events.count(where=events.kind.isin(programme.events.support) & (events.days_ago <= 84))


@programme_feature("events", "days", "satisfaction")
def support_recency_days(events: ir.Table, programme: Programme) -> ir.Value:
    """Days since the last support contact."""
    return events.days_ago.min(where=events.kind.isin(programme.events.support))


@feature("events", "points", "satisfaction", minimum=None, zero=False)
def survey_last(events: ir.Table) -> ir.Value:
    """Score of the last survey answered."""
    return events.value.argmax(events.place, where=events.survey)


@feature("events", "points", "satisfaction", minimum=None, zero=False)
def survey_mean(events: ir.Table) -> ir.Value:
    """Mean score of all surveys answered."""
    return events.value.sum(where=events.survey) / events.survey.cast("int64").sum().nullif(0)


@feature("events", "days", "satisfaction")
def survey_recency_days(events: ir.Table) -> ir.Value:
    """Days since the last survey was answered."""
    return events.days_ago.min(where=events.survey)


@programme_feature("events", "points", "value", minimum=None)
def points_earned_84d(events: ir.Table, programme: Programme) -> ir.Value:
    """Points earned in the last 12 weeks."""
    return _points(events, programme.events.points_earned, events.days_ago <= 84)


@programme_feature("events", "points", "response", minimum=None)
def points_burnt_84d(events: ir.Table, programme: Programme) -> ir.Value:
    """Points burnt in the last 12 weeks."""
    return _points(events, programme.events.points_burnt, events.days_ago <= 84)


@programme_feature("events", "points", "value", minimum=None, window=EVER)
def points_balance(events: ir.Table, programme: Programme) -> ir.Value:
    """Points earned and neither burnt nor expired."""
    return _points(events, programme.events.points_earned) - _gone(events, programme)


@programme_feature("events", "points", "response", window=lambda programme: programme.points_expire_after_days)
def points_expiring(events: ir.Table, programme: Programme) -> ir.Value:
    """Points that expire within 28 days unless they are burnt, the oldest being burnt first."""
    old = events.days_ago > programme.points_expire_after_days - 28
    return ibis.greatest(_points(events, programme.events.points_earned, old) - _gone(events, programme), 0)


@programme_feature("events", "days", "response")
def points_recency_days(events: ir.Table, programme: Programme) -> ir.Value:
    """Days since points were earned or burnt."""
    kinds = (*programme.events.points_earned, *programme.events.points_burnt)
    return events.days_ago.min(where=events.kind.isin(kinds))


@feature("events", "days", "lapse")
def event_recency_days(events: ir.Table) -> ir.Value:
    """Days since the last event of any kind."""
    return events.days_ago.min()


def _points(events: ir.Table, kinds: tuple[str, ...], when: ir.Value | None = None) -> ir.Value:
    counted = events.kind.isin(kinds) if when is None else events.kind.isin(kinds) & when
    return events.value.sum(where=counted).fill_null(0)


def _gone(events: ir.Table, programme: Programme) -> ir.Value:
    return _points(events, (*programme.events.points_burnt, *programme.events.points_expired))
