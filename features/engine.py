"""What runs where: on one machine, or on servers that several share; each part by itself."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

POSTGRES: Final = r"postgres(ql)?://.+"
EMBEDDED: Final = frozenset({"duckdb", "sqlite", "file"})
# what each part may be beyond one machine: the profile `cluster` wants it of all of them
BEYOND: Final = {
    "features": "spark",
    "online": "redis://host:6379/0",
    "registry": "postgresql://user:password@host/database",
    "tracking": "postgresql://user:password@host/database",
    "studies": "postgresql://user:password@host/database",
    "decisions": "postgresql://user:password@host/database",
    "objects": "s3://bucket/programme",
}


class Engine(BaseModel):
    """Say what runs where; an address may carry a user and a password, so that it is not shown.

    Parts that share a database of Postgres keep out of each other's way: each has a schema of its own there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    profile: Literal["local", "cluster"] = Field(
        "local",
        description="local: a part is a file of this machine unless it says otherwise; cluster: none may be, and each "
        "that still is, is refused",
    )
    features: Literal["duckdb", "spark"] = Field("duckdb", description="what computes features")
    spark: str = Field(
        "local[*]",
        pattern=r"^(local\[(\d+|\*)\]|yarn|(spark|k8s)://.+)$",
        description="Spark's master: local[*], as many processors as this machine has; spark://host:7077; yarn; k8s://...",
    )
    training: Literal["xgboost", "spark"] = Field(
        "xgboost",
        description="what learns the churn model from all rows at last: XGBoost in this process, or on Spark's workers",
    )
    online: str = Field(
        "sqlite",
        pattern=r"^(sqlite|(rediss?|unix|rediss?\+cluster)://.+)$",
        repr=False,
        description="where decisions read features: sqlite, a file under the home; redis://host:6379/0, rediss://..., "
        "unix:///path; redis+cluster://host:7000,host:7001",
    )
    registry: str = Field(
        "file",
        pattern=f"^(file|{POSTGRES})$",
        repr=False,
        description="where Feast keeps its definitions: a file under the home; postgresql://...",
    )
    tracking: str = Field(
        "sqlite",
        pattern=f"^(sqlite|{POSTGRES})$",
        repr=False,
        description="where MLflow keeps runs and models' versions: sqlite, a file under the home; postgresql://...",
    )
    studies: str = Field(
        "file",
        pattern=f"^(file|{POSTGRES})$",
        repr=False,
        description="where Optuna keeps its trials: a file under the home; postgresql://...",
    )
    decisions: str = Field(
        "sqlite",
        pattern=f"^(sqlite|{POSTGRES})$",
        repr=False,
        description="where the decision log is copied to: sqlite, nowhere but the file under the home; postgresql://...",
    )
    objects: str = Field(
        "file",
        pattern=r"^(file|[a-z][a-z0-9+.-]*://.+)$",
        repr=False,
        description="where releases, who is champion, and MLflow's files are kept for other machines: file, under the "
        "home; s3://bucket/programme, gs://..., abfs://..., as fsspec has a package for it",
    )
    agree: bool = Field(
        False,
        description="whether several instances, each with a home of its own, decide as one through the Postgres of "
        "`decisions`: keys, contacts, stock, budgets, opt-outs and erasures of one count at all",
    )
    decisions_timeout_ms: Annotated[int, Field(ge=1, le=60_000)] = Field(
        80, description="so long may Postgres take to answer instances that agree, before one goes on apart"
    )
    online_prefix: Annotated[str, Field(pattern="^[A-Za-z0-9_.-]{1,40}$")] = Field(
        "holdfast", description="what the keys in Redis begin with; programmes that share a Redis have one each"
    )
    online_days: Annotated[int, Field(ge=1, le=3660)] = Field(
        90, description="Redis lets go of a member whose features were not written for so long"
    )
    online_timeout_ms: Annotated[int, Field(ge=1, le=60_000)] = Field(
        40, description="so long may connecting to Redis take, and so long its answer, before decisions fall back"
    )

    @field_validator("agree")
    @classmethod
    def _somewhere(cls, value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 (pydantic's)
        if value and info.data.get("decisions") in EMBEDDED:
            raise ValueError(f"instances agree in Postgres; wanted {_example('decisions')}")
        return value

    @field_validator("objects")
    @classmethod
    def _conditional(cls, value: str) -> str:
        if value.startswith(("file:", "local:")):
            raise ValueError(f"a folder that machines share is mounted at releases/; wanted {_example('objects')}")
        return value

    @field_validator(*BEYOND)
    @classmethod
    def _shared(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("profile") == "cluster" and value in EMBEDDED:
            raise ValueError(
                f'of one machine, which the profile "cluster" excludes; wanted {_example(info.field_name)}'
            )
        return value


def masked(setting: str) -> str:
    """Show an address without its user, its password and its options.

    >>> masked("postgresql://ada:s3cret@db:5432/shop?password=x"), masked("sqlite")
    ('postgresql://***@db:5432/shop', 'sqlite')
    """
    scheme, separator, rest = setting.partition("://")
    identity, _, place = rest.rpartition("@")
    return f"{scheme}{separator}{'***@' if identity else ''}{place.partition('?')[0]}"


def _example(part: str | None) -> str:
    return f'{part} = "{BEYOND[part or ""]}"'
