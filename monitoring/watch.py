"""Watch the features that decisions rest on: the last weeks against what the champion learned from."""

from datetime import datetime
from pathlib import Path

import numpy as np

from features import transforms  # noqa: F401  (registers the features)
from features.catalogue.entries import CATALOGUE
from features.errors import NotFoundError
from features.home import Home
from features.programme import Programme, read_programme
from features.sheet import Progress
from features.snapshots import built, on_grid, read_snapshots
from monitoring.drift import monitor_drift
from monitoring.reference import Reference, read_reference, summarise, write_reference
from monitoring.verdict import Verdict
from training.releases.ledger import champion_id
from training.releases.manifest import Manifest, read_manifest


def watch_drift(home: Home, *, weeks: int, progress: Progress) -> tuple[Verdict, Path]:
    """Compare the last `weeks` snapshots with the champion's training window; give the verdict and the report's path.

    Raises
    ------
    NotFoundError
        If nothing serves yet, or snapshots are missing.
    """
    serving = champion_id(home)
    if serving is None:
        raise NotFoundError("nothing serves yet, so there is nothing to compare with; `holdfast promote` first")
    manifest = read_manifest(home.releases / serving)
    programme = Programme.model_validate(manifest.programme)
    current = current_window(home, weeks=weeks)
    reference = reference_of(home, manifest, progress=progress)
    progress("comparing windows", 0, 1)
    report = home.reports / f"drift-{current[-1]:%Y-%m-%d}.html"
    rng = np.random.default_rng(programme.seed)
    verdict = monitor_drift(reference, read_snapshots(home, current), rng=rng, report=report, programme=programme)
    return verdict, report


def reference_of(home: Home, manifest: Manifest, *, progress: Progress) -> Reference:
    """Read the summary of what a release learned from; where there is none yet, make it from its snapshots.

    Raises
    ------
    NotFoundError
        If it has to be made, and the snapshots are gone.
    """
    folder = home.reference / manifest.release_id
    if folder.exists():
        return read_reference(folder)
    progress("summarising the reference", 0, 1)
    programme = Programme.model_validate(manifest.programme)
    reference = summarise(
        read_snapshots(home, [datetime.fromisoformat(as_of) for as_of in manifest.reference_as_of]),
        money={name for name, feature in CATALOGUE.items() if feature.unit == "money"},
        ageing={name for name, feature in CATALOGUE.items() if feature.ageing(programme)},
        rng=np.random.default_rng(programme.seed),
    )
    write_reference(folder, reference)
    return reference


def current_window(home: Home, *, weeks: int) -> list[datetime]:
    """Give the last `weeks` snapshots of the grid.

    The one that is served may follow the last of them by a day: as a week of its own it would count members twice.

    Raises
    ------
    NotFoundError
        If there is none.
    """
    programme = read_programme(home.settings)
    dates = [as_of for as_of in built(home) if on_grid(as_of, programme)][-weeks:]
    if not dates:
        raise NotFoundError(
            f"{home.features} holds no snapshot of the grid that {home.settings.name} lays, one every "
            f"{programme.snapshot_days} days; `holdfast features build` computes them"
        )
    return dates
