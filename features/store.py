"""The only door to Feast: open, apply, materialise, the training frame (point-in-time), the online vector."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final

import numpy as np
import pandas as pd
from feast import FeatureService, FeatureStore, RepoConfig
from numpy.typing import NDArray

from features.definitions import ALL, DECISION, MODEL_FEATURES, VIEW, WORDS, feast_objects
from features.errors import ContractError, NotFoundError
from features.home import Home

PROJECT: Final = "holdfast"
_READ: Final = frozenset(MODEL_FEATURES)  # the numbers of the service `DECISION`


@dataclass(frozen=True)
class MemberFeatures:
    """Hold what the online store knows of members, a row per id asked for, in the order asked."""

    member_ids: tuple[str, ...]
    X: NDArray[np.float32]  # (n_members, n_features), in the order asked, NaN where missing
    known: NDArray[np.bool_]  # (n_members,)
    segment: tuple[str | None, ...]
    lifecycle_stage: tuple[str | None, ...]
    event_timestamp: tuple[datetime | None, ...]  # UTC


@dataclass(frozen=True)
class Store:
    """Hold an open feature store."""

    home: Home
    feast: FeatureStore

    def apply(self) -> None:
        """Write the definitions into the registry."""
        self.feast.apply(feast_objects(self.home.features))

    def materialize(self, as_of: datetime) -> None:
        """Bring the snapshot of `as_of` into the online store.

        Every member who ever joined has a row in it, so one snapshot is all of them.
        """
        with _quiet():
            self.feast.materialize(as_of - timedelta(seconds=1), as_of, feature_views=[VIEW])

    def training_frame(self, entities: pd.DataFrame) -> pd.DataFrame:
        """Join to each row `member_id`, `as_of` the features as they were known at that time.

        Further columns are kept. As many rows come out as went in, in the same order, duplicates included.

        Raises
        ------
        ContractError
            If a row was lost or has no features: the member had not joined, or no snapshot is that old.
        """
        rows = entities.rename(columns={"as_of": "event_timestamp"}).assign(row=np.arange(len(entities)))
        with _quiet():
            history = self.feast.get_historical_features(rows, self._service(ALL), filter_by_created_timestamp=True)
            joined: pd.DataFrame = history.to_df()
        joined = joined.sort_values("row", ignore_index=True)
        if not np.array_equal(joined["row"].to_numpy(), np.arange(len(entities))):
            raise ContractError(f"{len(entities)} rows went into the point-in-time join and {len(joined)} came out")
        # a count is never missing where there is a snapshot
        absent = int(joined["visits_28d"].isna().sum())
        if absent:
            raise ContractError(
                f"{absent} of {len(entities)} rows have no snapshot as old as their as_of; `holdfast features build`"
            )
        return joined.drop(columns="row").rename(columns={"event_timestamp": "as_of"})

    def online(self, member_ids: Sequence[str], features: Sequence[str]) -> MemberFeatures:
        """Read members' latest features, in the order of `features`.

        Raises
        ------
        ContractError
            If a feature is none of the numbers that a decision reads.
        """
        strangers = [name for name in features if name not in _READ]
        if strangers:
            raise ContractError(
                f"{', '.join(strangers)}: not among the numbers that a decision reads; `holdfast features list` shows "
                f"every feature, `MODEL_FEATURES` in features/definitions.py names those"
            )
        response = self.feast.get_online_features(
            features=self._decision, entity_rows=[{"member_id": member_id} for member_id in member_ids]
        )
        values, times = _columns(response.proto)
        # an unknown member comes back without a time, and with every value missing
        known = np.array([time is not None for time in times])
        X = np.column_stack([np.array(values[name], dtype=np.float32) for name in features]).reshape(
            len(member_ids), -1
        )
        return MemberFeatures(
            member_ids=tuple(member_ids),
            X=X,
            known=known,
            segment=tuple(values["segment"]),
            lifecycle_stage=tuple(values["lifecycle_stage"]),
            event_timestamp=tuple(times),
        )

    @cached_property
    def _decision(self) -> FeatureService:
        return self._service(DECISION)  # held: looking it up costs more than reading a member

    def _service(self, name: str) -> FeatureService:
        from feast.errors import FeatureServiceNotFoundException

        try:
            return self.feast.get_feature_service(name)
        except FeatureServiceNotFoundException as error:
            raise NotFoundError("the feature store has no definitions yet; `holdfast features apply`") from error


def open_store(home: Home) -> Store:
    """Open the feature store of one machine: DuckDB over Parquet, SQLite, a registry file."""
    # Feast switches everybody's deprecation warnings on, and reads in threads, which a local filter does not reach
    warnings.filterwarnings("ignore", "fetch_arrow_table", DeprecationWarning)
    return Store(home, FeatureStore(config=_config(home)))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Feast's own printing off a person's screen."""
    with redirect_stdout(io.StringIO()):
        yield


def _config(home: Home) -> RepoConfig:
    root = home.root.resolve()
    return RepoConfig(
        project=PROJECT,
        provider="local",
        registry={"path": str(root / home.registry.name), "cache_ttl_seconds": 0},
        offline_store={"type": "duckdb"},
        online_store={"type": "sqlite", "path": str(root / home.online.name)},
        entity_key_serialization_version=3,
        repo_path=str(root),
    )


def _columns(response: Any) -> tuple[dict[str, list[Any]], list[datetime | None]]:  # noqa: ANN401 (Feast's protobuf)
    """Read values straight from the answer: its own conversion to a dict costs more than the read."""
    values: dict[str, list[Any]] = {}
    times: list[datetime | None] = []
    for name, vector in zip(response.metadata.feature_names.val, response.results, strict=True):
        given = list(vector.values)
        kinds = [value.WhichOneof("val") for value in given]
        values[name] = [getattr(value, kind) if kind else None for value, kind in zip(given, kinds, strict=True)]
        if name == WORDS[0]:  # one view, so any of its features tells the time of all
            times = [t.ToDatetime(tzinfo=UTC) if t.seconds else None for t in vector.event_timestamps]
    return values, times
