"""Feast's offline store over sorted history: the point-in-time join as a search instead of a join.

A Feast `OfflineStore` plugin: Feast's DuckDB store, with its own `get_historical_features` where everything asked for
comes from Parquet files that the packed format can hold; whatever else is asked goes Feast's way.
"""

import features.unchecked  # noqa: F401  (before Feast itself)

# isort: split

from pathlib import Path
from typing import Any, Final, Literal

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
from feast import FeatureView, FileSource, RepoConfig
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig, _write_data_source
from feast.infra.offline_stores.ibis import IbisRetrievalJob
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.saved_dataset import ValidationReference
from numpy.typing import NDArray
from pydantic import StrictStr

from features.errors import ContractError
from features.stores.chapters import Columns
from features.stores.history import open_history
from features.stores.online import schema_of

STORE: Final = "features.stores.offline.SortedOfflineStore"


class SortedOfflineStoreConfig(DuckDBOfflineStoreConfig):  # type: ignore[misc]  # Feast ships no types
    """Say where the sorted files are kept."""

    type: Literal["features.stores.offline.SortedOfflineStore"] = STORE
    history: StrictStr


class SortedOfflineStore(DuckDBOfflineStore):  # type: ignore[misc]  # Feast ships no types
    """Answer what was known of members at their times."""

    @staticmethod
    def get_historical_features(  # noqa: PLR0917 (Feast's signature)
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,  # noqa: FBT001, FBT002 (Feast's signature)
        filter_by_created_timestamp: bool = False,  # noqa: FBT001, FBT002 (Feast's signature)
    ) -> RetrievalJob:
        """Join to each row the features as they were at its time; every row comes out, in its order.

        The latest event at or before the row's time counts, of one event time what was created last. What was created
        after the row's time never counts with `filter_by_created_timestamp`; what was created at that very time does.
        """
        computed = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        sortable = not computed and all(map(_is_sortable, feature_views))
        if not sortable or not isinstance(entity_df, pd.DataFrame) or "event_timestamp" not in entity_df:
            asked = (config, feature_views, feature_refs, entity_df, registry, project)
            return DuckDBOfflineStore.get_historical_features(
                *asked, full_feature_names, filter_by_created_timestamp=filter_by_created_timestamp
            )
        table = pa.Table.from_pandas(entity_df, preserve_index=False)
        for view in feature_views:
            names = [ref.split(":")[1] for ref in feature_refs if ref.split(":")[0] == view.projection.name_to_use()]
            found = _join(config, view, entity_df, names=names, known=filter_by_created_timestamp)
            prefix = f"{view.projection.name_alias or view.name}__" if full_feature_names else ""
            for name, column in zip(names, found, strict=True):
                table = table.append_column(f"{prefix}{name}", column)
        return _Joined(table, entity_df, config=config, refs=feature_refs, full_feature_names=full_feature_names)


class _Joined(IbisRetrievalJob):  # type: ignore[misc]  # Feast ships no types
    """Hold the joined rows; Feast's own job does the rest (saved data sets)."""

    def __init__(
        self, table: pa.Table, entity_df: pd.DataFrame, *, config: RepoConfig, refs: list[str], full_feature_names: bool
    ) -> None:
        times = entity_df["event_timestamp"]
        metadata = RetrievalMetadata(
            features=refs,
            keys=[name for name in entity_df.columns if name != "event_timestamp"],
            min_event_timestamp=times.min(),
            max_event_timestamp=times.max(),
        )
        super().__init__(
            ibis.memtable(table), [], full_feature_names, metadata, _write_data_source, None, None, config.repo_path
        )
        self._joined = table

    def to_df(
        self, validation_reference: ValidationReference | None = None, timeout: int | None = None
    ) -> pd.DataFrame:
        """Give the rows as a frame; Feast's own way copies all of them once more, for an index that they have."""
        frame: pd.DataFrame = self.to_arrow(validation_reference, timeout).to_pandas()
        return frame

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:  # noqa: ARG002 (Feast's signature)
        return self._joined


def _is_sortable(view: FeatureView) -> bool:
    source = view.batch_source
    if not isinstance(source, FileSource) or "://" in source.path or not source.path.endswith(".parquet"):
        return False
    try:
        schema_of(view)
    except ContractError:
        return False
    return bool(source.created_timestamp_column) and not source.field_mapping


def _join(
    config: RepoConfig, view: FeatureView, entity_df: pd.DataFrame, *, names: list[str], known: bool
) -> list[pa.Array]:
    source, key = view.batch_source, view.entity_columns[0].name
    path = Path(config.repo_path or ".") / source.path
    files = sorted(path.parent.glob(path.name))
    columns = Columns(key, source.timestamp_field, source.created_timestamp_column)
    history = open_history(files, schema_of(view), columns, folder=Path(config.offline_store.history) / view.name)
    asked = entity_df[(view.projection.join_key_map or {key: key})[key]]
    ttl = view.ttl // pd.Timedelta(microseconds=1) if view.ttl else None
    at = _microseconds(entity_df["event_timestamp"])
    member_ids = pa.array(asked, pa.string(), from_pandas=True)
    return history.as_known(names, member_ids, at, known=known, max_age=ttl)


def _microseconds(times: "pd.Series[Any]") -> NDArray[np.int64]:
    """Count microseconds since 1970; a time without a zone is UTC."""
    counted: NDArray[np.int64] = np.asarray(pd.to_datetime(times, utc=True).dt.as_unit("us").astype("int64"))
    return counted
