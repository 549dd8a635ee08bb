"""Postgres, asked briefly: the door to its driver.

Libraries that share a database would fall over each other's tables (both MLflow and Optuna have an `alembic_version`),
so that each part has a schema of its own.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode

from features.engine import masked
from features.errors import ContractError, UnavailableError

CONNECT_SECONDS: Final = 3
STATEMENT_MS: Final = 3_000


def in_schema(address: str, part: str) -> str:
    """Make a part's schema where there is none, and give the address by which SQLAlchemy finds its tables in it.

    Raises
    ------
    UnavailableError
        If the server doesn't answer in time, or takes no writes and has no such schema.
    ContractError
        If the driver is not installed.
    """
    schema = schema_of(part)
    with asked(address, part) as connection:
        if not connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)).fetchone():
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    place, _, query = address.partition("://")[2].partition("?")
    options = dict(parse_qsl(query)) | {"options": f"-csearch_path={schema}"}
    return f"postgresql+psycopg://{place}?{urlencode({'connect_timeout': CONNECT_SECONDS} | options, quote_via=quote)}"


def schema_of(part: str) -> str:
    """Name the schema that a part has to itself.

    >>> schema_of("tracking")
    'holdfast_tracking'
    """
    return f"holdfast_{part}"


def tables_exist(address: str, part: str) -> bool:
    """Tell whether anything was made in a part's schema.

    Raises
    ------
    UnavailableError, ContractError
        As `in_schema`.
    """
    with asked(address, part) as connection:
        query = "SELECT EXISTS (SELECT 1 FROM pg_tables WHERE schemaname = %s)"
        return bool(connection.execute(query, (schema_of(part),)).fetchone()[0])


@contextlib.contextmanager
def asked(address: str, part: str) -> Iterator[Any]:
    """Connect for a few statements, each committed by itself.

    Raises
    ------
    UnavailableError, ContractError
        As `in_schema`.
    """
    try:
        import psycopg
    except ImportError as error:
        raise ContractError(f"{part} is Postgres, whose driver comes with `pip install 'holdfast[cluster]'`") from error
    try:
        options = f"-cstatement_timeout={STATEMENT_MS}"
        with psycopg.connect(address, connect_timeout=CONNECT_SECONDS, autocommit=True, options=options) as connection:
            yield connection
    except psycopg.Error as error:
        raise UnavailableError(
            f"{part} at {masked(address)} does not answer as it should ({type(error).__name__}); `holdfast doctor` "
            f"says what is wrong"
        ) from error
