"""What the log holds of a decision, as the caller sees it; the models of `serving.contract` describe each shape."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final

import msgspec

from serving.champion import Refused
from serving.decide import Decider
from serving.shadow.keeper import Shadow

Row = Mapping[str, Any]

_ENCODER: Final = msgspec.json.Encoder()  # a sixth of the time that the standard library takes


def dump(value: Mapping[str, Any]) -> bytes:
    """Write an answer as JSON."""
    return _ENCODER.encode(value)


def decisions_answer(rows: Sequence[Row], decider: Decider) -> bytes:
    """Write decisions, given as rows of the log, as a `DecisionsAnswer`."""
    return dump({**_source(decider), "decisions": [_decision(row) for row in rows]})


def scores_answer(rows: Sequence[Row], eligible: Sequence[Sequence[bool]], decider: Decider, *, now: datetime) -> bytes:
    """Write what is known of members, and which offers are possible for each, as a `ScoresAnswer`."""
    scores = [_score(row, may, decider, now=now) for row, may in zip(rows, eligible, strict=True)]
    return dump({**_source(decider), "scores": scores})


def record_answer(row: Row, language: str, explanation: Sequence[str]) -> bytes:
    """Write one row of the log as a `DecisionRecord`."""
    return dump(
        {
            **_decision(row),
            "campaign_id": row["campaign_id"],
            "decided_at": row["decided_at"].isoformat(),
            "draw": row["draw"],
            "probabilities": dict(zip(row["treatments"], row["probabilities"], strict=True)),
            "eligible": _by_offer(row, "eligible"),
            "net_value": _by_offer(row, "net_value"),
            "price": row["price"],
            "stock_prices": _by_offer(row, "stock_prices"),
            "asked": row["asked"],
            "facts": row["facts"],
            "standing": row["standing"],
            "catalogue_id": row["catalogue_id"],
            "context": row["context"],
            "language": language,
            "explanation": explanation,
        }
    )


def release_answer(decider: Decider, refused: Refused | None, shadow: Shadow | None, *, now: datetime) -> bytes:
    """Write what is being served as a `ReleaseAnswer`."""
    manifest, experiment = decider.release.manifest, decider.programme.experiment
    return dump(
        {
            **_source(decider),
            "release_id": manifest.release_id,
            "refused": None if refused is None else asdict(refused),
            "shadow": shadow and shadow.release_id,
            "refused_shadow": asdict(shadow.refused) if shadow and shadow.refused else None,
            "reference_as_of": manifest.reference_as_of,
            "features": decider.release.feature_names,
            "offers": [asdict(offer) for offer in manifest.offers],
            "catalogue_id": decider.catalogue.catalogue_id,
            "hold_out": experiment.hold_out,
            "random_arm": experiment.random_arm,
            "exploration": experiment.exploration,
            "clock": now.isoformat(),
        }
    )


def _source(decider: Decider) -> dict[str, Any]:
    return {"currency": decider.programme.currency, "experiment": decider.release.manifest.experiment}


def _decision(row: Row) -> dict[str, Any]:
    chosen = _by_offer(row, "net_value").get(row["treatment"], 0)
    return {
        "decision_id": row["decision_id"],
        "member_id": row["member_id"],
        "treatment": row["treatment"],
        "propensity": row["propensity"],
        **_known(row, at=row["decided_at"], release_id=row["release_id"]),
        "uplift": _by_offer(row, "uplift"),
        "cost": _by_offer(row, "cost"),
        "refusals": {offer: reason for offer, reason in _by_offer(row, "refusals").items() if reason},
        "expected_net_value": None if row["churn_probability"] is None else chosen,
        "outcome": row["outcome"],
    }


def _score(row: Row, eligible: Sequence[bool], decider: Decider, *, now: datetime) -> dict[str, Any]:
    possible = [worth for worth, may in zip(row["net_value"], eligible, strict=False) if may]
    return {
        "member_id": row["member_id"],
        **_known(row, at=now, release_id=decider.release.release_id),
        "uplift": dict(zip(decider.treatments[1:], row["uplift"], strict=False)),
        "expected_net_value": None if row["churn_probability"] is None else max([0, *possible]),
    }


def _known(row: Row, *, at: datetime, release_id: str) -> dict[str, Any]:
    time = row["event_timestamp"]
    return {
        "churn_probability": row["churn_probability"],
        "segment": row["segment"],
        "lifecycle_stage": row["lifecycle_stage"],
        "reasons": row["reasons"],
        "fallback_reason": row["fallback_reason"],
        "source": row["source"],
        "release_id": release_id,
        "feature_age_seconds": None if time is None else round((at - time).total_seconds()),
    }


def _by_offer(row: Row, name: str) -> dict[str, Any]:
    """Name the entries of a column; a member without scores has none."""
    return dict(zip(row["treatments"][1:], row[name], strict=False))
