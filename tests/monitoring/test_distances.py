"""Our statistics against SciPy's and Evidently's own, and the binned ones against the exact ones."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from monitoring.distances import bin_numbers, bin_texts, psi, wasserstein
from monitoring.drift import evidently_snapshot, monitor_drift, sample
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


def binned(reference, current):
    return [
        bin_numbers(c, reference[c].to_numpy(), current[c].to_numpy(), money=c == "spend")
        for c in ("score", "visits", "spend")
    ] + [bin_texts("segment", reference["segment"], current["segment"])]


def test_the_wasserstein_distance_is_scipys(rng):
    reference, current = rng.gamma(2, size=300), rng.poisson(2, size=77).astype(float)
    assert wasserstein(reference, current) == pytest.approx(stats.wasserstein_distance(reference, current))


def test_a_shift_moves_the_wasserstein_distance_by_itself_and_scale_does_not_matter(rng):
    values = rng.normal(size=500)
    assert wasserstein(values, values + 0.25) == pytest.approx(0.25)
    one, hundred = (bin_numbers("x", k * values, k * values + k) for k in (1.0, 100.0))
    assert one.distance == pytest.approx(hundred.distance)


def test_psi_is_symmetric_and_zero_for_equal_shares(rng):
    p, q = rng.dirichlet(np.ones(6), size=2)
    assert psi(p, p) == 0
    assert psi(p, q) == pytest.approx(psi(q, p))


def test_psi_sees_a_70_percent_cut_of_lognormal_spend(rng):
    # deciles of a lognormal cut by 70 %: 0.6 to 1.1 for sigma near 1; equal-width bins see 0.05
    spend = np.exp(rng.normal(4, 1.2, size=20_000))
    column = bin_numbers("spend", spend[:10_000], 0.3 * spend[10_000:], money=True)
    assert column.measure()[1] > 0.5


def test_evidently_measures_the_same_on_the_same_sample(windows, rng):
    columns = binned(*windows)
    reference, current = (sample(frame, columns, rng) for frame in windows)
    limits = {column.name: dict.fromkeys(column.tests, 0.1) for column in columns}
    theirs = {
        m["config"]["column"]: m["value"] for m in evidently_snapshot(reference, current, limits).dict()["metrics"]
    }
    ours = {column.name: dict(zip(column.tests, column.measure(), strict=True)) for column in binned(*windows)}
    for name, tests in ours.items():
        assert theirs[name] == pytest.approx(tests["psi" if name == "segment" else "wasserstein"], rel=1e-9), name


def test_bins_measure_nearly_what_all_rows_do(windows):
    # thresholds come from bins, decisions from rows: both have to mean the same
    for column in binned(*windows)[:3]:
        counts = [np.bincount(codes, minlength=column.n_bins)[None] for codes in (column.reference, column.current)]
        assert column.measure_counts(*counts)[0, 0] == pytest.approx(column.measure()[0], rel=0.05)


def test_a_heavy_tail_is_measured_on_a_logarithmic_scale(rng):
    heavy = np.exp(rng.normal(size=2000) * 2)
    assert bin_numbers("x", heavy, heavy).unit == pytest.approx(np.median(heavy))
    assert bin_numbers("x", rng.exponential(size=2000), heavy).unit is None


def test_members_who_spend_nothing_do_not_hide_a_cut_of_the_others(rng):
    # half spends nothing: on ln(1 + cents) the gap between nothing and something would drown a cut by 70 %
    spend = np.where(rng.random(4000) < 0.5, 0.0, np.round(np.exp(rng.normal(9, 1, size=4000))))
    column = bin_numbers("spend", spend[:2000], 0.3 * spend[2000:], money=True)
    assert column.measure()[0] > 0.35


def test_more_members_make_thresholds_narrower(rng):
    values = rng.normal(size=4000)
    found = []
    for n in (250, 4000):
        column = bin_numbers("x", values[:n], values[:n])
        design = Design(np.arange(n), np.zeros(n, dtype=int), current_members=n, current_snapshots=1)
        found.append(thresholds([column], design, rate=0.01, rng=rng)[0][0])
    # the distance of equal windows shrinks with the root of their size: 4 for 16 times the members, or to the floor
    assert found[0] > 2.5 * found[1] >= 2.5 * 0.05


def test_the_report_holds_the_verdict_and_loads_nothing_from_elsewhere(windows, rng, tmp_path: Path):
    reference, current = windows
    current = current.assign(**{"<b>odd": 1.0})
    path = tmp_path / "reports" / "drift.html"
    verdict = monitor_drift(reference, current, money=["spend"], rng=rng, report=path)
    html = path.read_text(encoding="utf-8")
    assert verdict.sentence in html
    assert "Wasserstein distance (normed)" in html
    assert "<b>odd" not in html
    assert not re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)\s*=", html)
    assert not re.findall(r"@import\s+['\"u]|url\(['\"]?(?:https?:)?//", html)
    assert not list(path.parent.glob(".*"))


def test_a_window_that_cannot_be_judged_still_has_a_report(windows, rng, tmp_path: Path):
    path = tmp_path / "drift.html"
    monitor_drift(windows[0], windows[1].head(3), money=(), rng=rng, report=path)
    assert "at least 50 are needed" in path.read_text(encoding="utf-8")
