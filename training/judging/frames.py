"""A notebook's frames of decisions and policies, checked, as the arrays the estimators take."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from features.errors import ContractError
from features.schema import CONTROL
from training.judging.estimators import Floats, Log

NEEDED: Final = ("treatment", "propensity", "outcome")


def read_log(frame: pd.DataFrame, contact_cost: Mapping[str, float]) -> tuple[tuple[str, ...], Log]:
    """Read a frame of a row per decision as the names of its offers, in order, and its log.

    Raises
    ------
    ContractError
        For columns that are not there, decisions that come twice, and rows from which nothing can be estimated.
    """
    missing = [name for name in NEEDED if name not in frame]
    if missing:
        raise ContractError(f"the log lacks {missing}; wanted {list(NEEDED)}, and member_id where members come again")
    if "decision_id" in frame and (again := frame["decision_id"].duplicated()).any():
        raise ContractError(
            f"{again.sum()} rows of decisions that are there already came, one row for each was wanted; "
            "`log.drop_duplicates('decision_id')` once it is clear why"
        )
    treatment = frame["treatment"].astype(str)
    offers = tuple(sorted((set(treatment) | set(contact_cost)) - {CONTROL}))
    if not offers:
        raise ContractError(f"only {CONTROL!r} was logged; wanted at least one offer beside it")
    places = {CONTROL: 0} | {offer: place for place, offer in enumerate(offers, 1)}
    log = Log(
        treatment=np.asarray(treatment.map(places), dtype=np.intp),
        propensity=frame["propensity"].to_numpy(dtype=np.float64),
        outcome=frame["outcome"].to_numpy(dtype=np.float64),
        contact_cost=np.array([0.0, *(contact_cost.get(offer, 0.0) for offer in offers)]),
        member_ids=frame["member_id"].to_numpy() if "member_id" in frame else np.arange(len(frame)),
    )
    if not log.clusters.any():
        raise ContractError(
            f"{len(log)} decisions on one member came, at least two members were wanted for an interval"
        )
    return offers, log


def read_policy(policy: pd.DataFrame | ArrayLike, treatments: Sequence[str], n: int) -> Floats:
    """Read a policy, a treatment for each row or a frame of probabilities, as `(n, 1 + n_offers)`, control first."""
    if not isinstance(policy, pd.DataFrame):
        chosen = np.asarray(policy).astype(str)
        policy = pd.DataFrame({name: (chosen == name).astype(np.float64) for name in dict.fromkeys(chosen)})
    strangers = [name for name in policy if name not in treatments]
    if strangers or len(policy) != n:
        raise ContractError(
            f"a policy of {len(policy)} rows and treatments {list(policy)} came; wanted {n} rows and {list(treatments)}"
        )
    matrix = policy.reindex(columns=list(treatments), fill_value=0.0).to_numpy(dtype=np.float64)
    if not (matrix >= 0).all() or not np.allclose(matrix.sum(axis=1), 1):
        raise ContractError("probabilities that are negative, missing or do not add up to 1 came; each row's have to")
    return matrix
