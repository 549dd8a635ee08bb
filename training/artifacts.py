"""A release: one folder of data (never code) from which every number can be served.

The folder holds boosters as JSON (of uplift, with `effects.json`, only where there are offers), the calibration, golden
rows with their expected scores, and `manifest.json` with the size and sha256 of each. The release's id is a hash of the
manifest, so that it vouches for everything. A release is read in this order, and refused at the first thing that is
wrong: sizes, hashes, structure, golden rows. A corrupted XGBoost JSON file can still parse, so bytes are checked before
parsing and scores after.

That refuses whatever is not what was released: the ledger names the id, the id vouches for the manifest (but for its
runs, which serve nothing), the manifest for every file. Who writes a wrong release, signs it and promotes it by its new
id is held up by structure and golden rows alone: a tree that is wrong where no golden row comes passes.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from features.errors import ContractError, CorruptError
from features.files import write_json, write_whole
from training.calibration import Calibration, calibration_from_json
from training.learning.effects import Effects, effects_from_json
from training.prediction import predict
from training.releases.manifest import Manifest, read_manifest
from training.releases.manifest import identity as identity_of
from training.releases.sealed import parse, read_files
from training.shares import Shares, shares_of

Matrix = NDArray[np.float32]  # (n_members, n_features), in the release's order, NaN where missing
Floats = NDArray[np.float64]

ALWAYS: Final = ("churn", "value")  # the models every release has; uplift only where there are offers
OF_OFFERS: Final = ("uplift", "uplift_error", "retention_uplift", "retention_error", "redemption")
GOLDEN_DRAWS: Final = 8  # rows drawn for each that is wanted: one that happens to be a member's is left out
GOLDEN_TOLERANCE: Final = 1e-5  # relative: one booster on two machines differs by float32 rounding only


@dataclass(frozen=True)
class Scores:
    """Hold what a release knows of members; money in minor units of the programme's currency."""

    churn_probability: Floats  # (n_members,)
    value: Floats  # (n_members,) expected margin within the horizon without an offer
    uplift: Floats  # (n_members, n_offers) incremental margin within the horizon, after redemption costs
    uplift_error: Floats  # (n_members, n_offers) its standard error, of members with an uplift about as high
    retention_uplift: Floats  # (n_members, n_offers) incremental probability of staying
    retention_error: Floats  # (n_members, n_offers) its standard error, likewise
    redemption: Floats  # (n_members, n_offers) probability of redeeming within the horizon an offer that is sent

    @property
    def rows(self) -> Floats:
        """All of them one after the other, `(n_members, 2 + 5 n_offers)`."""
        return np.column_stack([self.churn_probability, self.value, *(getattr(self, name) for name in OF_OFFERS)])

    @classmethod
    def of_rows(cls, rows: Floats) -> "Scores":
        """Take what `rows` gave."""
        return cls(rows[:, 0], rows[:, 1], *np.split(rows[:, 2:], len(OF_OFFERS), axis=1))

    @property
    def margin_by_treatment(self) -> Floats:
        """Expect margin under every treatment, control first, before contact costs: `(n_members, 1 + n_offers)`."""
        return np.hstack([self.value[:, None], self.value[:, None] + self.uplift])


