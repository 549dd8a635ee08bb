"""What the workers of Spark are told of a batch, in a folder that every machine sees, and what they keep there."""

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.files import write_whole
from features.home import Home
from features.log.contacts import contacts_between, write_contacts
from features.log.standing import CONTACT, placed
from features.log.standing import Audience as Contacts
from features.offers import catalogue_from_json
from features.population import Population
from serving.batch.audience import NOTHING, Audience
from serving.batch.plan import Plan, Request
from serving.batch.prices import Claims
from serving.batch.weighed import Weighed, weigh
from serving.decide import Decider, Purse, Worth
from training.artifacts import open_release

Columns = TypeVar("Columns", Claims, Worth)


@dataclass(frozen=True)
class Errand:
    """Hold a batch that is to be weighed and decided at a moment, part by part, wherever."""

    folder: Path
    plan: Plan
    now: datetime

    def weigh(self, part: int, left: Purse) -> None:
        """Weigh a part, and keep what its members' offers are worth and what follows for prices."""
        weighed = self.weighed(part)
        self._keep(self._worth(part), weighed.worth)
        self._keep(self._claims(part), weighed.claims(self.plan, self.now, left))

    def weighed(self, part: int) -> Weighed:
        """Give a part weighed, by what was kept of that where it was weighed before."""
        path = self._worth(part)
        kept = _kept(path, Worth) if path.exists() else None
        return weigh(self.plan, part, self._contacts(part), now=self.now, worth=kept)

    def claims(self, part: int) -> Claims:
        """Give what was kept of a part for prices."""
        return _kept(self._claims(part), Claims)

    def _contacts(self, part: int) -> Contacts:
        plan, path = self.plan, self.folder / "contacts.parquet"
        members, offers = plan.members(part), plan.decider.release.offer_ids
        if not path.exists():
            return placed(CONTACT.empty_table(), members, offers)
        ends = pc.min_max(members).as_py()
        found = placed(contacts_between(path, ends["min"], ends["max"]), members, offers)
        return replace(found, row=found.row + plan.first(part))

    def _worth(self, part: int) -> Path:
        return self.folder / f"worth-{part:05d}.npz"

    def _claims(self, part: int) -> Path:
        return self.folder / f"claims-{part:05d}.npz"

    def _keep(self, path: Path, columns: Claims | Worth) -> None:
        write_whole(path, partial(_save, columns=vars(columns)))


def lay_out(folder: Path, plan: Plan, now: datetime) -> Errand:
    """Write what workers need to know."""
    by, decider = plan.audience.by, plan.decider
    told = {
        "root": str(plan.home.root.resolve()),
        "request": vars(plan.request),
        "release_id": decider.release.release_id,
        "catalogue": decider.catalogue.to_json(),
        "as_of": plan.population.as_of.isoformat(),
        "audience": asdict(replace(plan.audience, by="", refused=None)) | {"by": by if isinstance(by, str) else None},
        "counts": plan.counts,
        "now": now.isoformat(),
    }
    if not isinstance(by, str):
        pq.write_table(pa.table({"member_id": by}), folder / "audience.parquet")
    pq.write_table(pa.table({"member_id": plan.opted_out}), folder / "opted_out.parquet")
    if days := decider.constraints.longest_days:
        write_contacts(folder / "contacts.parquet", plan.home.decisions, plan.warehouse, now=now, longest_days=days)
    (folder / "errand.json").write_text(json.dumps(told), encoding="utf-8")
    return Errand(folder, plan, now)


def open_errand(folder: Path) -> Errand:
    """Read what was laid out: the same release, verified, under the same catalogue."""
    told: dict[str, Any] = json.loads((folder / "errand.json").read_bytes())
    home, as_of = Home(Path(told["root"])), datetime.fromisoformat(told["as_of"])
    audience = told["audience"] | {"refused": NOTHING}
    audience["by"] = _ids(folder / "audience.parquet") if audience["by"] is None else audience["by"]
    plan = Plan(
        Request(**told["request"]),
        Decider(open_release(home.releases, told["release_id"]), catalogue_from_json(told["catalogue"])),
        Population(home.snapshot(as_of), as_of),
        Audience(**audience),
        tuple(told["counts"]),
        _ids(folder / "opted_out.parquet"),
        home,
    )
    return Errand(folder, plan, datetime.fromisoformat(told["now"]))


def _ids(path: Path) -> pa.Array:
    return pq.read_table(path)["member_id"].combine_chunks()


def _save(path: Path, *, columns: dict[str, Any]) -> None:
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **columns)


def _kept(path: Path, kind: type[Columns]) -> Columns:
    with np.load(path, allow_pickle=False) as columns:
        return kind(**columns)
