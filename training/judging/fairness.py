"""Whether groups of members are served alike: is the risk as true, and is contact as frequent, in each of them."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.programme import Tier
from training.judging.evidence import estimate
from training.judging.findings import GroupRow
from training.metrics import Estimate

Floats = NDArray[np.float64]

WORDS: Final = ("gender", "region")  # attributes of members, where the company brings them
MOST_GROUPS: Final = 12  # of one attribute; the rarer ones are taken together
OTHER: Final = "other"
AGES: Final = {"below 30": 0, "30 to 49": 30, "50 to 69": 50, "70 and above": 70}


def member_groups(members: pd.DataFrame, *, year: int) -> pd.DataFrame:
    """Give the attributes by which members are told apart, a column each, by member_id; none where none is brought.

    Parameters
    ----------
    members : the table
    year : in which members are as old as they are
    """
    rows = members.set_index("member_id")
    columns = {name: _frequent(rows[name]) for name in WORDS if name in rows}
    if "birth_year" in rows:
        edges = [*AGES.values(), np.inf]
        columns["age"] = pd.cut(year - rows["birth_year"], edges, right=False, labels=list(AGES)).astype(object)
    return pd.DataFrame(columns, index=rows.index)


def tier_groups(rows: pd.DataFrame, tiers: Sequence[Tier]) -> pd.DataFrame:
    """Give the tier that each member had on the first of its dates, by member_id: what followed can't have moved it.

    Parameters
    ----------
    rows : member_id, as_of, tier_level
    tiers : from the lowest to the highest; level 0 is below all
    """
    first = rows.sort_values("as_of", kind="stable").drop_duplicates("member_id").set_index("member_id")["tier_level"]
    names = dict(enumerate(["none", *[tier.name for tier in tiers]]))
    return pd.DataFrame({"tier": first.map(names)})


def group_rows(
    groups: pd.DataFrame,
    churn: tuple[pd.Series, Floats],
    contact: tuple[pd.Series, Floats] | None,
) -> tuple[GroupRow, ...]:
    """Compare every group with what was observed of it, and with all.

    Parameters
    ----------
    groups : as `member_groups` gives them; a member without a value is in none
    churn : member ids `(n,)`, and predicted less observed churn of each row
    contact : member ids `(m,)`, and the probability that each decision sends something
    """
    found = []
    for attribute in groups:
        of = groups[attribute].dropna()
        errors = _by_group(of, *churn)
        contacts = _by_group(of, contact[0], contact[1] - contact[1].mean()) if contact else {}
        found += [
            GroupRow(str(attribute), str(name), int((of == name).sum()), errors.get(name), contacts.get(name))
            for name in sorted(of.unique())
        ]
    return tuple(found)


def _by_group(of: pd.Series, member_ids: pd.Series, values: Floats) -> Mapping[str, Estimate]:
    group = member_ids.map(of).to_numpy()
    members = member_ids.to_numpy()
    rows = {name: group == name for name in of.unique()}
    return {
        name: estimate(values[there], members[there])
        for name, there in rows.items()
        if len(np.unique(members[there])) > 1
    }


def _frequent(values: pd.Series) -> pd.Series:
    words = values.astype(object).where(values.notna())
    common = words.value_counts().index[:MOST_GROUPS]
    return words.where(words.isna() | words.isin(common), OTHER)