@dataclass(frozen=True)
class Models:
    """Hold the fitted boosters of one release, in memory."""

    churn: xgb.Booster
    value: xgb.Booster
    uplift: Effects | None  # None where there is no offer
    calibration: Calibration

    @property
    def boosters(self) -> dict[str, xgb.Booster]:
        """Those that there are, by name."""
        found = {"churn": self.churn, "value": self.value}
        return found if self.uplift is None else found | {"uplift": self.uplift.student.booster}

    @cached_property
    def _width(self) -> int:
        features: int = self.churn.num_features()
        return features

    @cached_property
    def shares(self) -> Shares:
        """What shares out a member's log-odds of leaving among the features."""
        return shares_of(self.churn)

    def score(self, X: Matrix) -> Scores:
        """Score members.

        Raises
        ------
        ContractError
            For another number of columns, or an infinite value: XGBoost would score both without a word.
        """
        wanted = self._width
        if X.shape != (len(X), wanted):
            raise ContractError(f"features of shape {X.shape} came, (n_members, {wanted}) was wanted")
        if np.isinf(X).any():
            raise ContractError("an infinite feature came, finite or missing (NaN) was wanted")
        of_offers = dict.fromkeys(OF_OFFERS, np.empty((len(X), 0))) if self.uplift is None else self.uplift.predict(X)
        return Scores(
            churn_probability=self.calibration(predict(self.churn, X).astype(np.float64)),
            value=np.maximum(predict(self.value, X).astype(np.float64), 0.0),
            **of_offers,
        )


