"""What a shadow makes of what was decided, read from the log as it stands on the disk."""

from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from features.decisions import Erasure, Preference, Traces, read_decisions
from features.errors import ContractError, CorruptError, NotFoundError
from features.home import Home
from features.shadow import ShadowFile
from serving.replay import decide_again
from serving.shadow import understudy as module
from serving.shadow.understudy import Understudy
from training.artifacts import open_release
from training.releases.shadow import begin_shadow, end_shadow, shadow_id

NOW = datetime(2017, 12, 1, 12, tzinfo=UTC)
LIMITS = """
[policy]
min_days_between_contacts = 1
contacts_per_period = 2
period_days = 7
[campaigns.spring]
budget = 900
[campaigns.summer]
"""


@pytest.fixture
def follow(home, other_root):
    """Begin to follow a home's log."""

    @contextmanager
    def follow(release_id=other_root.name, **settings):
        understudy = Understudy(home, open_release(home.releases, release_id), **settings)
        try:
            yield understudy
        finally:
            understudy.close()

    return follow


def check_as_champion(home, rows, understudy):
    """Hold rows against what the shadow decides by itself, from the log."""
    logged = [row for row in read_decisions(home.decisions) if row["decision_id"] in rows]
    for before in logged:
        decider = understudy._pair(before["release_id"], before["catalogue_id"]).shadow
        (again,) = decide_again(decider, [before], before["campaign_id"])
        row, chosen = rows[before["decision_id"]], before["treatments"].index(before["treatment"])
        assert (row.treatment, row.champion) == (before["treatment"], before["release_id"])
        assert (row.propensity, row.churn_probability) == (before["propensity"], before["churn_probability"])
        assert row.shadow_treatment == again.treatment
        assert row.shadow_propensity == again.probabilities[chosen]
        assert row.shadow_churn_probability == again.churn_probability
        assert row.shadow_net_value_by_champion == pytest.approx(
            sum(p * net for p, net in zip(again.probabilities[1:], before["net_value"], strict=True))
        )
    return logged


def test_it_decides_what_it_would_have_decided_as_champion_with_the_same_draw(home, asked, follow, rows_of, other_root):
    with asked() as callers, follow() as understudy:
        answers = callers.ask(*({"members": [f"m{i}", f"m{i + 1}"], "campaign_id": "c"} for i in range(0, 40, 2)))
        answers += callers.ask_together(*({"members": [f"m{i}"]} for i in range(40, 80)))
        while understudy.step():
            pass
        told = understudy.told()
        rows = {row.decision_id: row for row in rows_of(other_root.name)}
        logged = check_as_champion(home, rows, understudy)
    assert all(answer.status_code == 200 for answer in answers)
    assert rows.keys() == {row["decision_id"] for row in read_decisions(home.decisions)}
    assert {row["release_id"] for row in logged} != {other_root.name}  # the log knows nothing of it
    assert all(row.churn_probability != row.shadow_churn_probability for row in rows.values())
    same = sum(row.treatment == row.shadow_treatment for row in rows.values())
    assert (told.counts, told.behind) == ({"same": same, "another": 80 - same}, 0)
    assert told.seconds > 0
    assert min(row.seconds for row in rows.values()) > 0


def test_what_was_left_of_a_budget_and_of_caps_is_what_the_champion_saw(home, asked, follow, rows_of, other_root):
    home.settings.write_text(LIMITS)
    with asked() as callers, follow() as understudy:
        for _ in range(2):  # who was contacted is not contacted again
            callers.ask(*({"members": [f"m{i}", f"m{i + 1}"], "campaign_id": "spring"} for i in range(0, 60, 2)))
            callers.ask({"members": [f"m{i}" for i in range(60)], "campaign_id": "summer"})
        while understudy.step():
            pass
        rows = {row.decision_id: row for row in rows_of(other_root.name)}
        logged = check_as_champion(home, rows, understudy)
    assert len(rows) == 240
    assert {row["standing"].get("budget", 0) < 50 for row in logged} == {True, False}  # some came too late
    assert {row.shadow_treatment for row in rows.values()} == {"control", "A", "B"}


def test_of_who_opted_out_is_unknown_or_has_no_features_nothing_is_made(asked, follow, rows_of, other_root):
    with asked() as callers, follow() as understudy:
        callers.ask({"members": ["m3no", "nobody", "infinite", "m1"]})
        assert understudy.step()
        assert not understudy.step()
    assert [row.member_id for row in rows_of(other_root.name)] == ["m1"]


def test_of_who_opts_out_or_is_erased_meanwhile_nothing_is_kept(asked, follow, rows_of, other_root, monkeypatch):
    with asked() as callers, follow() as understudy:
        log, decide = callers.desk._log, module.decide_beside

        def decide_late(*given):
            rows = decide(*given)
            log.prefer(Preference("m1", personalisation=False), now=NOW).result()
            log.begin_erasure(Erasure("r", ("m2",)), now=NOW).result()
            return rows

        monkeypatch.setattr(module, "decide_beside", decide_late)
        callers.ask({"members": ["m1", "m2", "m3"]})
        understudy.step()
        log.prefer(Preference("m1", personalisation=True), now=NOW).result()
        callers.ask({"members": ["m1"]})
        monkeypatch.setattr(module, "decide_beside", decide)
        understudy.step()
    assert [row.member_id for row in rows_of(other_root.name)] == ["m3", "m1"]


