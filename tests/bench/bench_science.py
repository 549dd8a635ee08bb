"""Churn, value and repeat purchases beside their rivals: each table from one run, with intervals.

Run by `make bench`, after `make demo` has filled `.holdfast`. Where seeds matter there are ten, and an interval is the
mean of ten splits ± 2.26 standard errors (Student's t with 9 degrees of freedom); splits of one data set share rows, so
that it says how steady the comparison is and not what other data would give. Where nothing is drawn the interval is a
bootstrap of members. `COVERAGE_RUNS` says how many worlds the intervals' coverage is counted over.
"""

import os
import subprocess
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xgboost as xgb

from features.home import Home
from features.programme import Programme, read_programme
from features.store import open_store
from features.warehouse import open_warehouse
from training import churn, splits
from training.judging.tables import MODEL
from training.learning.encoding import fit_encoding
from training.lifetime import judge_lifetime
from training.metrics import auc, calibration_error, log_loss
from training.preparation import Settings, prepare
from training.releases.ledger import champion_id
from training.repeat_purchase import expected_in_horizon, fit_beta_geometric, purchase_history
from training.value import fit_value

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
SEEDS, T_9 = 10, 2.262
DEFAULT = "default XGBClassifier"
METRICS = {"AUC": auc, "log loss": log_loss, "calibration error": calibration_error}
PROGRAMME = Programme()
DAY = timedelta(days=1)


def show(*cells, width=34):
    print(f"{cells[0]:<{width}}" + "".join(f"{cell:>26}" for cell in cells[1:]))  # noqa: T201


def bench_churn_of_complete_journey():
    """Learn from 70 % of the members, then judge the others, months later."""
    home = Home(Path(os.environ.get("HOLDFAST_HOME", ".holdfast")))
    if champion_id(home) is None:
        pytest.skip(f"{home.root} holds no champion; `make demo` first")
    programme = read_programme(home.settings)
    data = prepare(open_warehouse(home), open_store(home), programme, Settings())
    learn, test = data.part(data.split.train[::3]), data.part(data.split.test)
    expected = expected_in_horizon(data.visits, test, programme)
    names, members = list(data.features), np.sort(data.frame["member_id"].unique())

    def draw(rng):
        ours = rng.permutation(members)[: int(0.7 * len(members))]
        rows, judged = learn[learn["member_id"].isin(ours)], ~test["member_id"].isin(ours).to_numpy()
        folds = [fold for fold in splits.row_folds(data.folds, rows["as_of"]) if fold[0].any() and fold[1].any()]
        X, left, X_test = rows[names], rows["churned"].to_numpy(dtype=np.float64), test.loc[judged, names]
        model = churn.fit_churn(X, left, clusters=rows["member_id"], folds=folds)
        every = {MODEL: model.predict(X_test), DEFAULT: _default(X, left, X_test)}
        every |= churn.rivals(X, left, X_test, expected_purchases=expected[judged])
        return test.loc[judged, "churned"].to_numpy(dtype=np.float64), every

    compare_churn("Complete Journey, out of time and on other members", draw)


@pytest.mark.parametrize("kind", ["whole", "500 members", "one in 60 leaves"])
def bench_churn_of_a_telephone_company(kind):
    path = DATA / "mlc_churn" / "mlc_churn.csv"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    frame = pd.read_csv(path)
    X, left = frame.drop(columns="churn"), (frame["churn"] == "yes").to_numpy(dtype=np.float64)
    learn_from = 500 if kind == "500 members" else int(0.7 * len(X))

    def draw(rng):
        rows = rng.permutation(len(X))
        if kind.startswith("one"):  # of those who leave, one in ten is kept
            rows = rows[(left[rows] == 0) | (rng.random(len(rows)) < 0.1)]
        learn, test = rows[:learn_from], rows[int(0.7 * len(X)) :]
        model = churn.fit_churn(X.iloc[learn], left[learn])
        every = {MODEL: model.predict(X.iloc[test]), DEFAULT: _default(X.iloc[learn], left[learn], X.iloc[test])}
        return left[test], every | churn.rivals(X.iloc[learn], left[learn], X.iloc[test])

    compare_churn(f"mlc_churn, 70/30, {kind}", draw)


def _default(X, left, X_test):
    encoding = fit_encoding(X)
    model = xgb.XGBClassifier(n_jobs=2).fit(encoding.matrix(X), left)
    return model.predict_proba(encoding.matrix(X_test))[:, 1].astype(np.float64)


