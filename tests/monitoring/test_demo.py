"""What the demonstration says at its end; the loop itself runs in tests/test_loop.py."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from features.home import Home
from features.programme import Programme
from monitoring.demo import Round, decisions_sheet, summary
from training.releases.manifest import Manifest


@pytest.fixture
def without_offers():
    """A release of which no experiment was believed."""
    evidence = {
        "data": {"members": 2469},
        "churn": {"rows": {"model": {"auc": {"value": 0.86}}}},
        "campaigns": {},
        "policies": None,
        "log": {"reasons": ["contacts were not drawn as their propensities say"]},
    }
    return Manifest(
        features=(), offers=(), programme=Programme().model_dump(mode="json"), reference_as_of=(), experiment="none",
        evidence=evidence,
    )  # fmt: skip


def test_a_release_without_offers_says_so_and_why(without_offers, tmp_path):
    this = Round(Home(tmp_path), None, None, lambda: datetime(2024, 1, 1, tzinfo=UTC))
    said = summary(this, without_offers, SimpleNamespace(sentence="No drift.")).renderable
    assert "It makes no offer, and nobody is contacted: contacts were not drawn as their propensities say." in said
    assert "experiment" not in said
    assert decisions_sheet([], without_offers, 0).title == "Decisions, of no contact"
