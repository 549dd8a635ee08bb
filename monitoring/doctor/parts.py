"""The parts that `[engine]` names: each is tried as it is used, and what is wrong with it is told apart."""

import contextlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from features.engine import Engine, masked
from features.errors import HoldfastError, NotFoundError
from features.home import Home
from features.stores.health import Health, health_of, revision, tables_in
from monitoring.doctor.finding import Finding

APART: Final = timedelta(seconds=2)  # that two clocks may be: beyond it, times of one machine are wrong on another
_MEND: Final = {
    "absent": "start it, or mend its address",
    "silent": "look at its log and its load, and start it anew if it hangs",
    "refused": "mend what it refuses, in its address or on the server",
    "read_only": "name the server that takes writes, or let this one take them",
    "slow": "look at its load, or bring it nearer",
}


@dataclass
class Asked:
    """Hold what is examined, and what servers' clocks said meanwhile."""

    home: Home
    engine: Engine
    clock: Callable[[], datetime]
    apart: dict[str, timedelta] = field(default_factory=dict)  # part -> how far its clock is before this machine's

    def health(self, part: str) -> Health:
        """Try the server of a part."""
        found = health_of(part, self.engine, self.clock)
        if found.server_time and found.asked_at:
            self.apart[part] = found.server_time - found.asked_at
        return found

    def finding(self, part: str, found: str, mend: str = "") -> Finding:
        """Say what was found of a part, and where what mends it is set."""
        return Finding(part, masked(getattr(self.engine, part)), found, mend)

    def clocks(self) -> Finding:
        """Hold this machine's clock against the servers'."""
        wrong = {part: by for part, by in self.apart.items() if abs(by) > APART}
        now = f"UTC {self.clock():%Y-%m-%d %H:%M:%S}"
        if wrong:
            told = ", ".join(f"{part}'s is {by.total_seconds():+.1f} s" for part, by in wrong.items())
            return Finding("clock", now, told, "let NTP keep every machine's time: decisions are ordered by it")
        return Finding(
            "clock", now, f"within {APART.seconds} s of {', '.join(self.apart) or 'itself: no server to ask'}"
        )


def features(asked: Asked) -> Finding:
    """Say whether what computes features is installed."""
    if asked.engine.features == "duckdb":
        import duckdb

        return asked.finding("features", f"DuckDB {duckdb.__version__}, within this process")
    return _spark(asked, "features")


def training(asked: Asked) -> Finding:
    """Say whether what learns is installed."""
    if asked.engine.training == "xgboost":
        import xgboost

        return asked.finding("training", f"XGBoost {xgboost.__version__}, within this process")
    return _spark(asked, "training")


def online(asked: Asked) -> Finding:
    """Say how the online store stands."""
    if asked.engine.online == "sqlite":
        return _file(asked, "online", asked.home.online, "holdfast features materialize")
    try:
        health = asked.health("online")
    except ModuleNotFoundError:
        return asked.finding("online", "Redis' client is not installed", "pip install 'holdfast[cluster]'")
    if health.state == "slow":
        within = asked.engine.online_timeout_ms
        mend = f"bring it nearer, or raise online_timeout_ms ({within}), after which decisions fall back"
        return asked.finding("online", health.words, mend)
    return asked.finding("online", health.words, _mend(health, "online"))


def registry(asked: Asked) -> Finding:
    """Say how Feast's registry stands, and whether its tables are those of this Feast."""
    if asked.engine.registry == "file":
        return _there(asked, "registry", asked.home.registry, "holdfast features apply")
    return _postgres(asked, "registry", _registry_fault)


def tracking(asked: Asked) -> Finding:
    """Say how MLflow's store stands, and whether its tables are those of this MLflow."""
    if asked.engine.tracking == "sqlite":
        return _file(asked, "tracking", asked.home.tracking, "holdfast train")
    return _postgres(asked, "tracking", _tracking_fault)


def studies(asked: Asked) -> Finding:
    """Say how Optuna's store stands, and whether its tables are those of this Optuna."""
    if asked.engine.studies == "file":
        return _there(asked, "studies", asked.home.studies, "holdfast train")
    return _postgres(asked, "studies", _studies_fault)


def decisions(asked: Asked) -> Finding:
    """Say how the decision log's copy stands, and whether its tables can take what the log holds."""
    if asked.engine.decisions == "sqlite":
        return _file(asked, "decisions", asked.home.decisions, "holdfast serve")
    return _postgres(asked, "decisions", _decisions_fault)