def test_who_is_erased_from_the_log_before_it_came_there_is_nobody(asked, follow, rows_of, other_root):
    with asked() as callers, follow() as understudy:
        callers.ask({"members": ["m1", "m2"]})
        erasure = Erasure("r", ("m2",))
        callers.desk._log.begin_erasure(erasure, now=NOW).result()
        callers.desk._log.erase(erasure, Traces(), now=NOW).result()
        understudy.step()
        assert understudy.told().counts.keys() == {"same", "another"}
    assert [row.member_id for row in rows_of(other_root.name)] == ["m1"]


def test_what_fails_is_counted_and_named_without_a_member(asked, follow, monkeypatch, caplog):
    def fail(_, rows):
        raise ValueError(rows[0]["member_id"])

    with asked() as callers, follow() as understudy:
        callers.ask({"members": ["m17"]})
        monkeypatch.setattr(module, "decide_beside", fail)
        assert understudy.step()
        assert not understudy.step()  # it is not tried again
        assert understudy.told().counts == {"failed": 1}
    assert "the shadow failed: ValueError" in caplog.text
    assert "m17" not in caplog.text


def test_decisions_that_the_log_refused_leave_no_row(asked, follow, rows_of, other_root):
    with asked() as callers, follow() as understudy:
        refuse = "CREATE TEMP TRIGGER full BEFORE INSERT ON decisions BEGIN SELECT RAISE(FAIL, 'no'); END"
        callers.desk._log._db.execute(refuse)
        (answer,) = callers.ask({"members": ["m1"]})
        assert not understudy.step()
    assert answer.status_code >= 500
    assert rows_of(other_root.name) == []


def test_the_oldest_that_wait_are_left_out_above_a_number_and_counted(asked, follow, rows_of, other_root):
    with asked() as callers, follow(block=3, behind=5) as understudy:
        callers.ask(*({"members": [f"m{i}"]} for i in range(12)))
        assert understudy.step()
        told = understudy.told()
        assert (told.counts["dropped"], told.behind) == (7, 2)
        while understudy.step():
            pass
        assert understudy.told().behind == 0
    assert [row.member_id for row in rows_of(other_root.name)] == [f"m{i}" for i in range(7, 12)]


def test_what_came_while_there_was_none_is_left_out_and_counted(asked, follow, rows_of, other_root):
    with asked() as callers:
        callers.ask({"members": ["m1"]})
        with follow() as understudy:
            assert understudy.told().counts == {}  # what was before it was named is none of its business
            place = understudy.told().place
        callers.ask({"members": ["m2"]}, {"members": ["m3"]})
        with follow(missed_since=place) as understudy:
            callers.ask({"members": ["m4"]})
            understudy.step()
            assert understudy.told().counts["dropped"] == 2
    assert [row.member_id for row in rows_of(other_root.name)] == ["m4"]


def test_it_says_nothing_of_what_it_decided_itself(asked, follow, release_root):
    with asked() as callers, follow(release_root.name) as understudy:
        callers.ask({"members": ["m1"]})
        assert understudy.step()
        assert understudy.told().counts == {}


def test_a_release_that_wants_other_features_is_refused_once_there_is_a_decision(
    home, asked, follow, signed, other_root
):
    path = home.releases / other_root.name / "manifest.json"
    path.write_text(path.read_text().replace("recency_days", "recency_weeks"))
    with asked() as callers, follow(signed(path.parent).name) as understudy:
        assert not understudy.step()
        callers.ask({"members": ["m1"]})
        with pytest.raises(ContractError, match="which lacks recency_weeks"):
            understudy.step()


def test_only_another_release_that_exists_can_be_the_shadow(home, begin, release_root, tmp_path):
    with pytest.raises(ContractError, match="is the champion"):
        begin(release_root.name)
    with pytest.raises(NotFoundError, match="there is no release 'nothing'"):
        begin("nothing")
    with pytest.raises(NotFoundError, match="there is no champion"):
        begin_shadow(Home(tmp_path / "empty"), "nothing", who="test", now=NOW)
    assert not end_shadow(home)
    (home.releases / "shadow.json").write_text("nonsense")
    with pytest.raises(CorruptError, match="names no release"):
        shadow_id(home)


def test_no_more_rows_are_kept_than_said(home, asked, follow, rows_of, other_root):
    with asked() as callers, follow() as understudy:
        callers.ask(*({"members": [f"m{i}"]} for i in range(5)))
        understudy.step()
    rows = rows_of(other_root.name)
    with ShadowFile(home.shadow) as file:
        with file.writing():
            file.add(rows, most=7)
        assert [row.member_id for row in file.of_shadow(other_root.name)] == ["m3", "m4", "m0", "m1", "m2", "m3", "m4"]
        assert file.erase(["m3"]) == 2
        assert file.let_go(before=rows[0].decided_at) == 0
