"""The log that uplift is learned from: who got which offer with what probability, and what followed."""

import json
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

from features import complete_journey
from features.errors import ContractError
from features.synthetic import OfferTerms, overlay_experiment
from features.warehouse import Warehouse
from training import splits
from training.manifest import OfferSpec
from training.preparation import Prepared


def simulate_log(prepared: Prepared, terms: list[OfferTerms], rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """Overlay the simulated experiment on waves whose horizons do not overlap; the later ones are for judging."""
    waves = {
        name: splits.disjoint(dates, programme=prepared.programme)
        for name, dates in (("train", prepared.split.train), ("test", prepared.split.test))
    }
    rows = pd.concat(
        [prepared.part(tuple(dates)).assign(part=name) for name, dates in waves.items()], ignore_index=True
    )
    log = overlay_experiment(rows, offers=terms, rng=rng)
    return {name: log[log["part"] == name].reset_index(drop=True) for name in waves}


def offer_specs(warehouse: Warehouse) -> tuple[OfferSpec, ...]:
    """Read the offers, ordered by id; money as plain integers, times in ISO 8601."""
    rows: list[dict[str, Any]] = json.loads(
        warehouse.frame("offers").sort_values("offer_id").to_json(orient="records", date_format="iso", date_unit="s")
    )
    names = [field.name for field in fields(OfferSpec)]
    return tuple(OfferSpec(**{name: row[name] for name in names}) for row in rows)


def offer_terms(warehouse: Warehouse, offers: tuple[OfferSpec, ...]) -> list[OfferTerms]:
    """Say how members respond to each offer in the simulated experiment."""
    if warehouse.source != complete_journey.SOURCE:
        raise ContractError(
            f"uplift is learned from contacts with a known propensity, and {warehouse.source} brings none; "
            f"`holdfast demo` shows the loop on {complete_journey.SOURCE} with a simulated experiment"
        )
    response = complete_journey.RESPONSES
    return [OfferTerms(o.offer_id, o.contact_cost, o.redemption_cost, response[o.offer_id]) for o in offers]
