"""What a batch is, settled before anything is decided: who, by which release and catalogue, under which budget."""

from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.errors import ContractError, NotFoundError
from features.files import fingerprint
from features.home import Home
from features.log.standing import Audience as Contacts
from features.log.standing import audience_contacts
from features.offers import Catalogue, check_catalogue, read_catalogue
from features.population import Population, facts, latest_population, matrix
from features.privacy.consent import opted_out
from features.programme import Objective, read_programme
from features.warehouse import Warehouse, open_warehouse
from serving.batch.audience import Audience, find_audience
from serving.decide import Decider, Members
from training.artifacts import open_release
from training.constraints import CONSENT, OPTED_OUT
from training.releases.ledger import champion_id, keep_up

WORDS: Final = ("segment", "lifecycle_stage")  # of the snapshot, that a decision carries


@dataclass(frozen=True)
class Request:
    """Hold what was asked for; the budget in minor units."""

    audience: str | None = None
    campaign_id: str | None = None
    budget: int | None = None
    objective: Objective | None = None
    seed: int = 0


@dataclass(frozen=True)
class Plan:
    """Hold what follows from a request today."""

    request: Request
    decider: Decider
    population: Population
    audience: Audience
    counts: tuple[int, ...]  # how many of each part of the snapshot are decided on
    opted_out: pa.Array  # who did by their own word before the batch began, or went on
    home: Home
    warehouse: Warehouse | None = None
    spark: str | None = None  # the master whose workers weigh and decide; None: this process does

    @cached_property
    def batch_id(self) -> str:
        """Change with everything that decisions follow from, so that nothing is decided twice."""
        asked = vars(self.request) | {"audience": self.audience.identity}
        by = (self.decider.release.release_id, self.decider.catalogue.catalogue_id)
        return fingerprint(asked, *by, self.population.path)[:12]

    @property
    def parts(self) -> tuple[int, ...]:
        """The parts of the snapshot that hold somebody of the audience."""
        return tuple(part for part, members in enumerate(self.counts) if members)

    def first(self, part: int) -> int:
        """Count the audience's members before a part."""
        return sum(self.counts[:part])

    def rows(self, part: int) -> "Rows":
        """Read the audience's members of one part."""
        names, chosen = self.decider.release.feature_names, self.audience.chosen(self.population, part)
        rows = self.population.read(["member_id", *WORDS, *self.decider.facts, *names], part)
        rows = rows if chosen.all() else rows.filter(pa.array(chosen))
        known = facts(rows, self.decider.facts)
        known[CONSENT][pc.is_in(rows["member_id"], value_set=self.opted_out).to_numpy()] = OPTED_OUT
        return Rows(self.first(part), rows.select(["member_id", *WORDS]), matrix(rows, names), known)

    def contacts(self, now: datetime) -> Contacts:
        """Read who of the audience was contacted before, as far back as it matters."""
        days = self.decider.constraints.longest_days
        members = [self.members(part) for part in self.parts] if days else []
        return audience_contacts(
            self.home.decisions,
            self.warehouse,
            pa.chunked_array(members, pa.string()),
            self.decider.release.offer_ids,
            now=now,
            longest_days=days,
        )

    def members(self, part: int) -> pa.ChunkedArray:
        """Read the ids of the audience's members of one part."""
        chosen = pa.array(self.audience.chosen(self.population, part))
        return self.population.read(["member_id"], part)["member_id"].filter(chosen)


@dataclass(frozen=True)
class Rows:
    """Hold what the snapshot says of members."""

    first: int  # the number of the first one in the audience
    named: pa.Table  # `member_id` and `WORDS`
    X: NDArray[np.float32]
    facts: dict[str, NDArray[np.generic]]

    def rows(self, part: slice) -> "Rows":
        """Give some of the members."""
        named = self.named.slice(part.start, part.stop - part.start)
        return Rows(self.first + part.start, named, self.X[part], {name: it[part] for name, it in self.facts.items()})

    def members(self, decider: Decider, contacts: Contacts, now: datetime) -> Members:
        """Put together what a decision rests on; of who opted out nothing is made."""
        end = self.first + len(self.X)
        standing = contacts.standing(self.first, end, now=now, period_days=decider.catalogue.policy.period_days)
        fallback = np.zeros(len(self.X), dtype=np.int8)
        members = Members(self.X, fallback, *decider.drawn(self.named["member_id"].to_pylist()), self.facts, standing)
        members.X[members.opted_out] = np.nan
        return members


def plan_batch(home: Home, request: Request) -> Plan:
    """Settle what a request means.

    Raises
    ------
    ContractError, NotFoundError
        For a budget that buys nothing, a campaign that is not in `holdfast.toml` where there are any, an audience that
        is nobody, or where nothing was promoted yet.
    """
    if request.budget is not None and request.budget <= 0:
        raise ContractError(
            f"--budget {request.budget} came, an amount above 0 was wanted; without it money is no limit"
        )
    keep_up(home)
    if (champion := champion_id(home)) is None:
        raise NotFoundError("no release is champion yet; `holdfast train`, then `holdfast promote`")
    warehouse, programme = open_warehouse(home), read_programme(home.settings)
    catalogue = _catalogue(read_catalogue(warehouse, programme), request)
    if faults := check_catalogue(catalogue.offers, programme):
        raise ContractError(f"{'; '.join(faults)}; mend the table of offers or holdfast.toml")
    population = latest_population(home)
    audience = find_audience(population, request.audience, programme)
    counts = tuple(int(audience.chosen(population, part).sum()) for part in range(len(population.sizes)))
    if not any(counts):
        raise ContractError(f"the audience, {audience.asked}, is nobody of {sum(population.sizes):,} members")
    release = open_release(home.releases, champion)
    if not release.offer_ids:
        raise ContractError(
            f"release {champion} knows no offer, so there is nothing to decide; bring offers, and train"
        )
    silent = pa.array(sorted(opted_out(home)), pa.string())
    decider = Decider(release, catalogue)
    engine = programme.engine
    spark = engine.spark if engine.features == "spark" else None
    return Plan(request, decider, population, audience, counts, silent, home, warehouse, spark)


def _catalogue(catalogue: Catalogue, request: Request) -> Catalogue:
    """Check the campaign, and let the request's objective go before the campaign's and the policy's."""
    if catalogue.campaigns and request.campaign_id not in {None, *catalogue.campaigns}:
        raise ContractError(
            f"--campaign {request.campaign_id} came, holdfast.toml knows {', '.join(sorted(catalogue.campaigns))}; "
            f"type one of them, or add [campaigns.{request.campaign_id}]"
        )
    if request.objective is None:
        return catalogue
    objective = {"objective": request.objective}
    campaigns = {name: campaign.model_copy(update=objective) for name, campaign in catalogue.campaigns.items()}
    return replace(catalogue, policy=catalogue.policy.model_copy(update=objective), campaigns=campaigns)
