"""What a step of a training came to, kept until its inputs change: one that was killed goes on where it stood."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xgboost as xgb

from features.files import fingerprint, write_json
from training.releases.manifest import plain


@dataclass(frozen=True)
class Step:
    """Hold what a step says, as JSON values, and the boosters it fitted."""

    record: dict[str, Any]
    boosters: dict[str, xgb.Booster] = field(default_factory=dict)


def cached(folder: Path, name: str, key: str, compute: Callable[[], Step]) -> Step:
    """Give what a step came to, computed if it was not yet with these inputs; one result of each name is kept.

    Every result passes through the disk, so that a release is the same bytes whether its steps were kept or not.

    Parameters
    ----------
    key : a fingerprint of everything the step depends on
    """
    path = folder / f"{name}.json"
    if (kept := _read(path, key)) is None:
        step = compute()
        boosters = {part: booster.save_raw("json").decode() for part, booster in step.boosters.items()}
        body = {"key": key, "record": plain(step.record), "boosters": boosters}
        write_json(path, {"sum": fingerprint(body), "body": body})
        kept = body
    return Step(kept["record"], {part: _booster(text) for part, text in kept["boosters"].items()})


def _read(path: Path, key: str) -> dict[str, Any] | None:
    """Give what is kept under this key; what is spoilt or of another version is made again."""
    try:
        kept = json.loads(path.read_bytes())
        body: dict[str, Any] = kept["body"]
        sound = body["key"] == key and kept["sum"] == fingerprint(body)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return body if sound else None


def _booster(text: str) -> xgb.Booster:
    booster = xgb.Booster({"nthread": 1})
    booster.load_model(bytearray(text.encode()))
    return booster
