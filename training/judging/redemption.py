"""How well the release foretells who redeems an offer that is sent, beside the offer's mean rate."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.judging.evidence import estimate
from training.judging.grounds import Trained
from training.logged.log import ExperimentLog
from training.metrics import Estimate, log_losses

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RedemptionRow:
    """Hold what came of the later contacts with one offer, `log_loss_lead` paired by contact."""

    rate: Estimate  # of those that were redeemed
    expected: Estimate  # the mean chance that was foretold
    log_loss: Estimate
    log_loss_lead: Estimate  # less that of the earlier contacts' rate, for all the same: below 0 is better


def redemption_table(trained: Trained) -> dict[str, RedemptionRow]:
    """Judge the chance of redemption offer by offer, on the later contacts that sent it; {} if none is recorded."""
    log = trained.log
    if not log.offers or not log.train["redeemed"].any():
        return {}
    by_offer = zip(log.offers, trained.log_scores.redemption.T, strict=True)
    return {offer.offer_id: _row(log, offer.offer_id, chance) for offer, chance in by_offer}


def _row(log: ExperimentLog, offer_id: str, chance: Floats) -> RedemptionRow:
    learnt, judged = (part[part["treatment"] == offer_id] for part in (log.train, log.test))
    redeemed, members = judged["redeemed"].to_numpy(dtype=np.float64), judged["member_id"].to_numpy()
    foretold = chance[log.test["treatment"].to_numpy() == offer_id]
    loss = log_losses(redeemed, foretold)
    lead = loss - log_losses(redeemed, np.full(len(redeemed), learnt["redeemed"].mean()))
    return RedemptionRow(*(estimate(terms, members) for terms in (redeemed, foretold, loss, lead)))
