"""The manifest of a release: what it is made of and on what evidence; plain JSON, read without its models."""

import json
import re
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from features.errors import CorruptError, NotFoundError
from features.files import fingerprint
from training.releases.sealed import MANIFEST_BYTES, parse, read_bytes

FORMAT: Final = 1
RELEASE: Final = re.compile(r"[A-Za-z0-9]+")  # an id, and no path


@dataclass(frozen=True)
class FeatureSpec:
    """Name one column a model reads, its meaning in words, its unit, and the range it may lie in."""

    name: str
    meaning: str
    unit: str
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class OfferSpec:
    """Describe one offer as decided on; money in minor units, times in ISO 8601 UTC."""

    offer_id: str
    name: str
    channel: str
    contact_cost: int
    redemption_cost: int
    valid_from: str
    valid_until: str


@dataclass(frozen=True)
class Manifest:
    """Say what a release is made of and on what evidence; plain JSON."""

    features: tuple[FeatureSpec, ...]
    offers: tuple[OfferSpec, ...]
    programme: dict[str, Any]  # the settings it was trained under
    reference_as_of: tuple[str, ...]  # the snapshots it learned from: the reference window of monitoring
    experiment: str  # "simulated", "randomised", "observational": where the uplift comes from
    evidence: dict[str, Any]  # the tables of the training report
    runs: dict[str, str] = field(default_factory=dict)  # model -> MLflow run id
    release_id: str = ""
    files: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> {"bytes", "sha256"}
    format: int = FORMAT


def read_manifest(root: Path) -> Manifest:
    """Read a release's manifest without its models; every value in it is the one that was written."""
    path = root / "manifest.json"
    if not path.exists():
        raise NotFoundError(f"{root} holds no release (no manifest.json); `holdfast releases` lists those that exist")
    return manifest_of(read_bytes(path, most=MANIFEST_BYTES), str(path))


def no_release(which: str) -> NotFoundError:
    """Say that nothing goes by a name or an id."""
    return NotFoundError(f"there is no release {which!r}; `holdfast releases` lists those that exist")


def manifest_of(body: bytes, where: str) -> Manifest:
    """Take a manifest from its bytes.

    Raises
    ------
    CorruptError
        If they are none, or another than was released.
    """
    try:
        value = parse(body)
        if value["format"] != FORMAT:
            raise CorruptError(f"{where} has format {value['format']}, {FORMAT} was wanted; train a new release")
        value["features"] = tuple(FeatureSpec(**feature) for feature in value["features"])
        value["offers"] = tuple(OfferSpec(**offer) for offer in value["offers"])
        value["reference_as_of"] = tuple(value["reference_as_of"])
        manifest = Manifest(**value)
        came = identity(manifest)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise CorruptError(
            f"{where} is not the manifest of a release: {error}; `holdfast rollback` goes back"
        ) from error
    if came != manifest.release_id:
        raise CorruptError(
            f"{where} is not the manifest that was released: its content is that of {came}, {manifest.release_id} "
            f"was wanted; `holdfast rollback` goes back"
        )
    return manifest


def identity(manifest: Manifest) -> str:
    """Hash what the manifest says, the files' hashes among it; not the runs, which are new each time."""
    content = asdict(replace(manifest, release_id="", runs={}))
    return fingerprint(json.loads(json.dumps(content)))[:12]


def plain(value: Any) -> Any:  # noqa: ANN401 (any value, any JSON value)
    """Turn nested dataclasses and NumPy scalars into JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain({field.name: getattr(value, field.name) for field in fields(value)})
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
