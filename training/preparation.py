"""What every model starts from: active members at past dates, what was known of them then, and what followed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from features.catalogue import CATALOGUE
from features.definitions import MODEL_FEATURES, model_features
from features.programme import Programme
from features.snapshots import as_of_dates
from features.store import Store
from features.warehouse import Warehouse
from training import labels, splits
from training.manifest import FeatureSpec


@dataclass(frozen=True)
class Settings:
    """Say how much to search and what to hold back."""

    trials: int = 20
    folds: int = 3
    test_days: int = 56
    tune_every: int = 2  # tune on every second snapshot: neighbours a week apart say nearly the same


@dataclass(frozen=True)
class Prepared:
    """Hold what every model starts from."""

    warehouse: Warehouse
    programme: Programme
    frame: pd.DataFrame  # a row per active member and date: the features, and what followed
    visits: pd.DataFrame
    split: splits.Split
    folds: list[splits.Split]

    def part(self, dates: tuple[Any, ...]) -> pd.DataFrame:
        """Give the rows of some dates."""
        return self.frame[self.frame["as_of"].isin(list(dates))].reset_index(drop=True)

    @cached_property
    def features(self) -> tuple[str, ...]:
        """What this programme's models read."""
        return model_features(self.part(self.split.train), self.programme)


def prepare(warehouse: Warehouse, store: Store, programme: Programme, settings: Settings) -> Prepared:
    """Label every mature snapshot and join its features, point in time."""
    dates = as_of_dates(warehouse, programme)
    brought = warehouse.expression("transactions").columns
    columns = [
        "member_id",
        "transaction_id",
        "occurred_at",
        *(name for name in ("amount", "margin") if name in brought),
    ]
    visits = labels.margins(warehouse.frame("transactions", columns), programme)
    mature = labels.mature(dates, known_until=dates[-1], programme=programme)
    subscribed = None
    if programme.churn == "contract":
        subscribed = labels.spells(warehouse.frame("subscriptions"), programme)
    labelled = labels.label(visits, mature, known_until=dates[-1], programme=programme, subscribed=subscribed)
    split = splits.split_by_time(mature, test_days=settings.test_days, programme=programme)
    folds = splits.time_folds(split.train, settings.folds, programme=programme)
    return Prepared(warehouse, programme, store.training_frame(labelled), visits, split, folds)


def feature_specs(names: Sequence[str] = MODEL_FEATURES) -> tuple[FeatureSpec, ...]:
    """Describe the models' features, in the order in which they are read."""
    return tuple(
        FeatureSpec(
            name, CATALOGUE[name].meaning, CATALOGUE[name].unit, CATALOGUE[name].minimum, CATALOGUE[name].maximum
        )
        for name in names
    )


def described(prepared: Prepared) -> dict[str, Any]:
    """Say what was learned from, and on which dates."""
    days = {
        name: [f"{dates[0]:%Y-%m-%d}", f"{dates[-1]:%Y-%m-%d}", len(dates)]
        for name, dates in asdict(prepared.split).items()
    }
    return {
        "source": prepared.warehouse.source,
        "fingerprint": prepared.warehouse.fingerprint,
        "rows": len(prepared.frame),
        "members": int(prepared.frame["member_id"].nunique()),
        "churned": float(prepared.frame["churned"].mean()),
        "dates": days,
    }
