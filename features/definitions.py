"""The Feast objects over the snapshots: one entity, one source, one view, and one feature service per reader.

The list of a model's features exists once, here; a release carries it, and load and request compare with it.
"""

from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Float64, String

from features import transforms  # noqa: F401  (registers the features)
from features.catalogue import CATALOGUE

VIEW: Final = "member_features"
NUMBERS: Final = tuple(name for name, feature in CATALOGUE.items() if not feature.is_text)
# The models do not read what grows with time by construction: learned on short histories, it is out of range on long
MODEL_FEATURES: Final = tuple(name for name in NUMBERS if not CATALOGUE[name].ageing)
WORDS: Final = tuple(name for name, feature in CATALOGUE.items() if feature.is_text)
MODELS: Final = ("churn", "value", "uplift")
ALL: Final = "all"  # every number: for training frames, where a comparison may need more than a model reads
DECISION: Final = "decision"  # what the service reads online: the models' features, and the words it answers with


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
