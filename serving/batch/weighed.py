"""A part of a batch whose offers are weighed: what each would bring and cost, before anything is decided."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from features.log.standing import Audience as Contacts
from serving.batch.plan import Plan, Rows
from serving.batch.prices import Claims, claims_of
from serving.decide import Members, Occasion, Purse, Worth


@dataclass(frozen=True)
class Weighed:
    """Hold a part whose offers were weighed."""

    number: int
    rows: Rows
    members: Members
    worth: Worth

    def claims(self, plan: Plan, now: datetime, left: Purse) -> Claims:
        """Say what follows for prices, as long as so much is left."""
        occasion = Occasion(now, plan.request.campaign_id, None, left)
        refusals = plan.decider.refusals(self.members, self.worth, occasion)
        return claims_of(self.members, self.worth, refusals == 0)

    def uniform(self, batch_id: str) -> NDArray[np.float64]:
        """Draw the chance of the part's own, `(n_members,)`."""
        return np.random.default_rng([int(batch_id, 16), self.number]).random(len(self.rows.X))


def weigh(plan: Plan, part: int, contacts: Contacts, *, now: datetime, worth: Worth | None = None) -> Weighed:
    """Weigh what each offer would bring and cost the audience's members of a part.

    Parameters
    ----------
    worth : as it was weighed before
    """
    rows = plan.rows(part)
    members = rows.members(plan.decider, contacts, now)
    return Weighed(part, rows, members, worth or plan.decider.weigh(members, plan.request.campaign_id))
