"""Feast's online store over the packed format: what Feast writes and reads goes through the same table.

A Feast `OnlineStore` plugin, named by its class path in the store's configuration. It holds views of one string key,
with features that are float64 or strings; definitions with anything else are refused when they are applied.
"""

import features.unchecked  # noqa: F401  (before Feast itself)

# isort: split

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from feast import Entity, FeatureView, RepoConfig
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel
from feast.types import Float64, String
from pydantic import StrictStr

from features.engine import Engine
from features.errors import ContractError
from features.stores.packed import Batch, PackedTable, Schema, Words, microseconds
from features.stores.packed_sqlite import SqliteTable

STORE: Final = "features.stores.online.PackedOnlineStore"

Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
Read = tuple[datetime | None, dict[str, Value] | None]


class PackedOnlineStoreConfig(FeastConfigBaseModel):  # type: ignore[misc]  # Feast ships no types
    """Say where the table is: in `path` for SQLite, where the engine says for Redis."""

    type: Literal["features.stores.online.PackedOnlineStore"] = STORE
    path: StrictStr
    engine: Engine = Engine()


def open_table(engine: Engine, path: Path) -> PackedTable:
    """Open the online table of one machine, in a file, or of several, in Redis.

    Raises
    ------
    ContractError
        If it is Redis and its client is not installed.
    """
    if engine.online == "sqlite":
        return SqliteTable(path)
    try:
        from features.stores.packed_redis import RedisTable
    except ModuleNotFoundError as error:
        raise ContractError("online is Redis, whose client comes with `pip install 'holdfast[cluster]'`") from error
    return RedisTable(
        engine.online, prefix=engine.online_prefix, days=engine.online_days, timeout_ms=engine.online_timeout_ms
    )


class PackedOnlineStore(OnlineStore):  # type: ignore[misc]  # Feast ships no types
    """Keep one packed vector per member and view."""

    _table: PackedTable | None = None

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[Row], progress: Callable[[int], Any] | None
    ) -> None:
        """Write rows as Feast brings them; an older one never replaces a newer one.

        A row that says not when it became known, did so when it happened.
        """
        schema = schema_of(table)
        self._open(config).write(table.name, schema, [_batch(schema, data)])
        if progress:
            progress(len(data))

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[Read]:
        """Read rows as Feast wants them: a missing value is an empty one, an unknown member `(None, None)`."""
        schema = schema_of(table)
        asked = set(requested_features or (*schema.numbers, *schema.words))
        numbers = [name for name in schema.numbers if name in asked]
        words = [name for name in schema.words if name in asked]
        ids = [_member_id(key) for key in entity_keys]
        found = self._open(config).read(table.name, ids, numbers=numbers, words=words)
        values = zip(found.event_timestamp, found.numbers.tolist(), found.words, strict=True)
        return [
            (time, _numbers(numbers, row) | _strings(words, said)) if time else (None, None)
            for time, row, said in values
        ]

    def update(  # noqa: PLR0917 (Feast's signature)
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],  # noqa: ARG002 (Feast's signature)
        entities_to_keep: Sequence[Entity],  # noqa: ARG002 (Feast's signature)
        partial: bool,  # noqa: ARG002, FBT001 (Feast's signature)
    ) -> None:
        """Make the table, check that it can hold the views, and delete the rows of views that are gone."""
        for view in tables_to_keep:
            schema_of(view)
        table = self._open(config)
        table.create()
        for view in tables_to_delete:
            table.forget(view.name)

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:  # noqa: ARG002 (Feast's signature)
        """Delete the rows of the views."""
        for view in tables:
            self._open(config).forget(view.name)

    def _open(self, config: RepoConfig) -> PackedTable:
        if self._table is None:
            settings = config.online_store
            self._table = open_table(settings.engine, Path(config.repo_path or ".") / settings.path)
        return self._table


def schema_of(view: FeatureView) -> Schema:
    """Give the order in which a view's features are packed.

    Raises
    ------
    ContractError
        If the view has another key than one string, or a feature that is neither float64 nor a string.
    """
    kinds = {field.name: field.dtype for field in view.features}
    others = [f"{name} ({kind})" for name, kind in kinds.items() if kind not in {Float64, String}]
    keys = [(column.name, column.dtype) for column in view.entity_columns]
    if others or len(keys) != 1 or keys[0][1] != String:
        raise ContractError(
            f"the view {view.name} has {', '.join(others) or f'the key {keys}'}; the online store keeps Float64 and "
            f"String features under one String key; change features/definitions.py"
        )
    numbers = tuple(name for name, kind in kinds.items() if kind == Float64)
    return Schema(numbers, tuple(name for name in kinds if name not in numbers))


def _member_id(key: EntityKey) -> str:
    return str(key.entity_values[0].string_val)


def _batch(schema: Schema, data: list[Row]) -> Batch:
    numbers = [[_number(values.get(name)) for name in schema.numbers] for _, values, _, _ in data]
    return Batch(
        member_ids=[_member_id(key) for key, _, _, _ in data],
        numbers=np.array(numbers, dtype=np.float64).reshape(len(data), len(schema.numbers)),
        words=[_words(schema, values) for _, values, _, _ in data],
        event_timestamp=[microseconds(time) for _, _, time, _ in data],
        created=[microseconds(created or time) for _, _, time, created in data],
    )


def _number(value: Value | None) -> float:
    return value.double_val if value and value.HasField("double_val") else np.nan


def _words(schema: Schema, values: dict[str, Value]) -> Words:
    given = (values.get(name) for name in schema.words)
    return tuple(value.string_val if value and value.HasField("string_val") else None for value in given)


def _numbers(names: list[str], row: list[float]) -> dict[str, Value]:
    # a NaN is unequal to itself
    return {name: Value(double_val=v) if v == v else Value() for name, v in zip(names, row, strict=True)}  # noqa: PLR0124


def _strings(names: list[str], row: Words) -> dict[str, Value]:
    return {name: Value() if v is None else Value(string_val=v) for name, v in zip(names, row, strict=True)}
