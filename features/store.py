"""The door to Feast, whose plugins are `online` and `offline`: apply, materialise, training frame, online vector."""

import features.unchecked  # noqa: F401  (before Feast itself)

# isort: split

import io
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureService, FeatureStore, FeatureView, RepoConfig
from numpy.typing import NDArray

from features.catalogue.entries import CATALOGUE
from features.definitions import ALL, MODEL_FEATURES, NUMBERS, VIEW, WORDS, feast_objects
from features.engine import Engine
from features.errors import ContractError, NotFoundError
from features.home import Home
from features.programme import read_programme
from features.stores import offline, online
from features.stores.online import open_table, schema_of
from features.stores.packed import Batch, PackedTable, Schema, Vectors

PROJECT: Final = "holdfast"
_READ: Final = frozenset(MODEL_FEATURES)  # the numbers of the service `DECISION`
_ANSWERED: Final = ("segment", "lifecycle_stage")  # the words of `MemberFeatures`
_PART: Final = 8_192  # members in memory at once while they are materialised; more no longer fit the processor's cache
_BUFFER: Final = 65_536  # bytes of a column read at once; without it a whole group of rows is held
_UNAPPLIED: Final = "the feature store has no definitions yet; `holdfast features apply`"


@dataclass(frozen=True)
class MemberFeatures:
    """Hold what the online store knows of members, a row per id asked for, in the order asked."""

    member_ids: tuple[str, ...]
    X: NDArray[np.float32]  # (n_members, n_features), in the order asked, NaN where missing
    known: NDArray[np.bool_]  # (n_members,)
    segment: tuple[str | None, ...]
    lifecycle_stage: tuple[str | None, ...]
    event_timestamp: tuple[datetime | None, ...]  # UTC
    facts: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # (n_members,): float64, NaN; words, None missing


@dataclass(frozen=True)
class Store:
    """Hold an open feature store."""

    home: Home
    engine: Engine

    @cached_property
    def feast(self) -> FeatureStore:
        """Open Feast's own store: its registry, which who only reads online does without."""
        return FeatureStore(config=_config(self.home, self.engine))

    def apply(self) -> None:
        """Write the definitions into the registry."""
        self.feast.apply(feast_objects(self.home.features))

    def materialize(self, as_of: datetime) -> None:
        """Bring the snapshot of `as_of` into the online store, and note it in the registry.

        Every member who ever joined has a row in it, so one snapshot is all of them. Columns go to the packed table as
        they are: Feast's own way, through a protobuf message per value, ends in the same rows a hundred times later.
        """
        view = self._view()
        schema = schema_of(view)
        self._table.fill(VIEW, schema, _batches(self.home.snapshot(as_of), schema))
        self.feast.registry.apply_materialization(view, PROJECT, as_of - timedelta(seconds=1), as_of)

    def rewrite(self, rows: pa.Table, schema: Schema) -> None:
        """Bring vectors of members who did something since the snapshot into the online store."""
        self._table.write(VIEW, schema, (_batch(part, schema) for part in rows.to_batches()))

    def forget(self) -> None:
        """Delete what the online store holds."""
        self._table.forget(VIEW)

    def erase(self, member_ids: Sequence[str]) -> int:
        """Delete the vectors of members, and say how many there were."""
        return self._table.erase(VIEW, member_ids)

    def vectors(self, member_ids: Sequence[str]) -> Vectors:
        """Read every feature of members as it stands online: `NUMBERS` as they are, and `WORDS`."""
        return self._table.read(VIEW, member_ids, numbers=NUMBERS, words=WORDS)

    def training_frame(self, entities: pd.DataFrame, service: str = ALL) -> pd.DataFrame:
        """Join to each row `member_id`, `as_of` the features of a service as they were known at that time.

        Further columns are kept. As many rows come out as went in, in the same order, duplicates included.

        Raises
        ------
        ContractError
            If a row was lost or has no features: the member had not joined, or no snapshot is that old.
        """
        rows = entities.rename(columns={"as_of": "event_timestamp"}).assign(row=np.arange(len(entities)))
        with _quiet():
            history = self.feast.get_historical_features(rows, self._service(service), filter_by_created_timestamp=True)
            joined: pd.DataFrame = history.to_df()
        if not np.array_equal(joined.pop("row").to_numpy(), np.arange(len(entities))):
            raise ContractError(
                f"{len(entities)} rows went into the point-in-time join, {len(joined)} came out, or in another order"
            )
        # a count is never missing where there is a snapshot
        absent = int(joined["visits_28d"].isna().sum())
        if absent:
            raise ContractError(
                f"{absent} of {len(entities)} rows have no snapshot as old as their as_of; `holdfast features build`"
            )
        # in place: millions of rows are gigabytes
        joined.columns = pd.Index("as_of" if name == "event_timestamp" else name for name in joined)
        return joined

    def online(
        self, member_ids: Sequence[str], features: Sequence[str], *, facts: Collection[str] = ()
    ) -> MemberFeatures:
        """Read members' latest features, in the order of `features`.

        Parameters
        ----------
        facts : further features, numbers and words, as rules speak of them

        Raises
        ------
        ContractError
            If a feature is none of the numbers that a decision reads, or a fact no feature.
        """
        strangers = [name for name in features if name not in _READ] + [name for name in facts if name not in CATALOGUE]
        if strangers:
            raise ContractError(
                f"{', '.join(strangers)}: not among the numbers that a decision reads; `holdfast features list` shows "
                f"every feature, `MODEL_FEATURES` in features/definitions.py names those"
            )
        numbers = [*features, *(name for name in facts if not CATALOGUE[name].is_text)]
        words = [*_ANSWERED, *(name for name in facts if CATALOGUE[name].is_text)]
        found = self._table.read(VIEW, member_ids, numbers=numbers, words=words)
        said = tuple(zip(*found.words, strict=True)) if member_ids else ((),) * len(words)
        counted = zip(numbers[len(features) :], found.numbers.T[len(features) :], strict=True)
        told = {name: _objects(spoken) for name, spoken in zip(words, said, strict=True) if name in facts}
        return MemberFeatures(
            member_ids=tuple(member_ids),
            X=found.numbers[:, : len(features)].astype(np.float32),
            known=found.known,
            segment=said[0],
            lifecycle_stage=said[1],
            event_timestamp=found.event_timestamp,
            facts=dict(counted) | told,
        )

    @cached_property
    def _table(self) -> PackedTable:
        return open_table(self.engine, self.home.online)

    def _view(self) -> FeatureView:
        from feast.errors import FeatureViewNotFoundException

        try:
            return self.feast.get_feature_view(VIEW)
        except FeatureViewNotFoundException as error:
            raise NotFoundError(_UNAPPLIED) from error

    def _service(self, name: str) -> FeatureService:
        from feast.errors import FeatureServiceNotFoundException

        try:
            return self.feast.get_feature_service(name)
        except FeatureServiceNotFoundException as error:
            raise NotFoundError(_UNAPPLIED) from error


