"""A snapshot as Ibis expressions: what follows from a member's own rows, and what compares a member with all others.

They are two steps with a few numbers between them, the bounds that part all members into fifths: a membership of any
size is computed some members at a time, or by many machines, and nobody has to see all of it in one place.
"""

from collections.abc import Callable, Collection, Mapping

import ibis
import ibis.expr.types as ir

from features import transforms  # noqa: F401 (registers the features)
from features.as_of.known import Moment, members_at, sources_at, visible
from features.catalogue.entries import CATALOGUE, Feature, Source
from features.catalogue.segments import BOUNDS
from features.programme import Programme


def of_members(tables: Mapping[str, ir.Table], *, at: Moment, programme: Programme) -> ir.Table:
    """Compute what follows from their own rows for members who had joined before a moment: of some as of all.

    Parameters
    ----------
    tables : members, transactions, and whatever else of the contract the company has
    """
    seen = visible(dict(tables))
    sources = sources_at(seen, at=at, programme=programme)
    result = members_at(seen, at=at)
    for source, table in sources.items():
        features = {f.name: f.compute(table, programme) for f in _features(source)}
        # a key of its own in each: dropping one between two joins would nest a query within a query
        counted = table.group_by(**{f"of_{source}": table.member_id}).aggregate(**features)
        result = result.left_join(counted, result.member_id == counted[f"of_{source}"])
    result = _with(result.mutate(_absent(result, sources)), "member", programme)
    return result.select("member_id", **_typed(result, [f for f in CATALOGUE.values() if f.source != "audience"]))


def among_all(members: ir.Table, bound: Callable[[str], ir.Scalar], *, at: Moment, programme: Programme) -> ir.Table:
    """Add the rest to it, row by row: the whole snapshot, in the order of the rows.

    Parameters
    ----------
    bound : gives each of the `BOUNDS`, as `features.catalogue.segments.bounds_of` finds them in all members
    """
    result = members.mutate(**{name: bound(name).cast("float64") for name in BOUNDS})
    for words in (False, True):
        result = _with(result, "audience", programme, words=words)
    stamps = {"event_timestamp": at.time, "created_timestamp": at.time}
    return result.select("member_id", **stamps, **_typed(result, CATALOGUE.values()))


def _features(source: Source, *, words: bool | None = None) -> list[Feature]:
    return [f for f in CATALOGUE.values() if f.source == source and (words is None or f.is_text == words)]


def _absent(result: ir.Table, sources: Collection[Source]) -> dict[str, ir.Value]:
    """Fill counts and sums of members without a row: nothing is 0; a share or a mean of nothing stays missing.

    Of a table that the company does not bring nothing is known: not even that there was nothing.
    """
    values: dict[str, ir.Value] = {}
    for feature in CATALOGUE.values():
        if feature.source in sources:
            column = result[feature.name]
            values[feature.name] = column.fill_null(0) if feature.zero else column
        elif feature.source not in {"member", "audience"}:
            values[feature.name] = ibis.null("string" if feature.is_text else "int64")
    return values


def _with(table: ir.Table, source: Source, programme: Programme, *, words: bool | None = None) -> ir.Table:
    return table.mutate(**{f.name: f.compute(table, programme) for f in _features(source, words=words)})


def _typed(table: ir.Table, features: Collection[Feature]) -> dict[str, ir.Value]:
    # float64 is exact for whole numbers below 2**53, and missing is null
    return {f.name: table[f.name].cast("string" if f.is_text else "float64") for f in features}