def objects(asked: Asked) -> Finding:
    """Say whether object storage takes what is put there; where homes share none, releases are this home's own."""
    if asked.engine.objects == "file":
        return asked.finding("objects", "releases and MLflow's files are this home's own")
    health = asked.health("objects")
    return asked.finding("objects", health.words, _mend(health, "objects"))


PARTS: Final = (features, training, online, registry, tracking, studies, decisions, objects)


def _spark(asked: Asked, part: str) -> Finding:
    from features.spark import java_version, reach, spark_version

    try:
        reach(asked.engine.spark)
        return asked.finding(part, f"Spark {spark_version()} on {java_version()}, master {asked.engine.spark}")
    except HoldfastError as error:
        return asked.finding(part, "can't be started", str(error))


def _postgres(asked: Asked, part: str, fault: Callable[[Asked], str]) -> Finding:
    try:
        health = asked.health(part)
        if mend := _mend(health, part):
            return asked.finding(part, health.words, mend)
        if found := fault(asked):
            return asked.finding(part, f"{health.words}; it is not what this home wants", found)
    except HoldfastError as error:
        return asked.finding(part, "can't be asked", str(error))
    return asked.finding(part, health.words)


def _mend(health: Health, part: str) -> str:
    if health.state == "answers":
        return ""
    return f"{_MEND[health.state]}; `{part}` under [engine] in holdfast.toml"


def _registry_fault(asked: Asked) -> str:
    from features.store import registry_tables

    there = tables_in(asked.engine.registry, "registry")
    lacking = sorted(registry_tables() - there) if there else []
    return f"lacks {', '.join(lacking)}: `holdfast features apply` makes what is missing" if lacking else ""


def _tracking_fault(asked: Asked) -> str:
    from training.registry import schema_version

    cure = "back the database up, then `mlflow db upgrade`, or the MLflow it is of"
    return _outdated(revision(asked.engine.tracking, "tracking"), schema_version(), cure)


def _studies_fault(asked: Asked) -> str:
    from training.studies import schema_version

    cure = "back it up, then `optuna storage upgrade`, or the Optuna it is of"
    return _outdated(revision(asked.engine.studies, "studies"), schema_version(), cure)


def _outdated(came: str | None, wanted: str, cure: str) -> str:
    """Say what is wrong with a library's tables; of none that were made yet, nothing is."""
    return "" if came in {None, wanted} else f"{came} came, {wanted} was wanted: {cure}"


def _decisions_fault(asked: Asked) -> str:
    from features.log.drain import lacking

    if asked.engine.agree and (found := _disagrees(asked)):
        return found
    with contextlib.suppress(NotFoundError):  # nothing was decided yet
        if missing := lacking(asked.home.decisions, asked.engine.decisions):
            return (
                f"lacks {', '.join(missing)}: let the copy be made anew in an empty database; the file holds all of it"
            )
    return ""


def _disagrees(asked: Asked) -> str:
    """Say what would keep this instance apart from the others."""
    from features.log.ledger import NAME, begun, round_trip, unlike
    from features.log.register import Marks

    address, within = asked.engine.decisions, asked.engine.decisions_timeout_ms
    if asked.home.privacy_key.exists():
        if found := unlike(address, Marks(asked.home.decisions).of(NAME)):
            return found
    elif begun(address):
        return "this home has no privacy.key yet: copy that of the instances that decide as one before it makes its own"
    if (took := round_trip(address) * 1000) > within:
        late = f"its answer takes {took:.0f} ms, and this instance decides apart after {within}"
        return f"{late}: bring it nearer, or raise decisions_timeout_ms"
    return ""


def _there(asked: Asked, part: str, path: Path, made_by: str) -> Finding:
    return asked.finding(part, "there" if path.exists() else f"not made yet: `{made_by}`")


def _file(asked: Asked, part: str, path: Path, made_by: str) -> Finding:
    """Say of a file of SQLite whether it can be read."""
    if not path.exists():
        return _there(asked, part, path, made_by)
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        return asked.finding(part, f"{path.name} can't be read: {error}", f"move it away; `{made_by}` makes another")
    return asked.finding(part, f"{path.name}, {path.stat().st_size / 2**20:,.1f} MiB")
