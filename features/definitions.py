"""The Feast objects over the snapshots: one entity, one source, one view, and one feature service per reader.

The list of a model's features exists once, here; a release carries it, and load and request compare with it.
"""

import features.unchecked  # noqa: F401  (before Feast itself)

# isort: split

from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pandas as pd
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Float64, String

from features import transforms  # noqa: F401  (registers the features)
from features.catalogue.entries import CATALOGUE, EVER
from features.programme import Programme

VIEW: Final = "member_features"
NUMBERS: Final = tuple(name for name, feature in CATALOGUE.items() if not feature.is_text)
# What models may read, and what a decision reads therefore. Not what counts since joining: it grows with time by
# construction, so that what was learned on a short history is out of range on a long one
MODEL_FEATURES: Final = tuple(name for name in NUMBERS if CATALOGUE[name].window != EVER)
WORDS: Final = tuple(name for name, feature in CATALOGUE.items() if feature.is_text)
MODELS: Final = ("churn", "value", "uplift")
ALL: Final = "all"  # every number: for training frames, where a comparison may need more than a model reads
DECISION: Final = "decision"  # what the service reads online: the models' features, and the words it answers with


def model_features(learned_from: pd.DataFrame, programme: Programme) -> tuple[str, ...]:
    """Choose what the models of one programme read: what its history fills, and what says anything of its members.

    A feature of a table that the company does not bring is missing everywhere, and one of a thing that never happens
    is 0 everywhere: nothing can be learned from either, so that a release does not carry them.

    Parameters
    ----------
    learned_from : the rows that models are trained on, with every number
    """
    filled = (name for name in MODEL_FEATURES if not CATALOGUE[name].ageing(programme))
    return tuple(name for name in filled if _varies(learned_from[name]))


def feast_objects(snapshots: Path) -> list[Any]:
    """Define everything that is applied to the registry, over the Parquet files in a folder."""
    member = Entity(
        name="member", join_keys=["member_id"], value_type=ValueType.STRING, description="who belongs to the programme"
    )
    source = FileSource(
        name="snapshots",
        path=str(snapshots.resolve() / "*.parquet"),
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    )
    view = FeatureView(
        name=VIEW,
        entities=[member],
        # no time to live: a dormant member's last snapshot is exactly what this product is about, and the service
        # says the age of what it read
        ttl=timedelta(0),
        schema=[
            Field(name="member_id", dtype=String),
            *(
                Field(name=name, dtype=String if feature.is_text else Float64, description=feature.meaning)
                for name, feature in CATALOGUE.items()
            ),
        ],
        source=source,
        online=True,
    )
    read = dict.fromkeys(MODELS, MODEL_FEATURES) | {ALL: NUMBERS, DECISION: (*MODEL_FEATURES, *WORDS)}
    services = [FeatureService(name=name, features=[view[list(features)]]) for name, features in read.items()]
    return [member, source, view, *services]


def _varies(column: pd.Series) -> bool:
    missing = column.isna()
    return bool(missing.any() and not missing.all()) or bool(column.min() < column.max())
