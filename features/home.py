"""The one folder the program writes to, `HOLDFAST_HOME`, and what stands where in it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

STEM: Final = "%Y-%m-%dT%H%MZ"  # a snapshot's file is named after its as_of


@dataclass(frozen=True)
class Home:
    """Name every place below the root; make none of them."""

    root: Path

    @property
    def settings(self) -> Path:
        """The programme's settings, `holdfast.toml`."""
        return self.root / "holdfast.toml"

    @property
    def warehouse(self) -> Path:
        """One Parquet file per table, as ingested and checked."""
        return self.root / "warehouse"

    @property
    def quarantine(self) -> Path:
        """Rows that were refused, with their reason."""
        return self.root / "quarantine"

    @property
    def features(self) -> Path:
        """The weekly snapshots, one Parquet file per `as_of`."""
        return self.root / "features"

    def snapshot(self, as_of: datetime) -> Path:
        """Say where the snapshot of one `as_of` is."""
        return self.features / f"{as_of.astimezone(UTC):{STEM}}.parquet"

    @property
    def history(self) -> Path:
        """The snapshots sorted by member and time, for the point-in-time join."""
        return self.root / "history"

    @property
    def registry(self) -> Path:
        """Feast's registry."""
        return self.root / "registry.pb"

    @property
    def online(self) -> Path:
        """Feast's online store."""
        return self.root / "online.db"

    @property
    def keys(self) -> Path:
        """The hashes of the API keys."""
        return self.root / "keys.json"

    @property
    def journal(self) -> Path:
        """Purchases and events that came after the last ingest."""
        return self.root / "live.db"

    @property
    def live(self) -> Path:
        """How vectors are computed from them: a query, and what it compares members with."""
        return self.root / "live"

    @property
    def triggers(self) -> Path:
        """Which level of which trigger acted last, and when."""
        return self.root / "triggers.json"

    @property
    def cure(self) -> Path:
        """When a verdict last started a training, and what came of it."""
        return self.root / "cure.json"

    @property
    def tracking(self) -> Path:
        """MLflow's runs and registered models."""
        return self.root / "mlflow.db"

    @property
    def studies(self) -> Path:
        """Optuna's studies."""
        return self.root / "studies.log"

    @property
    def steps(self) -> Path:
        """What each step of the last training came to."""
        return self.root / "steps"

    @property
    def artifacts(self) -> Path:
        """MLflow's files."""
        return self.root / "mlartifacts"

    @property
    def releases(self) -> Path:
        """One folder per release, the ledger of promotions, and the name of the champion."""
        return self.root / "releases"

    @property
    def decisions(self) -> Path:
        """The decision log."""
        return self.root / "decisions.db"

    @property
    def looking(self) -> Path:
        """What the service's workers lock while they look members up."""
        return self.root / "looking.lock"

    @property
    def shadow(self) -> Path:
        """What a shadow release would have decided."""
        return self.root / "shadow.db"

    @property
    def privacy_key(self) -> Path:
        """What tombstones are made with: without it nobody knows again who was erased."""
        return self.root / "privacy.key"

    @property
    def batches(self) -> Path:
        """The decisions on whole audiences: a folder for each batch, a file for each part of it."""
        return self.root / "batches"

    @property
    def reference(self) -> Path:
        """What each release learned from, summarised for monitoring: a folder for each."""
        return self.root / "reference"

    @property
    def alerts(self) -> Path:
        """Alerts, and the messages about them that are not delivered yet."""
        return self.root / "alerts.db"

    @property
    def reports(self) -> Path:
        """Pages for people."""
        return self.root / "reports"