@dataclass(frozen=True)
class Release:
    """Hold a release that was verified."""

    manifest: Manifest
    models: Models

    @property
    def release_id(self) -> str:
        """The release's name, derived from its content."""
        return self.manifest.release_id

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The columns of the matrix that `score` takes, in order."""
        return tuple(feature.name for feature in self.manifest.features)

    @property
    def offer_ids(self) -> tuple[str, ...]:
        """The columns of `Scores.uplift`, in order."""
        return tuple(offer.offer_id for offer in self.manifest.offers)

    def score(self, X: Matrix) -> Scores:
        """Score members `(n_members, n_features)`; see `Models.score`."""
        return self.models.score(X)


def golden_rows(X: Matrix, rng: np.random.Generator, n: int = 64) -> Matrix:
    """Draw rows that cover the features' ranges and are no member: every column is shuffled by itself.

    Raises
    ------
    ContractError
        If every combination that was drawn is some member's.
    """
    drawn = np.column_stack([rng.choice(column, size=GOLDEN_DRAWS * n) for column in X.T]).astype(np.float32)
    members = set(map(_row_bytes, X))
    strangers = np.array([_row_bytes(row) not in members for row in drawn])
    if not strangers.any():
        raise ContractError(f"{X.shape[1]} features with few values came: every golden row would be a member's")
    rows: Matrix = drawn[strangers][:n]
    return rows


def write_release(folder: Path, manifest: Manifest, models: Models, golden: Matrix) -> Manifest:
    """Write a release below `folder` and return its manifest, completed with files and `release_id`.

    The id is a hash of the content: the same data and seed give the same release, and writing it again changes nothing.

    Raises
    ------
    ContractError
        If the models do not read the manifest's features, or do not score its offers.
    """
    scores = models.score(golden)
    _check_fit(manifest, models, scores)
    files = {f"{name}.json": bytes(booster.save_raw("json")) for name, booster in models.boosters.items()}
    files["calibration.json"] = _dump(models.calibration.to_json())
    if models.uplift is not None:
        files["effects.json"] = _dump(models.uplift.to_json())
    files["golden.json"] = _dump(
        {
            "rows": [[None if np.isnan(v) else float(v) for v in row] for row in golden],
            "scores": {name: value.tolist() for name, value in asdict(scores).items()},
        }
    )
    described = {name: {"bytes": len(body), "sha256": sha256(body).hexdigest()} for name, body in files.items()}
    named = replace(manifest, files=described)
    complete = replace(named, release_id=identity_of(named))
    root = folder / complete.release_id
    for name, body in files.items():
        write_whole(root / name, partial(_fill, body=body))
    write_json(root / "manifest.json", asdict(complete))  # last: a folder without a manifest is no release
    return complete


def load_release(root: Path) -> Release:
    """Verify and load a release.

    Raises
    ------
    NotFoundError, CorruptError
        Nothing of a release that fails any check is ever used.
    """
    return _loaded(*_sealed(root))


def open_release(releases: Path, release_id: str) -> Release:
    """Verify and load the release that has an id: a folder may have been put in its place that vouches for itself.

    Raises
    ------
    NotFoundError, CorruptError
        As `load_release`, and if it is another.
    """
    return _loaded(*_named(releases, release_id))


def check_bytes(releases: Path, release_id: str) -> None:
    """Verify that every byte of a release is one of that which has this id; nothing is made of them.

    Raises
    ------
    NotFoundError, CorruptError
        If one is not.
    """
    _named(releases, release_id)


def latency(root: Path, release: Release, members: int, *, repeats: int = 30) -> float:
    """Measure how many milliseconds it takes to score so many members at once, the median of some repeats."""
    rows, _ = _golden((root / "golden.json").read_bytes())
    X = np.resize(rows, (members, rows.shape[1]))
    took = []
    for _ in range(repeats):
        start = perf_counter()
        release.score(X)
        took.append(perf_counter() - start)
    return float(np.median(took)) * 1e3


def _named(releases: Path, release_id: str) -> tuple[Manifest, dict[str, bytes]]:
    manifest, files = _sealed(releases / release_id)
    if manifest.release_id != release_id:
        raise CorruptError(
            f"{releases / release_id} holds release {manifest.release_id}, not its own; `holdfast rollback` goes back"
        )
    return manifest, files


def _sealed(root: Path) -> tuple[Manifest, dict[str, bytes]]:
    manifest = read_manifest(root)
    names = (*ALWAYS, "uplift", "effects") if manifest.offers else ALWAYS
    return manifest, read_files(root, manifest.files, [f"{name}.json" for name in (*names, "calibration", "golden")])


def _loaded(manifest: Manifest, files: Mapping[str, bytes]) -> Release:
    try:
        models = _models(files)
        rows, golden = _golden(files["golden.json"])
        expected = {name: np.array(golden[name], dtype=np.float64) for name in Scores.__dataclass_fields__}
        scores = models.score(rows)
        _check_fit(manifest, models, scores)
    except (xgb.core.XGBoostError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise CorruptError(f"release {manifest.release_id} does not parse: {error}") from error
    release = Release(manifest, models)
    _check_golden(release, scores, expected)
    return release


def _models(files: Mapping[str, bytes]) -> Models:
    effects = files.get("effects.json")
    return Models(
        **{name: _booster(files[f"{name}.json"]) for name in ALWAYS},
        uplift=None if effects is None else effects_from_json(parse(effects), _booster(files["uplift.json"])),
        calibration=calibration_from_json(parse(files["calibration.json"])),
    )


def _golden(body: bytes) -> tuple[Matrix, dict[str, Any]]:
    golden = parse(body)
    return np.array(golden["rows"], dtype=np.float32), golden["scores"]


def _check_fit(manifest: Manifest, models: Models, scores: Scores) -> None:
    features = [booster.num_features() for booster in models.boosters.values()]
    offers = scores.uplift.shape[1]
    if set(features) != {len(manifest.features)} or offers != len(manifest.offers):
        raise ContractError(
            f"models of {features} features and {offers} offers came, {len(manifest.features)} features and "
            f"{len(manifest.offers)} offers of the manifest were wanted"
        )


def _check_golden(release: Release, scores: Scores, expected: dict[str, Floats]) -> None:
    for name, came in asdict(scores).items():
        wanted = expected[name]
        if came.shape != wanted.shape or not np.allclose(came, wanted, rtol=GOLDEN_TOLERANCE, atol=1e-4):
            raise CorruptError(f"release {release.release_id} scores its golden rows otherwise than when made: {name}")


def _booster(body: bytes) -> xgb.Booster:
    booster = xgb.Booster({"nthread": 1})
    booster.load_model(bytearray(body))
    return booster


def _fill(path: Path, *, body: bytes) -> None:
    path.write_bytes(body)


def _dump(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, allow_nan=False).encode()


def _row_bytes(row: NDArray[Any]) -> bytes:
    """Give equal rows equal bytes: one missing value, one zero."""
    plain = row.astype(np.float32) + np.float32(0)
    plain[np.isnan(plain)] = np.nan
    return plain.tobytes()
