"""Spark, where one machine is too small: the session, and the tables that expressions are computed over.

The door to its library. One session serves the whole process: to start one takes ten seconds.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import contextmanager
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import NotFoundError, UnavailableError
from features.memory import query_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import ibis.expr.types as ir
    from numpy.typing import NDArray

_JAVA: Final = 17
_JAVA_SECONDS: Final = 20
_MASTER_SECONDS: Final = 5
_ROWS: Final = 122_880  # in a group of a Parquet file, as DuckDB has them
_TIME: Final = pa.timestamp("us", tz="UTC")
_SETTINGS: Final = {
    # times are UTC in every table, and so are those that Spark makes of them
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    # whole numbers that no longer fit, and divisions by nothing, are as in DuckDB: refused, or missing by `nullif`
    "spark.sql.ansi.enabled": "true",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    # one clock, and threads that do not spin while they wait for one another, in every process of Python's
    "spark.executorEnv.TZ": "UTC",
    "spark.executorEnv.OMP_WAIT_POLICY": "passive",
}
# of a master on this machine: nothing listens beyond it, and shuffles have as few parts as their size allows
_HERE: Final = re.compile(r"local\b|spark://(127\.0\.0\.1|localhost):")
_LOOPBACK: Final = "127.0.0.1"
_ALONE: Final = {
    "spark.driver.host": _LOOPBACK,
    "spark.driver.bindAddress": _LOOPBACK,
    "spark.sql.adaptive.coalescePartitions.initialPartitionNum": "64",
}


def spark_version() -> str:
    """Name the version that is installed.

    Raises
    ------
    NotFoundError
        If it is not.
    """
    try:
        import pyspark
    except ModuleNotFoundError as error:
        raise NotFoundError("Spark is not installed: pip install 'holdfast[cluster]'") from error
    return str(pyspark.__version__)


def java_version() -> str:
    """Name the Java that Spark runs on.

    Raises
    ------
    NotFoundError
        If there is none, or only an older one.
    """
    home = os.environ.get("JAVA_HOME", "")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    said = _said(java) if java else ""
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    if found is None or int(found[1]) < _JAVA:
        came = f"this came: {said}" if said else "there is none"
        raise NotFoundError(f"Spark needs Java {_JAVA} or later, {came}; apt-get install openjdk-17-jre-headless")
    return said


def reach(master: str) -> None:
    """Look whether Spark is here, and a master elsewhere answers: Spark itself would ask for a minute, and then die.

    Raises
    ------
    NotFoundError, UnavailableError
        If Spark or Java is not installed, or no master answers.
    """
    spark_version()
    java_version()
    if not (place := re.match(r"spark://([^:,/]+):(\d+)", master)):
        return
    try:
        socket.create_connection((place[1], int(place[2])), timeout=_MASTER_SECONDS).close()
    except OSError as error:
        raise UnavailableError(
            f"no master of Spark answers at {master}; start it, or set [engine] spark in holdfast.toml"
        ) from error


@cache
def connect(master: str) -> Any:  # noqa: ANN401 (Ibis' backend)
    """Start Spark, once in a process.

    Raises
    ------
    NotFoundError, UnavailableError
        If Spark or Java is not installed, or no master answers.
    """
    reach(master)
    import ibis
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    here = bool(_HERE.match(master))
    if here:
        os.environ.setdefault("SPARK_LOCAL_IP", _LOOPBACK)
    builder = SparkSession.builder.master(master).appName("holdfast")
    # of its own accord it takes one gigabyte, however large the machine
    heap = {"spark.driver.memory": f"{query_memory() >> 20}m"} if master.startswith("local") else {}
    for key, value in (_SETTINGS | (_ALONE if here else {}) | heap).items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return ibis.pyspark.connect(session)


def session_of(master: str) -> Any:  # noqa: ANN401 (Spark's session)
    """Give Spark's own session."""
    return connect(master)._session  # noqa: SLF001 (Ibis shows it no other way)