def compare_churn(title, draw):
    found = defaultdict(list)
    for seed in range(SEEDS):
        outcome, every = draw(np.random.default_rng(seed))
        for name, values in every.items():
            rival = name.split(" (")[0]  # the best single feature may differ from seed to seed
            known = METRICS if values.min() >= 0 and values.max() <= 1 else {"AUC": auc}
            for metric, compute in known.items():
                found[rival, metric].append(compute(outcome, values))
    print(f"\nChurn, {title}: mean of {SEEDS} splits")  # noqa: T201
    show("", *METRICS, "AUC, ours less theirs")
    for rival in dict.fromkeys(rival for rival, _ in found):
        lead = np.subtract(found[MODEL, "AUC"], found[rival, "AUC"])
        cells = [_over_seeds(found[rival, metric]) if (rival, metric) in found else "" for metric in METRICS]
        show(rival, *cells, "" if rival == MODEL else _over_seeds(lead, sign="+"))


def _over_seeds(values, sign=""):
    error = T_9 * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{np.mean(values):{sign}.4f} ± {error:.4f}"


@pytest.mark.parametrize("name", ["sample", "full set"])
def bench_lifetime_of_music_buyers(name):
    """Purchases of weeks 40 to 78 from those of weeks 1 to 39: whole days with one, after the first."""
    visits = read_cdnow(name)
    purchases = visits.drop_duplicates(["member_id", "occurred_at"]).assign(margin=1).reset_index(drop=True)
    as_of = datetime(1997, 10, 1, tzinfo=UTC)
    compare_value(f"CDNOW, {name}: purchases in 39 weeks", visits, purchases, as_of=as_of, days=273)


def read_cdnow(name):
    path, columns = DATA / "cdnow" / "CDNOW_sample.txt", ["_", "member_id", "day", "discs", "dollars"]
    if name == "full set":  # it comes with the rival's package
        path = next(ROOT.glob(".oracles/lib/python*/site-packages/lifetimes/datasets/CDNOW_master.txt"), None)
        if path is None:
            pytest.skip("no .oracles here; `make .oracles/ready` first")
        columns = columns[1:]
    if not path.exists():
        pytest.skip(f"{path} is not there")
    rows = pd.read_csv(path, sep=r"\s+", names=columns, dtype=str)
    rows = rows[rows["day"].str.isdigit().fillna(value=False)]  # the full set has a header of its own
    day = pd.to_datetime(rows["day"], format="%Y%m%d", utc=True).astype("datetime64[us, UTC]")
    margin = (rows["dollars"].astype(float) * 100).round().astype(np.int64)
    visits = pd.DataFrame({"member_id": rows["member_id"], "occurred_at": day, "margin": margin})
    return visits.sort_values("occurred_at", ignore_index=True)


@pytest.mark.parametrize("days", [90, 182])
def bench_lifetime_of_a_web_shop(days):
    """Net spend of the last days in pence, cancellations taken off."""
    path = DATA / "online_retail" / "online_retail.parquet"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    lines = pd.read_parquet(path).dropna(subset=["CustomerID"])
    lines = lines.assign(pence=lines["Quantity"] * lines["UnitPrice"] * 100)
    invoices = lines.groupby(["CustomerID", "InvoiceNo"]).agg(at=("InvoiceDate", "min"), pence=("pence", "sum"))
    visits = pd.DataFrame(
        {
            "member_id": invoices.index.get_level_values(0).astype(int).astype(str),
            "occurred_at": invoices["at"].dt.tz_localize("UTC").astype("datetime64[us, UTC]"),
            "margin": invoices["pence"].round().astype(np.int64),
        }
    ).sort_values("occurred_at", ignore_index=True)
    as_of = datetime(2011, 12, 10, tzinfo=UTC) - days * DAY
    compare_value(f"online_retail: net spend of {days} days, pence", visits, visits, as_of=as_of, days=days)


def compare_value(title, visits, counted, *, as_of, days):
    """Judge what is counted of visits; features stand on a grid of two weeks before `as_of`, nothing later is read."""
    known = (as_of - visits["occurred_at"].iloc[0]).days
    grid = [as_of - back * DAY for back in range(0, int(0.8 * known), 14)]
    features = {date: features_of(visits, date) for date in grid}
    start = time.perf_counter()
    judged = judge_lifetime(
        counted, features, as_of=as_of, days=days, programme=PROGRAMME, rng=np.random.default_rng(0)
    )
    took = time.perf_counter() - start
    print(  # noqa: T201
        f"\n{title}; {len(features[as_of]):,} members, learned on {judged['window_days']} days, {took:.0f} s; "
        f"{judged['within_interval']:.1%} within their 95 % interval"
    )
    show("", "MAE", "RMSE", "MAE, ours less theirs")
    for name, row in judged["table"].rows.items():
        lead = judged["table"].lead.get(name)
        cells = (row["mean_absolute_error"], row["root_mean_squared_error"], lead)
        show(name, *[_estimate(cell) if cell else "" for cell in cells])


