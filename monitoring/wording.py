"""What moved, in a sentence with units that a person on call can act on."""

from collections.abc import Callable
from typing import Final

import numpy as np

from monitoring.distances import NEW, RARER, Bins, Floats, NumberBins, psi_terms
from monitoring.distributions import Numbers, Words
from monitoring.verdict import Test

Show = Callable[[float], str]
SHOWN: Final = 3  # new values, the most frequent


def in_words(bins: Bins, test: Test, before: Numbers | Words, after: Numbers | Words, show: Show) -> str:
    """Say in one sentence what the test found of a column; `show` writes one of its values."""
    if test == "missing":
        return f"{after.missing_share:.1%} of {bins.name} is missing; {before.missing_share:.1%} was"
    if isinstance(bins, NumberBins) and isinstance(before, Numbers) and isinstance(after, Numbers):
        if test == "wasserstein":
            return _moved(bins.name, before, after, show)
        counts = bins.counts(bins.reference), bins.counts(bins.scaled_distribution(after))
    elif isinstance(before, Words) and isinstance(after, Words) and not isinstance(bins, NumberBins):
        if test == "new_category":
            return _new_values(bins.name, before, after)
        counts = bins.counts(before), bins.counts(after)
    else:
        raise TypeError(f"{bins.name} came as numbers and as words")
    p, q = (np.bincount(bins.coarse, weights=count[:-1]) / max(count[:-1].sum(), 1) for count in counts)
    return _moved_bin(bins, p, q, show)


def _moved(name: str, before: Numbers, after: Numbers, show: Show) -> str:
    for measure, was, now in (("a median", before.median, after.median), ("a mean", before.mean, after.mean)):
        if show(was) != show(now):
            verb = "fell" if now < was else "rose"
            return f"{name} {verb} from {measure} of {show(was)} to {show(now)}"
    tails = np.array([0.1, 0.9])
    spread = [" to ".join(show(v) for v in window.quantiles(tails)) for window in (before, after)]
    return f"{name} spreads otherwise: 8 of 10 lay from {spread[0]}, now from {spread[1]}"


def _moved_bin(bins: Bins, p: Floats, q: Floats, show: Show) -> str:
    most = int(np.argmax(psi_terms(p, q)))
    return f"{bins.name} is {_bin_name(bins, most, show)} in {q[most]:.1%} of rows; {p[most]:.1%} were"


def _bin_name(bins: Bins, number: int, show: Show) -> str:
    if not isinstance(bins, NumberBins):
        name = bins.categories[number]
        return name if name in (RARER, NEW) else repr(name)
    cuts = [show(cut) for cut in bins.cuts]
    if number == 0:
        return f"at most {cuts[0]}"
    return f"above {cuts[-1]}" if number == len(cuts) else f"above {cuts[number - 1]}, at most {cuts[number]},"


def _new_values(name: str, before: Words, after: Words) -> str:
    known = set(before.words)
    new = [(word, int(rows)) for word, rows in zip(after.words, after.counts, strict=True) if word not in known]
    more = f" and {len(new) - SHOWN} more" if len(new) > SHOWN else ""
    shown = ", ".join(repr(word) for word, _ in new[:SHOWN]) + more
    share = sum(rows for _, rows in new) / after.rows
    return f"{name} has values that the reference does not know in {share:.1%} of rows: {shown}"
