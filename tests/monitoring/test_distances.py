"""Our statistics against SciPy's and Evidently's own, and the binned ones against the exact ones."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from monitoring.distances import number_bins, psi, wasserstein, word_bins
from monitoring.distributions import numbers_of, words_of
from monitoring.drift import evidently_snapshot, monitor_drift, on_scale, sample
from monitoring.reference import summarise
from monitoring.thresholds import Design, thresholds


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.fixture
def windows(rng):
    def draw(n, shift):
        frame = pd.DataFrame(
            {
                "score": rng.normal(shift, 1, size=n),
                "visits": rng.poisson(3 + shift, size=n).astype(float),
                "spend": np.round(np.exp(8 + shift + rng.normal(size=n))),
                "segment": rng.choice(["a", "b", "c"], size=n, p=[0.5 - shift, 0.3 + shift, 0.2]),
            }
        )
        frame.loc[rng.random(n) < 0.1, "score"] = np.nan
        return frame

    return draw(3000, 0.0), draw(1000, 0.2)


def binned(reference):
    return [
        number_bins(c, numbers_of(reference[c].to_numpy()), money=c == "spend") for c in ("score", "visits", "spend")
    ] + [word_bins("segment", words_of(reference["segment"]))]


def distribution(frame, name):
    return words_of(frame[name]) if name == "segment" else numbers_of(frame[name].to_numpy())


def test_the_wasserstein_distance_is_scipys(rng):
    reference, current = rng.gamma(2, size=300), rng.poisson(2, size=77).astype(float)
    ours = wasserstein(numbers_of(reference), numbers_of(current))
    assert ours == pytest.approx(stats.wasserstein_distance(reference, current))


@pytest.mark.parametrize("sizes", [(1, 1), (1, 40), (40, 1), (500, 499)])
def test_ties_within_and_between_windows_are_scipys_too(rng, sizes):
    reference, current = (rng.integers(0, 9, size=size).astype(float) for size in sizes)
    ours = wasserstein(numbers_of(reference), numbers_of(current))
    assert ours == pytest.approx(stats.wasserstein_distance(reference, current))


def test_a_thinned_distribution_counts_the_same_up_to_each_value_it_keeps(rng):
    values = np.where(rng.random(5000) < 0.4, 0.0, rng.normal(size=5000))
    whole = numbers_of(values)
    thin = whole.thinned(100)
    assert len(thin.points) <= 101
    assert 0.0 in thin.points
    assert np.array_equal(whole.rows_up_to(thin.points), thin.up_to)
    # no rank is further off than one of a hundred
    assert wasserstein(whole, thin) <= (values.max() - values.min()) / 100


def test_a_shift_moves_the_wasserstein_distance_by_itself_and_scale_does_not_matter(rng):
    values = rng.normal(size=500)
    assert wasserstein(numbers_of(values), numbers_of(values + 0.25)) == pytest.approx(0.25)
    one, hundred = (number_bins("x", numbers_of(k * values)).measure(numbers_of(k * values + k)) for k in (1.0, 100.0))
    assert one[0] == pytest.approx(hundred[0])


def test_psi_is_symmetric_and_zero_for_equal_shares(rng):
    p, q = rng.dirichlet(np.ones(6), size=2)
    assert psi(p, p) == 0
    assert psi(p, q) == pytest.approx(psi(q, p))


def test_psi_sees_a_70_percent_cut_of_lognormal_spend(rng):
    # deciles of a lognormal cut by 70 %: 0.6 to 1.1 for sigma near 1; equal-width bins see 0.05
    spend = np.exp(rng.normal(4, 1.2, size=20_000))
    column = number_bins("spend", numbers_of(spend[:10_000]), money=True)
    assert column.measure(numbers_of(0.3 * spend[10_000:]))[1] > 0.5


def test_evidently_measures_the_same_on_the_same_sample(windows, rng):
    columns = binned(windows[0])
    reference, current = (on_scale(sample(frame, rng), columns) for frame in windows)
    limits = {column.name: dict.fromkeys(column.tests, 0.1) for column in columns}
    theirs = {
        m["config"]["column"]: m["value"] for m in evidently_snapshot(reference, current, limits).dict()["metrics"]
    }
    ours = {
        column.name: dict(zip(column.tests, column.measure(distribution(windows[1], column.name)), strict=True))
        for column in columns
    }
    for name, tests in ours.items():
        assert theirs[name] == pytest.approx(tests["psi" if name == "segment" else "wasserstein"], rel=1e-9), name


def test_bins_measure_nearly_what_all_rows_do(windows):
    # thresholds come from bins, decisions from rows: both have to mean the same
    for column in binned(windows[0])[:3]:
        values = [frame[column.name].to_numpy() for frame in windows]
        counts = [np.bincount(column.codes(each), minlength=column.n_bins)[None] for each in values]
        exact = column.measure(numbers_of(values[1]))
        assert column.measure_counts(*counts)[0, 0] == pytest.approx(exact[0], rel=0.05)
        assert column.measure_counts(*counts)[0, 1:] == pytest.approx(exact[1:])


def test_a_heavy_tail_is_measured_on_a_logarithmic_scale(rng):
    heavy = np.exp(rng.normal(size=2000) * 2)
    assert number_bins("x", numbers_of(heavy)).unit == pytest.approx(np.median(heavy), rel=0.01)
    assert number_bins("x", numbers_of(rng.exponential(size=2000))).unit is None


def test_members_who_spend_nothing_do_not_hide_a_cut_of_the_others(rng):
    # half spends nothing: on ln(1 + cents) the gap between nothing and something would drown a cut by 70 %
    spend = np.where(rng.random(4000) < 0.5, 0.0, np.round(np.exp(rng.normal(9, 1, size=4000))))
    column = number_bins("spend", numbers_of(spend[:2000]), money=True)
    assert column.measure(numbers_of(0.3 * spend[2000:]))[0] > 0.35


def test_more_members_make_thresholds_narrower(rng):
    values = rng.normal(size=4000)
    found = []
    for n in (250, 4000):
        column = number_bins("x", numbers_of(values[:n]))
        design = Design(np.arange(n), np.zeros(n, dtype=int), current_members=n, current_snapshots=1)
        found.append(thresholds([column], [column.codes(values[:n])], design, rate=0.01, rng=rng)[0][0])
    # the distance of equal windows shrinks with the root of their size: 4 for 16 times the members, or to the floor
    assert found[0] > 2.5 * found[1] >= 2.5 * 0.05


def test_the_report_holds_the_verdict_and_loads_nothing_from_elsewhere(windows, rng, tmp_path: Path):
    reference, current = windows
    current = current.assign(**{"<b>odd": 1.0})
    path = tmp_path / "reports" / "drift.html"
    verdict = monitor_drift(summarise(reference, money=["spend"], rng=rng), current, rng=rng, report=path)
    html = path.read_text(encoding="utf-8")
    assert verdict.sentence in html
    assert "Wasserstein distance (normed)" in html
    assert "<b>odd" not in html
    assert not re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)\s*=", html)
    assert not re.findall(r"@import\s+['\"u]|url\(['\"]?(?:https?:)?//", html)
    assert not list(path.parent.glob(".*"))


def test_a_window_that_cannot_be_judged_still_has_a_report(windows, rng, tmp_path: Path):
    path = tmp_path / "drift.html"
    monitor_drift(summarise(windows[0], money=(), rng=rng), windows[1].head(3), rng=rng, report=path)
    assert "at least 50 are needed" in path.read_text(encoding="utf-8")
