"""What moved, in a sentence with units that a person on call can act on."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.programme import Programme
from monitoring.distances import NEW, RARER, Binned, psi_terms
from monitoring.verdict import Test
from monitoring.windows import numbers_of

Floats = NDArray[np.float64]
SHOWN: Final = 3  # new values, the most frequent


@dataclass(frozen=True)
class Words:
    """Say which columns are money, in minor units, and how the programme writes money."""

    money: frozenset[str]
    programme: Programme

    def show(self, column: str, value: float) -> str:
        """Write one value of a column."""
        return self.programme.money(value) if column in self.money else f"{value:,.4g}"


def in_words(column: Binned, test: Test, before: pd.Series, after: pd.Series, words: Words) -> str:
    """Say in one sentence what the test found of a column."""
    if test == "missing":
        return f"{after.isna().mean():.1%} of {column.name} is missing; {before.isna().mean():.1%} was"
    if test == "new_category":
        return _new_values(column.name, before, after)
    if test == "psi":
        return _moved_bin(column, words)
    return _moved(column.name, numbers_of(before), numbers_of(after), words)


def _moved(name: str, before: Floats, after: Floats, words: Words) -> str:
    for measure, at in (("a median", np.nanmedian), ("a mean", np.nanmean)):
        was, now = float(at(before)), float(at(after))
        if words.show(name, was) != words.show(name, now):
            verb = "fell" if now < was else "rose"
            return f"{name} {verb} from {measure} of {words.show(name, was)} to {words.show(name, now)}"
    spread = [" to ".join(words.show(name, v) for v in np.nanquantile(x, (0.1, 0.9))) for x in (before, after)]
    return f"{name} spreads otherwise: 8 of 10 lay from {spread[0]}, now from {spread[1]}"


def _moved_bin(column: Binned, words: Words) -> str:
    counts = [np.bincount(codes, minlength=column.n_bins)[:-1] for codes in (column.reference, column.current)]
    p, q = (np.bincount(column.coarse, weights=count) / max(count.sum(), 1) for count in counts)
    most = int(np.argmax(psi_terms(p, q)))
    return f"{column.name} is {_bin_name(column, most, words)} in {q[most]:.1%} of rows; {p[most]:.1%} were"


def _bin_name(column: Binned, number: int, words: Words) -> str:
    if column.categories:
        name = column.categories[number]
        return name if name in (RARER, NEW) else repr(name)
    cuts = [words.show(column.name, cut) for cut in column.cuts]
    if number == 0:
        return f"at most {cuts[0]}"
    return f"above {cuts[-1]}" if number == len(cuts) else f"above {cuts[number - 1]}, at most {cuts[number]},"


def _new_values(name: str, before: pd.Series, after: pd.Series) -> str:
    seen = after.dropna().astype(str)
    new = seen[~seen.isin(set(before.dropna().astype(str)))].value_counts()
    more = f" and {len(new) - SHOWN} more" if len(new) > SHOWN else ""
    shown = ", ".join(map(repr, new.index[:SHOWN])) + more
    return f"{name} has values that the reference does not know in {new.sum() / len(after):.1%} of rows: {shown}"