def open_store(home: Home, engine: Engine | None = None) -> Store:
    """Open the feature store: DuckDB over Parquet, a registry and an online store as `holdfast.toml` says.

    Parameters
    ----------
    engine : another one than the settings say
    """
    # Feast switches everybody's deprecation warnings on, and reads in threads, which a local filter does not reach
    warnings.filterwarnings("ignore", "fetch_arrow_table", DeprecationWarning)
    engine = engine or read_programme(home.settings).engine
    return Store(home, engine)


def registry_tables() -> set[str]:
    """Name the tables that this Feast keeps its definitions in, where they stand in Postgres."""
    from feast.infra.registry.sql import metadata

    return set(metadata.tables)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Feast's own printing off a person's screen."""
    with redirect_stdout(io.StringIO()):
        yield


def _config(home: Home, engine: Engine) -> RepoConfig:
    root = home.root.resolve()
    return RepoConfig(
        project=PROJECT,
        provider="local",
        registry=_registry(root / home.registry.name, engine),
        offline_store={"type": offline.STORE, "history": str(root / home.history.name)},
        online_store={
            "type": online.STORE,
            "path": str(root / home.online.name),
            "engine": engine.model_dump(),
        },
        entity_key_serialization_version=3,
        repo_path=str(root),
    )


def _registry(path: Path, engine: Engine) -> dict[str, Any]:
    """Say where Feast keeps its definitions; nothing of them is cached, for others may change them."""
    if engine.registry == "file":
        return {"path": str(path), "cache_ttl_seconds": 0}
    from sqlalchemy import NullPool

    from features.stores.postgres import in_schema

    address = in_schema(engine.registry, "registry")
    kept = {"poolclass": NullPool}  # asked so seldom that a connection that is kept is one the server has closed
    return {"registry_type": "sql", "path": address, "cache_ttl_seconds": 0, "sqlalchemy_config_kwargs": kept}


def _batches(snapshot: Path, schema: Schema) -> Iterator[Batch]:
    """Read a snapshot as it is written, a part at a time."""
    if not snapshot.exists():
        raise NotFoundError(f"there is no snapshot {snapshot.name}; `holdfast features build` computes them")
    with pq.ParquetFile(snapshot, buffer_size=_BUFFER) as file:
        absent = {*schema.numbers, *schema.words} - set(file.schema_arrow.names)
        if absent:
            raise ContractError(f"{snapshot.name} lacks {', '.join(sorted(absent))}; `holdfast features build`")
        for part in file.iter_batches(batch_size=_PART, use_threads=False):
            yield _batch(part, schema)


def _batch(rows: pa.RecordBatch, schema: Schema) -> Batch:
    numbers = [rows.column(name).to_numpy(zero_copy_only=False) for name in schema.numbers]
    words = [rows.column(name).to_pylist() for name in schema.words]
    return Batch(
        member_ids=rows.column("member_id").to_pylist(),
        numbers=np.column_stack(numbers),
        words=list(zip(*words, strict=True)),
        event_timestamp=_microseconds(rows.column("event_timestamp")),
        created=_microseconds(rows.column("created_timestamp")),
    )


def _microseconds(times: pa.Array) -> list[int]:
    values: list[int] = times.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_pylist()
    return values


def _objects(words: Sequence[str | None]) -> NDArray[np.object_]:
    """Lay words out as an array of objects, whatever their lengths."""
    return np.array(words, dtype=object)
