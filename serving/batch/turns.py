"""A batch's turns: beside whoever else decides, a few members at a time are decided on what there is then.

What is decided is reserved in the log at once, where it counts for everybody, and stored when its part is whole. Where
somebody was faster, the same members are decided again, with the same draw, and fewer at a time.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from features.decisions import Batch, Contact, Log, Part, Seen, Spending
from features.errors import StaleError
from features.log.rows import microseconds
from features.log.standing import OtherContacts, Standing, standing_of
from serving.batch.part import Decided, contacts_of
from serving.batch.plan import Plan, Rows
from serving.batch.weighed import Weighed
from serving.decide import Choice, Members, Occasion, Purse, Worth, joined
from serving.grounds import grounds_of

MOST = 4_096  # members at a time, where anything limits what they get


class Turns:
    """Decide the parts of a batch in order, each member under what everybody before left.

    Parameters
    ----------
    moment : of the log, before the contacts of the audience were read
    spent : by the batch so far, minor units
    prices : of money and stock, which stay
    """

    def __init__(self, plan: Plan, log: Log, batch: Batch, *, moment: int, spent: int, prices: Purse) -> None:
        self._plan, self._log, self._batch, self._prices = plan, log, batch, prices
        self._first = self._alone_until = moment
        self._spent = spent
        self._others: OtherContacts | None = None
        self.capped = plan.decider.constraints.longest_days > 0
        self.limited = self.capped or not self.left().full  # whether anything limits what members get

    def decide(self, weighed: Weighed, uniform: NDArray[np.float64]) -> tuple[Decided, int]:
        """Decide a part, and say in how many reservations it stands in the log."""
        number, rows, members, worth = vars(weighed).values()
        most = MOST if self.limited else len(uniform)
        done, choices, size = 0, list[Choice](), most
        while done < len(uniform):
            some = slice(done, done + size)
            choice = self._reserve(
                rows.rows(some), members.rows(some), worth.rows(some), uniform[some], at=(number, done)
            )
            if choice is None:
                size = max(1, size // 2)
                continue
            choices.append(choice)
            done += len(choice.chosen)
            size = min(2 * size, most)
        return Decided(rows, members, worth, joined(choices), uniform), len(choices)

    def _reserve(
        self,
        rows: Rows,
        members: Members,
        worth: Worth,
        uniform: NDArray[np.float64],
        *,
        at: tuple[int, int],
    ) -> Choice | None:
        """Decide some members and reserve what they get; nothing if somebody was faster."""
        decider, ids = self._plan.decider, rows.named["member_id"].to_pylist() if self.capped else []
        moment = self._log.moment() if self.capped else None
        if moment is not None:
            self._refresh(members.standing, ids, moment)
        occasion = Occasion(self._batch.decided_at, self._batch.campaign_id, None, self.left())
        choice = decider.choose(members, worth, occasion=occasion, uniform=uniform)
        decided = Decided(rows, members, worth, choice, uniform)
        seen = seen_by(self._plan, occasion, choice, worth, member_ids=ids, moment=moment)
        contacts = [*contacts_of(decided, decider, self._batch)]
        spending = decided.spending(decider, self._batch.campaign_id)
        try:
            after = self._log.reserve(self._batch.batch_id, *at, contacts, spending, seen=seen).result()
        except StaleError:
            return None
        if self._alone_until == moment:
            self._alone_until = after
        self._spent += int(choice.spent.sum())
        return choice

    def _refresh(self, standing: Standing, member_ids: list[str], moment: int) -> None:
        """Bring in what others sent these members since the audience's contacts were read."""
        if moment == self._alone_until:
            return
        touched = self._log.touched(member_ids, since=self._first)
        if not touched:
            return
        decider, now = self._plan.decider, self._batch.decided_at
        policy, days = decider.catalogue.policy, decider.constraints.longest_days
        since = now - timedelta(days=days)
        if self._others is None:
            self._others = OtherContacts(self._plan.warehouse, now=now, longest_days=days)
        contacts = self._log.contacts(touched, since=since) + self._others.of(touched, since=microseconds(since))
        fresh = standing_of(contacts, touched, decider.release.offer_ids, now=now, period_days=policy.period_days)
        place = {member_id: row for row, member_id in enumerate(member_ids)}
        at = [place[member_id] for member_id in touched]
        for name, values in vars(fresh).items():
            getattr(standing, name)[at] = values

    def accept(self, number: int, contacts: list[Contact], spending: Spending, seen: Seen | None) -> bool:
        """Reserve what a part gets that was decided elsewhere on what there was at first; False if that has changed.

        Parameters
        ----------
        seen : what it rests on; of contacts, those that came since the audience's were read are looked for here
        """
        if self.capped:
            seen = replace(seen or Seen(), moment=self._first)
        try:
            self._log.reserve(self._batch.batch_id, number, 0, contacts, spending, seen=seen).result()
        except StaleError:
            return False
        self._spent += sum(spent for _, spent in spending.values())
        return True

    def name(self, part: Part, reservations: int) -> None:
        """Let the log name a part that is written."""
        self._log.append_part(part, reservations).result()

    def left(self) -> Purse:
        """Say what is left now, at the batch's prices."""
        plan, log, campaign_id = self._plan, self._log, self._batch.campaign_id
        campaign_spent = log.spent(campaign_id) if campaign_id is not None else 0
        left = purse_of(plan, self._spent, log.contacted(plan.decider.release.offer_ids), campaign_spent)
        return replace(left, price=self._prices.price, stock_prices=self._prices.stock_prices)


def seen_by(
    plan: Plan, occasion: Occasion, choice: Choice, worth: Worth, *, member_ids: Sequence[str], moment: int | None
) -> Seen | None:
    """Say what decisions of a batch rest on; see `serving.grounds.grounds_of`."""
    seen = grounds_of(plan.decider, occasion, choice, worth, member_ids=member_ids, moment=moment)
    if seen and plan.request.budget is not None:  # the smaller one binds: more left of the other is no matter
        return replace(seen, spent={name: (None, most) for name, (_, most) in seen.spent.items()})
    return seen


def purse_of(plan: Plan, spent: float, contacted: Sequence[int], campaign_spent: float) -> Purse:
    """Say what is left of budget and stock: of the request's budget, and of the campaign's."""
    decider = plan.decider
    campaign = decider.campaign(plan.request.campaign_id)
    of_campaign = campaign.budget if campaign else None
    limits = [(plan.request.budget, spent), (of_campaign, campaign_spent)]
    budget = min([float(limit - used) for limit, used in limits if limit is not None], default=np.inf)
    stock = decider.stock - np.array(contacted, dtype=np.float64)
    return Purse(budget, stock, 0.0, np.zeros(len(stock)))