def _estimate(found):
    digits = 3 if abs(found.value) < 100 else 0
    return f"{found.value:.{digits}f} [{found.lower:.{digits}f}, {found.upper:.{digits}f}]"


def features_of(visits, as_of):
    """Describe everybody who bought before, by what does not grow with the length of the history."""
    history = purchase_history(visits, as_of, PROGRAMME)
    before = visits[visits["occurred_at"] < pd.Timestamp(as_of)]
    baskets = before.groupby("member_id")["margin"]
    gap = history["recency"] / history["frequency"].replace(0, np.nan)
    X = pd.DataFrame(
        {
            "silence": history["age"] - history["recency"],
            "gap": gap,
            "overdue": (history["age"] - history["recency"]) / gap,
            "active_share": history["recency"] / history["age"].replace(0, np.nan),
            "pace": history["frequency"] / history["age"].replace(0, np.nan),
            "frequency": history["frequency"],
            "basket_mean": baskets.mean(),
            "basket_last": baskets.last(),
            "basket_max": baskets.max(),
        }
    )
    for days in (28, 56, 84):
        recent = before[before["occurred_at"] >= pd.Timestamp(as_of - days * DAY)].groupby("member_id")["margin"]
        X[f"visits_{days}d"], X[f"spend_{days}d"] = recent.size(), recent.sum()
    return X.fillna({name: 0 for name in X if name.endswith("d")})


def bench_repeat_purchases_of_a_hundred_thousand(tmp_path):
    """Fit BG/NBD to 100,000 members and expect their purchases, beside lifetimes on the same machine."""
    python = ROOT / ".oracles" / "bin" / "python"
    if not python.exists():
        pytest.skip("no .oracles here; `make .oracles/ready` first")
    rng, n = np.random.default_rng(0), 100_000
    rate, silent_after = rng.gamma(0.25, 1 / 30, n), rng.geometric(rng.beta(0.8, 2.4, n))
    age = rng.uniform(190, 273, n)
    frequency = np.minimum(rng.poisson(rate * age), silent_after).astype(np.float64)
    recency = np.where(frequency > 0, age * rng.beta(np.maximum(frequency, 1), 1), 0.0)
    history = pd.DataFrame({"frequency": frequency, "recency": recency, "age": age})
    start = time.perf_counter()
    expected = fit_beta_geometric(history).expected_purchases(history, 273)
    ours = time.perf_counter() - start
    np.save(tmp_path / "history.npy", history.to_numpy())
    script = ROOT / "tests" / "bench" / "oracles" / "repeat_purchase.py"
    subprocess.run([python, "-W", "ignore", script, tmp_path], check=True)
    theirs, rival = np.load(tmp_path / "purchases.npy"), float(np.load(tmp_path / "seconds.npy"))
    gap = np.max(np.abs(expected - theirs) / np.maximum(theirs, 1e-9))
    print(  # noqa: T201
        f"\nBG/NBD of {n:,} members: {ours:.2f} s, lifetimes {rival:.2f} s ({rival / ours:.1f} x); "
        f"expected purchases differ by at most {gap:.1e} of themselves"
    )


def bench_coverage():
    """Count how often a member's margin is within the interval: of 600 or 2,400 members learned from, 2,000 judged."""
    runs = int(os.environ.get("COVERAGE_RUNS", "500"))
    print(f"\nCoverage of 95 % intervals of value, zero-inflated log-normal worlds: {runs} runs")  # noqa: T201
    show("members, share that brings nothing", "covered", "below", "above", width=40)
    worlds = [(600, -9.0), (600, -2.0), (600, 1.0), (2400, -2.0), (2400, 1.0)]
    found = defaultdict(list)
    for run in range(runs):
        rng, (n, inactive) = np.random.default_rng(run), worlds[run % len(worlds)]
        X, margin = world(n + 2000, rng, inactive=inactive)
        model = fit_value(X[:n], margin[:n], parameters={"max_depth": 3, "learning_rate": 0.1, "rounds": 50})
        lower, upper = model.interval(X[n:])
        missed = ((margin[n:] < lower).mean(), (margin[n:] > upper).mean())
        found[n, inactive].append((*missed, (margin == 0).mean()))
    for (n, _), shares in found.items():
        below, above, nothing = np.mean(shares, axis=0)
        show(f"{n:,}, {nothing:.0%}", f"{1 - below - above:.1%}", f"{below:.1%}", f"{above:.1%}", width=40)


def world(n, rng, *, inactive):
    X = rng.normal(size=(n, 5))
    nothing = rng.random(n) < 1 / (1 + np.exp(-(inactive + X[:, 0])))
    amount = np.exp(7 + 0.7 * X[:, 1] + (0.6 + 0.3 * (X[:, 2] > 0)) * rng.normal(size=n))
    return X, np.where(nothing, 0.0, np.round(amount))
