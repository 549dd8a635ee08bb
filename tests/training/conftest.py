"""A tiny release of real boosters, and evidence made by hand."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import xgboost as xgb

from features.programme import Programme
from features.saying import saying
from training.artifacts import Models, golden_rows, write_release
from training.calibration import Isotonic
from training.judging.uplift_metrics import RANKING_METRICS
from training.learning.effects import EffectBands, Effects, Student
from training.releases.manifest import FeatureSpec, Manifest, OfferSpec

FEATURES = (
    FeatureSpec("recency_days", "Days since the last visit", "days", 0),
    FeatureSpec("visits_28d", "Visits in the last 28 days", "visits", 0),
    FeatureSpec("spend_28d", "Spend in the last 28 days", "money", 0),
    FeatureSpec("weekend_share", "Share of visits on weekends", "share", 0, 1),
)
OFFERS = (
    OfferSpec("A", "Coupon", "mail", 50, 100, "2017-01-01T00:00:00+00:00", "2018-01-01T00:00:00+00:00"),
    OfferSpec("B", "Points", "app", 5, 20, "2017-01-01T00:00:00+00:00", "2018-01-01T00:00:00+00:00"),
)

REFUSED = saying("against: {reason}", reason="the effect is not identified: the placebo fails")


class Parts(NamedTuple):
    """What a release is written from, and the members it learned from."""

    manifest: Manifest
    models: Models
    golden: np.ndarray
    X: np.ndarray


def _booster(y, X, objective):
    return xgb.train({"objective": objective, "max_depth": 3, "nthread": 1}, xgb.DMatrix(X, y, nthread=1), 12)


def _about(value, half, n=2000):
    return {"value": value, "lower": value - half, "upper": value + half, "n": n}


def _labelled(day, **more):
    moments = dict.fromkeys(("as_of", "window_start", "window_end", "known_from"), f"{day}T05:00:00+00:00")
    return moments | more


def _worth(arpu, members):
    unknown = dict.fromkeys(("acquisition_cost", "value_to_cost"))
    return {"members": members, "arpu": _about(arpu, 300.0), "lifetime_value": _about(12 * arpu, 900.0)} | unknown


def _return():
    figures = {"contact_cost": _about(25.0, 0.0), "incremental_margin": _about(120.0, 80.0)}
    return {"decisions": 800, "return_on_contacts": _about(3.8, 3.2)} | figures


def _policy(value, contacted):
    measures = {
        "policy_value": _about(5000.0 + value, 310.0),
        "against_no_contact": _about(value, 21.0),
        "against_best_fixed": _about(value - 90.0, 17.0),
    }
    return measures | {
        "bootstrap": {name: _about(figures["value"], 23.0) for name, figures in measures.items()},
        "smallest_detectable_effect": 24.3,
        "effective_sample_size": 900.0,
        "contacted": contacted,
    }


SURE = (EffectBands(edges=(), effect=(0.0,), error=(0.0,)),) * 2


def _uplift(qini, lead, *, promised):
    rows = {
        ranking: dict.fromkeys(RANKING_METRICS, _about(value, 7.0))
        for ranking, value in (("model", qini), ("churn probability", qini - lead), ("random", 0.0))
    }
    rows["model"] = rows["model"] | {"uplift_calibration_error": _about(31.0, 11.0)}
    leads = {"churn probability": _about(lead, 5.0), "random": _about(qini, 7.0)}
    bins = [{"predicted": value, "actual": _about(80.0, 20.0)} for value in promised]
    return {"rows": rows, "lead": leads, "calibration": bins}


def _seen(share, reached):
    kept = {"rows": 1234, "policy_share": share, "effective_sample_size": 2345.6 * share, "largest_weight": 4.0 * share}
    return kept | {"reached": reached, "thin_share": reached and 0.25}


@pytest.fixture(scope="session")
def evidence():
    """The evidence of a release as its manifest holds it; every figure is another one."""
    metrics = ("auc", "average_precision", "lift", "log_loss", "brier_loss", "calibration_error")
    errors = ("mean_absolute_error", "root_mean_squared_error", "r_squared")
    table = {"no contact": _policy(0.0, 0.0), "best fixed offer": _policy(90.0, 1.0), "model": _policy(120.0, 0.6)}
    return {
        "data": {
            "source": "by hand",
            "fingerprint": "f00d",
            "rows": 12345,
            "members": 2345,
            "churned": 0.262,
            "margin_is_brought": False,
            "known_until": "2017-12-31T05:00:00+00:00",
            "dates": {"train": ["2017-03-27", "2017-08-07", 20], "test": ["2017-09-11", "2017-11-06", 9]},
        },
        "campaigns": {
            "A": {
                "effect": {
                    "naive": _about(3711.0, 95.0),
                    "effect": _about(412.0, 333.0),
                    "placebo": _about(388.0, 222.0),
                    "propensity_auc": 0.92,
                    "overlap_share": 0.31,
                    "verdict": "not identified",
                },
                "gate": {"promote": False, "said": [asdict(REFUSED)]},
            }
        },
        "churn": {
            "rows": {
                "model": {name: _about(0.81 - 0.1 * i, 0.011) for i, name in enumerate(metrics)},
                "visits": {name: _about(0.71 - 0.1 * i, 0.012) for i, name in enumerate(metrics[:3])},
            },
            "lead": {"visits": _about(0.0312, 0.0051)},
            "notes": ["BG/NBD expected purchases is not among the rivals: 3 of 9 members came back"],
        },
        "value": {
            "rows": {
                "model": dict(
                    zip(errors, (_about(1234.0, 56.0), _about(2345.0, 67.0), _about(0.61, 0.02)), strict=True)
                ),
                # a rival worse than the mean, and one better than a cent: neither changes what a number is
                "last": dict(zip(errors, (_about(0.5, 0.25), _about(3456.0, 78.0), _about(-1.7, 0.3)), strict=True)),
            },
            "lead": {"last": _about(-321.0, 43.0)},
            "within_interval": 0.947,
        },
        "labels": [
            _labelled("2017-11-06", mature=True, members=2222),
            _labelled("2017-12-11", mature=False, members=None),
        ],
        "lifetime": {
            "table": {
                "rows": {"model": dict(zip(errors, (_about(8704.0, 402.0), *[_about(0.7, 0.1)] * 2), strict=True))},
                "lead": {},
            },
            "window_days": 91,
            "days": 182,
            "within_interval": 0.956,
            "as_of": "2017-07-02T22:00:00+00:00",
            "year_from_days": 183,
        },
        "economics": {
            "as_of": "2017-12-04T05:00:00+00:00",
            "worth": {"tier": {"gold": _worth(7195.0, 983), "silver": _worth(2183.0, 1791)}},
            "returns": {"tier": {"gold": _return()}},
            "experiment": "simulated",
        },
        "uplift": {
            "learner": "doubly robust",
            "heterogeneity_kept": {"A": 0.83, "B": 0.0},
            "redemption_slope": {"A": 210.0, "B": 0.0},
        },
        "retention": {"average_effect": {"A": _about(0.021, 0.012), "B": _about(0.0, 0.01)}},
        "uplift_table": {
            "A": _uplift(60.0, 12.0, promised=(61.0, 85.0, 130.0)),
            "B": _uplift(3.0, -2.0, promised=(75.0,)),
        },
        "redemption": {
            "A": {
                "rate": _about(0.183, 0.014),
                "expected": _about(0.179, 0.004),
                "log_loss": _about(0.412, 0.021),
                "log_loss_lead": _about(-0.0312, 0.0054),
            }
        },
        "policies": {
            "table": table,
            "best_fixed": "A",
            "overlap": {"control": _seen(0.0, None), "A": _seen(0.75, 1.02), "B": _seen(0.25, 0.97)},
            "truth": {name: _about(row["against_no_contact"]["value"] + 3.0, 4.0) for name, row in table.items()},
        },
        "log": {"left_out": {"its horizon has not passed": 17}, "reasons": []},
        "gate": {
            "experiment": "simulated",
            "auc": _about(0.86, 0.01),
            "auc_over_best_feature": _about(0.03, 0.01),
            "calibration_error": _about(0.02, 0.01),
            "against_no_contact": _about(40.0, 15.0),
            "against_best_fixed": _about(9.0, 12.0),
            "against_champion": None,
            "effective_sample_size": 900.0,
            "sample_ratio_p": 0.4,
            "not_identified": [],
            "groups": [
                {
                    "attribute": "age",
                    "group": "below 30",
                    "members": 321,
                    "calibration_gap": _about(0.021, 0.013),
                    "contact_gap": None,
                }
            ],
        },
        "compared_with": None,
    }


@pytest.fixture(scope="session")
def parts(evidence) -> Parts:
    rng = np.random.default_rng(7)
    n = 600
    X = np.column_stack(
        [rng.integers(0, 60, n), rng.integers(0, 9, n), rng.integers(0, 90_00, n), rng.random(n)]
    ).astype(np.float32)
    X[rng.random(n) < 0.1, 3] = np.nan
    churned = (rng.random(n) < 1 / (1 + np.exp(-(X[:, 0] - 30) / 10))).astype(float)
    effect = np.column_stack([40 * X[:, 0] - 900, 10 * X[:, 1] + 10])
    redemption = np.column_stack([X[:, 0] / 100, 0 * X[:, 0]])
    said = np.hstack([effect, 0 * effect, redemption])  # on margin and, none, on retention
    reach = ((0.0,) * 6, (1.0,) * 6, (-1e6,) * 4 + (0.0,) * 2, (1e6,) * 4 + (1.0,) * 2)
    models = Models(
        churn=_booster(churned, X, "binary:logistic"),
        value=_booster(X[:, 2], X, "reg:squarederror"),
        uplift=Effects(Student(_booster(said, X, "reg:squarederror"), *reach), SURE, SURE),
        calibration=Isotonic((0.0, 0.5, 1.0), (0.05, 0.4, 0.9)),
    )
    manifest = Manifest(
        features=FEATURES,
        offers=OFFERS,
        programme=Programme().model_dump(mode="json"),
        reference_as_of=("2017-10-01T00:00:00+00:00",),
        experiment="simulated",
        evidence=evidence,
    )
    return Parts(manifest, models, golden_rows(X, rng), X)


@pytest.fixture
def release(parts, tmp_path) -> Path:
    """A folder with a sound release, which a test may spoil."""
    return tmp_path / write_release(tmp_path, parts.manifest, parts.models, parts.golden).release_id


@pytest.fixture
def write(parts, evidence) -> Callable[..., str]:
    """Write a release whose gate saw other evidence, and name it."""

    def written(folder, *, compared_with=None, **gate):
        seen = evidence | {"gate": evidence["gate"] | gate, "compared_with": compared_with}
        return write_release(folder, replace(parts.manifest, evidence=seen), parts.models, parts.golden).release_id

    return written


@pytest.fixture(scope="session")
def about():
    return _about