def read_tables(master: str, paths: "Mapping[str, Path]") -> "dict[str, ir.Table]":
    """Give tables as expressions that Spark computes, each over its Parquet file."""
    spark = connect(master)
    # named after the content: what the next ingest brings is another table to Spark, which keeps what it has read
    names = {name: re.sub(r"\W", "_", path.stem) for name, path in paths.items()}
    return {name: spark.read_parquet(str(path.resolve()), table_name=names[name]) for name, path in paths.items()}


def write_parquet(rows: "ir.Table", path: Path) -> None:
    """Compute rows and write them, in their order, into one file of the layout that DuckDB's have.

    Spark writes a part for each of its tasks; they are put together here a group of rows at a time, so that nothing is
    held in memory that grows with the members.

    Raises
    ------
    UnavailableError
        If a task failed for good.
    """
    kinds = rows.schema().to_pyarrow()
    schema = pa.schema([(one.name, _TIME if pa.types.is_timestamp(one.type) else one.type) for one in kinds])
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".part") as folder:
        with plainly():
            rows.get_backend().to_parquet_dir(rows, f"{folder}/parts")
        with pq.ParquetWriter(path, schema) as file:
            for part in sorted(Path(folder, "parts").glob("*.parquet")):
                for group in pq.ParquetFile(part).iter_batches(_ROWS):
                    file.write_batch(group.cast(schema), _ROWS)


@contextmanager
def between(rows: "ir.Table", path: Path) -> "Iterator[ir.Table]":
    """Compute rows that are read more than once, into files beside a path that are kept meanwhile.

    Raises
    ------
    UnavailableError
        If a task failed for good.
    """
    spark = rows.get_backend()
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".part") as folder:
        with plainly():
            spark.to_parquet_dir(rows, f"{folder}/parts")
        yield spark.read_parquet(f"{folder}/parts", table_name="between")


def map_parts(
    master: str, work: "Callable[[str], Mapping[str, NDArray[Any]]]", messages: "Sequence[str]"
) -> "list[dict[str, NDArray[Any]]]":
    """Let Spark's workers do the same work for each message, a task each, and give in order what they say.

    Nothing but messages and answers goes through here: members stay in files that all machines see. A task that dies
    with its worker is done again by another, so that work done twice has to come to the same.

    Parameters
    ----------
    work : a function of a module that workers have too

    Raises
    ------
    UnavailableError
        If a task failed for good.
    """
    if not messages:
        return []
    numbers = session_of(master).range(0, len(messages), 1, len(messages))
    told = numbers.mapInArrow(partial(_answers, work, messages), "number long, said binary")
    with plainly():
        return [_read(row.said) for row in sorted(told.collect())]


def _answers(
    work: "Callable[[str], Mapping[str, NDArray[Any]]]", messages: "Sequence[str]", numbers: "Iterator[pa.RecordBatch]"
) -> "Iterator[pa.RecordBatch]":
    for number in (number for batch in numbers for number in batch.column(0).to_pylist()):
        written = BytesIO()
        np.savez(written, allow_pickle=False, **work(messages[number]))
        yield pa.record_batch({"number": pa.array([number], pa.int64()), "said": [written.getvalue()]})


def _read(said: bytes) -> "dict[str, NDArray[Any]]":
    with np.load(BytesIO(said), allow_pickle=False) as arrays:
        return dict(arrays)


@contextmanager
def plainly() -> "Iterator[None]":
    """Say in a line, as `UnavailableError`, what Spark says on a page, whose values may be members'."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError) as error:
        kinds = re.findall(r"^(?:[\w.]+\.)?(\w+(?:Error|Exception))\b", str(error), re.MULTILINE)
        raise UnavailableError(
            f"Spark gave up ({kinds[-1] if kinds else type(error).__name__}), its own log says where; the same command "
            f"goes on from what is done"
        ) from error


def _said(java: str) -> str:
    """Ask a Java for its version, which it says in one line among others."""
    told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=_JAVA_SECONDS, check=False)  # noqa: S603 (the user's own Java)
    return next((line for line in told.stderr.splitlines() if 'version "' in line), "")
