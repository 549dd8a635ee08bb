"""MLflow's runs and models' versions: its tables are made by its own migration, and filled in one transaction.

Where the files of runs move as well, every row that says where they are says so of the new place.
"""

import contextlib
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any, Final

import sqlalchemy as sa

from features.engine import Engine
from features.errors import ContractError, UnavailableError
from features.home import Home
from features.migration.move import Move, Part
from features.migration.tally import Compared, Tally, digest, tally
from features.sheet import Progress
from features.stores.postgres import tables_exist
from training.registry import files_uri, schema_version, tracking_uri

Places = tuple[str, str]  # below which files are: here, and there

_ROWS: Final = 1_000  # in memory at once
_NOBODYS: Final = frozenset({"experiments", "workspaces"})  # MLflow puts a first one there when it is opened
_FIRST: Final = 0  # the experiment that it puts there

Tables = Sequence[sa.Table]


def check(move: Move) -> int:
    """Count rows that the target has and the source has not, but for those of an MLflow that was only opened."""
    with _opened(move.home, move.target) as target:
        if target is None:
            return 0
        tables = _tables(target)
        if _untouched(target, tables):
            return 0
        with _opened(move.home, move.source) as source:
            places = _places(move)
            return sum(_strangers(places, source, target, table) for table in tables)


def copy(move: Move, progress: Progress) -> None:
    """Fill the target's tables as the source's are, all or nothing.

    Raises
    ------
    ContractError
        If the tables of either are of another MLflow, or hold what the other can't take.
    """
    places = _places(move)
    with _opened(move.home, move.source) as source:
        if source is None:
            return
        _refuse_version(source, "here")
        _make(tracking_uri(move.home, move.target))
        with _opened(move.home, move.target) as target:
            if target is None or _tallies(places, source) == _tallies(places, target):
                return
            _refuse_version(target, "there")
            tables = _tables(target)
            for table in reversed(tables):
                target.execute(table.delete())
            for number, table in enumerate(tables):
                for rows in _selected(source, table).mappings().partitions():
                    moved = [dict(zip(row.keys(), _moved(places, row.values()), strict=True)) for row in rows]
                    target.execute(table.insert(), moved)
                _move_on(target, table)
                progress("runs and models' versions", number + 1, len(tables))
            target.commit()


def compare(move: Move) -> list[Compared]:
    """Hold each table that has rows on either side against the other."""
    with _opened(move.home, move.source) as source, _opened(move.home, move.target) as target:
        places = _places(move)
        here, there = (_tallies(places, one) for one in (source, target))
    sides = {name: (here.get(name, Tally()), there.get(name, Tally())) for name in {**here, **there}}
    return [Compared(f"tracking: {name}", *both) for name, both in sides.items() if any(one.rows for one in both)]


def readdress(move: Move) -> None:
    """Let the rows say where files are that moved while the rows did not."""
    here, there = _places(move)
    with _opened(move.home, move.source) as kept:
        if kept is None:
            return
        for table in _tables(kept):
            for column in (one for one in table.columns if isinstance(one.type, sa.String)):
                said = sa.update(table).where(column.startswith(here, autoescape=True))
                kept.execute(said.values({column: sa.literal(there) + sa.func.substr(column, len(here) + 1)}))
        kept.commit()


TRACKING = Part("tracking", check, copy, compare)


@contextmanager
def _opened(home: Home, engine: Engine) -> Iterator[sa.Connection | None]:
    """Connect to where runs are kept, if any ever were; what is not committed is undone."""
    local = engine.tracking == "sqlite"
    if not (home.tracking.exists() if local else tables_exist(engine.tracking, "tracking")):
        yield None
        return
    kept = sa.create_engine(tracking_uri(home, engine), poolclass=sa.NullPool)
    try:
        with kept.connect() as connection:
            yield connection
    except sa.exc.OperationalError as error:
        raise UnavailableError("tracking does not answer as it should; `holdfast doctor` says what is wrong") from error
    except sa.exc.DBAPIError as error:
        raise ContractError(
            f"tracking does not take what the other holds ({type(error.orig).__name__}); nothing was moved"
        ) from error


def _make(uri: str) -> None:
    """Let MLflow make its tables where there are none."""
    from mlflow.store.db.utils import _initialize_tables

    kept = sa.create_engine(uri, poolclass=sa.NullPool)
    with contextlib.closing(kept.connect()) as connection:
        made = sa.inspect(connection).has_table("alembic_version")
    if not made:
        with redirect_stderr(io.StringIO()):
            _initialize_tables(kept)


def _tables(connection: sa.Connection) -> Tables:
    """Name MLflow's tables, each after those that it refers to."""
    from mlflow.store.db.base_sql_model import Base
    from mlflow.store.model_registry.dbmodels import models as _versions  # noqa: F401  (registers its tables)
    from mlflow.store.tracking.dbmodels import models as _runs  # noqa: F401  (registers its tables)

    there = set(sa.inspect(connection).get_table_names())
    return [table for table in Base.metadata.sorted_tables if table.name in there]


def _refuse_version(connection: sa.Connection, where: str) -> None:
    (came,) = connection.execute(sa.text("SELECT version_num FROM alembic_version")).one()
    if came != schema_version():
        raise ContractError(
            f"the tables of tracking {where} are of version {came}, {schema_version()} was wanted; back them up, then "
            f"`mlflow db upgrade`"
        )


def _tallies(places: Places, connection: sa.Connection | None) -> dict[str, Tally]:
    if connection is None:
        return {}
    return {
        table.name: tally(_moved(places, row) for row in _selected(connection, table)) for table in _tables(connection)
    }


def _selected(connection: sa.Connection, table: sa.Table) -> sa.CursorResult[Any]:
    return connection.execute(table.select(), execution_options={"yield_per": _ROWS})


def _places(move: Move) -> Places:
    return files_uri(move.home, move.source), files_uri(move.home, move.target)


def _moved(places: Places, row: Iterable[Any]) -> list[Any]:
    """Give a row as it is to stand there: what was said of a file's place is said of its new one."""
    here, there = places
    return [there + value[len(here) :] if isinstance(value, str) and value.startswith(here) else value for value in row]


def _strangers(places: Places, source: sa.Connection | None, target: sa.Connection, table: sa.Table) -> int:
    held = set() if source is None else {digest(_moved(places, row)) for row in _selected(source, table)}
    return sum(digest(row) not in held for row in _selected(target, table))


def _untouched(connection: sa.Connection, tables: Tables) -> bool:
    """Tell whether MLflow was opened there, and nothing else was done."""
    counts = {
        table.name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() for table in tables
    }
    experiments = next(table for table in tables if table.name == "experiments")
    of_people = experiments.c.experiment_id != _FIRST
    others = connection.execute(sa.select(sa.func.count()).select_from(experiments).where(of_people)).scalar_one()
    return not others and not any(count for name, count in counts.items() if name not in _NOBODYS)


def _move_on(target: sa.Connection, table: sa.Table) -> None:
    """Let numbers that Postgres gives go on after those that came."""
    number = table.autoincrement_column
    if target.dialect.name != "postgresql" or number is None:
        return
    given = sa.func.pg_get_serial_sequence(table.name, number.name)
    sequence = target.execute(sa.select(given)).scalar_one()
    last = target.execute(sa.select(sa.func.max(number))).scalar_one()
    if sequence and last:
        target.execute(sa.select(sa.func.setval(sequence, last)))
