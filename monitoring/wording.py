"""What moved, in a sentence with units that a person on call can act on."""

from collections.abc import Callable
from typing import Final

import numpy as np

from features.saying import Saying, saying
from monitoring.distances import NEW, RARER, Bins, Floats, NumberBins, psi_terms
from monitoring.distributions import Numbers, Words
from monitoring.verdict import Test
from monitoring.windows import named

Show = Callable[[float], str]
SHOWN: Final = 3  # new values, the most frequent


def in_words(bins: Bins, test: Test, before: Numbers | Words, after: Numbers | Words, show: Show) -> Saying:
    """Say in one sentence what the test found of a column; `show` writes one of its values."""
    if test == "missing":
        shares = {"now": f"{after.missing_share:.1%}", "before": f"{before.missing_share:.1%}"}
        return saying("{now} of {column} is missing; {before} was", column=named(bins.name), **shares)
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
    p, q = (np.bincount(bins.coarse, weights=count[:-1]) / max(int(count[:-1].sum()), 1) for count in counts)
    return _moved_bin(bins, p, q, show)


def _moved(name: str, before: Numbers, after: Numbers, show: Show) -> Saying:
    column = named(name)
    for measure, was, now in (("median", before.median, after.median), ("mean", before.mean, after.mean)):
        if show(was) != show(now):
            words = "{column} fell from a {measure} of {was} to {now}"
            if now > was:
                words = "{column} rose from a {measure} of {was} to {now}"
            return saying(words, column=column, measure=saying(measure), was=show(was), now=show(now))
    tails = [[show(value) for value in window.quantiles(np.array([0.1, 0.9]))] for window in (before, after)]
    words = "{column} spreads otherwise: 8 of 10 lay from {low} to {high}, now from {now_low} to {now_high}"
    ends = dict(zip(("low", "high", "now_low", "now_high"), [*tails[0], *tails[1]], strict=True))
    return saying(words, column=column, **ends)


def _moved_bin(bins: Bins, p: Floats, q: Floats, show: Show) -> Saying:
    most = int(np.argmax(psi_terms(p, q)))
    shares = {"now": f"{q[most]:.1%}", "before": f"{p[most]:.1%}"}
    words = "{column} is {values} in {now} of rows; {before} were"
    return saying(words, column=named(bins.name), values=_bin_name(bins, most, show), **shares)


def _bin_name(bins: Bins, number: int, show: Show) -> str | Saying:
    if not isinstance(bins, NumberBins):
        name = bins.categories[number]
        return saying(name) if name in (RARER, NEW) else repr(name)
    cuts = [show(cut) for cut in bins.cuts]
    if number == 0:
        return saying("at most {value}", value=cuts[0])
    if number == len(cuts):
        return saying("above {value}", value=cuts[-1])
    return saying("above {low}, at most {high},", low=cuts[number - 1], high=cuts[number])


def _new_values(name: str, before: Words, after: Words) -> Saying:
    known = set(before.words)
    new = [(word, int(rows)) for word, rows in zip(after.words, after.counts, strict=True) if word not in known]
    shown: str | Saying = ", ".join(repr(word) for word, _ in new[:SHOWN])
    if len(new) > SHOWN:
        shown = saying("{values} and {n} more", values=shown, n=str(len(new) - SHOWN))
    words = "{column} has values that the reference does not know in {share} of rows: {values}"
    share = f"{sum(rows for _, rows in new) / after.rows:.1%}"
    return saying(words, column=named(name), share=share, values=shown)
