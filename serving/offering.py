"""The offering: the release that serves with the catalogue that stands on the disk, followed while the service runs."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from features.decisions import Log
from features.errors import ContractError, HoldfastError, NotFoundError
from features.home import Home
from features.log.rows import microseconds
from features.log.standing import OtherContacts, Standing, nobody_contacted, standing_of
from features.offers import catalogue_of, check_catalogue, read_catalogue
from features.programme import read_programme
from features.warehouse import Warehouse, open_warehouse
from serving.decide import Decider, Purse, released_offers
from training.artifacts import Release
from training.budget import campaign_price

logger: Final = logging.getLogger("holdfast")


@dataclass(frozen=True)
class Found:
    """Hold what one release and the files of a moment come to."""

    files: tuple[int, ...]  # when they were written
    decider: Decider
    others: OtherContacts


class Offering:
    """Know what may be sent to whom now; one thread at a time may ask, another may prepare the next release.

    Raises
    ------
    ContractError
        If the settings or the offers are wrong to begin with.
    """

    def __init__(self, home: Home, release: Release, log: Log, *, now: datetime) -> None:
        self._home, self._log = home, log
        self._changing = threading.Lock()
        self._next: Found | None = None
        self._found = self.read(release, now)

    @property
    def decider(self) -> Decider:
        """What decides, until somebody says `follow`."""
        return self._found.decider

    @property
    def upcoming(self) -> Decider:
        """What decides from the next `follow` on; any thread may ask."""
        found = self._next or self._found
        return found.decider

    def succeed(self, found: Found) -> None:
        """Let what was read for another release decide from the next `follow` on; any thread may say so."""
        with self._changing:
            self._next = found

    @property
    def home(self) -> Home:
        """Where everything is kept."""
        return self._home

    def follow(self, now: datetime) -> None:
        """Take up what changed on the disk; what is wrong is refused with a line in the log, and the old one stays."""
        with self._changing:
            self._found, self._next = self._next or self._found, None
        if (files := self._times()) == self._found.files:
            return
        try:
            self._found = self.read(self.decider.release, now)
            logger.info("the offers are those of catalogue %s", self.decider.catalogue.catalogue_id)
        except HoldfastError as error:
            logger.warning("the new offers or settings are refused, the old ones stay: %s", error)
            self._found = replace(self._found, files=files)
        except FileNotFoundError:  # an ingest has put other files in their place meanwhile: look again
            return

    def read(self, release: Release, now: datetime) -> Found:
        """Read what a release would decide by now; any thread may.

        Raises
        ------
        ContractError
            If the settings or the offers are wrong.
        """
        files = self._times()
        programme, warehouse = read_programme(self._home.settings), self._warehouse()
        if warehouse is None:
            catalogue = catalogue_of(released_offers(release), programme)
        else:
            catalogue = read_catalogue(warehouse, programme)
        if faults := check_catalogue(catalogue.offers, programme):
            raise ContractError(f"{'; '.join(faults)}; mend the table of offers or holdfast.toml")
        decider = Decider(release, catalogue).prepared()
        others = OtherContacts(warehouse, now=now, longest_days=decider.constraints.longest_days)
        self._log.keep_catalogue(catalogue.catalogue_id, catalogue.to_json(), now=now).result()
        return Found(files, decider, others)

    def standing(self, member_ids: Sequence[str], now: datetime) -> Standing:
        """Say when members were contacted last, by this service or another system."""
        decider = self.decider
        offer_ids, days = decider.release.offer_ids, decider.constraints.longest_days
        if not days:
            return nobody_contacted(len(member_ids), len(offer_ids))
        since = now - timedelta(days=days)
        contacts = self._log.contacts(member_ids, since=since)
        contacts += self._found.others.of(member_ids, since=microseconds(since))
        period_days = decider.catalogue.policy.period_days
        return standing_of(contacts, member_ids, offer_ids, now=now, period_days=period_days)

    def purse(self, campaign_id: str | None, now: datetime) -> Purse:
        """Say what is left of a campaign's budget and of every offer's stock, and at what price."""
        decider = self.decider
        offer_ids = decider.release.offer_ids
        stock = decider.stock - self._log.contacted(offer_ids) if decider.constraints.stock else decider.stock
        campaign, apart = decider.campaign(campaign_id), self._log.apart()
        if campaign_id is None or campaign is None:
            return Purse(np.inf, stock, 0.0, np.zeros(len(offer_ids)), apart)
        base, of_stock = self._log.price(campaign_id)
        stock_prices = np.array([of_stock.get(offer_id, 0.0) for offer_id in offer_ids])
        if campaign.budget is None:
            return Purse(np.inf, stock, 0.0, stock_prices, apart)
        spent = self._log.spent(campaign_id)
        price = campaign_price(
            base, spent=spent, budget=campaign.budget, starts=campaign.starts, ends=campaign.ends, now=now
        )
        return Purse(float(campaign.budget - spent), stock, price, stock_prices, apart)

    def _warehouse(self) -> Warehouse | None:
        try:
            return open_warehouse(self._home)
        except NotFoundError:
            return None

    def _times(self) -> tuple[int, ...]:
        places = (self._home.warehouse / "manifest.json", self._home.settings)
        return tuple(place.stat().st_mtime_ns if place.exists() else 0 for place in places)
