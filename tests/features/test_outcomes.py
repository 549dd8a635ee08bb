import json
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.decisions import DecisionLog, Outcome, read_outcomes
from features.errors import ContractError, NotFoundError
from features.home import Home
from features.outcomes import bring_outcomes, received_sheet, unmatched_outcomes, unmatched_sheet

NOW = datetime(2018, 3, 1, tzinfo=UTC)


def row(outcome_id="o1", **changes):
    values = {"decision_id": "d1", "kind": "purchase", "occurred_at": "2018-01-05T10:00:00Z", "amount": "500"}
    return {"outcome_id": outcome_id} | values | changes


def quiet(*_):
    """Nobody watches."""


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


@pytest.fixture
def bring(home, tmp_path):
    def bring(rows, name="outcomes.csv"):
        path = tmp_path / name
        if path.suffix == ".csv":
            pd.DataFrame(rows).to_csv(path, index=False)
        elif path.suffix == ".parquet":
            frame = pd.DataFrame(rows)
            frame.assign(occurred_at=pd.to_datetime(frame["occurred_at"])).to_parquet(path)
        else:
            path.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in rows))
        return bring_outcomes(home, path, now=NOW, progress=quiet)

    return bring


@pytest.mark.parametrize("name", ["outcomes.csv", "outcomes.parquet", "outcomes.jsonl"])
def test_every_kind_of_file_says_the_same(home, bring, name):
    received = bring([row(amount=500), row("o2", amount=-7)], name)
    assert (received.new, received.repeated, received.refused) == (2, 0, 0)
    assert [(o["outcome_id"], o["decision_id"], o["amount"]) for o in read_outcomes(home.decisions)] == [
        ("o1", "d1", 500),
        ("o2", "d1", -7),
    ]
    assert read_outcomes(home.decisions)[0]["occurred_at"] == datetime(2018, 1, 5, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"amount": "12.5"}, "amount is no money"),
        ({"occurred_at": "soon"}, "occurred_at is no time"),
        ({"occurred_at": "2018-03-02"}, "occurred_at is in the future"),
        ({"kind": "Purchase!"}, "kind: wanted lower case"),
        ({"kind": None}, "kind is missing"),
        ({"decision_id": None}, "one of decision_id and contact_id was wanted"),
        ({"contact_id": "c1"}, "one of decision_id and contact_id was wanted"),
        ({"decision_id": "d" * 129}, "wanted 1 to 128 characters"),
    ],
)
@pytest.mark.parametrize("name", ["outcomes.csv", "outcomes.jsonl"])
def test_a_bad_row_goes_to_quarantine_and_leaves_the_others_alone(home, bring, changes, reason, name):
    received = bring([row(), row("o2", **changes), row("o3")], name)
    assert (received.new, received.refused) == (2, 1)
    (line,) = received.quarantine.read_text().splitlines()
    told = json.loads(line)
    assert (told["row"], told["values"]["outcome_id"]) == (1, "o2")
    assert reason in told["reason"]
    assert reason in str(received_sheet(received).notes)
    assert ("12.50 is 1250" in str(received_sheet(received).notes)) == ("money" in reason)
    assert [o["outcome_id"] for o in read_outcomes(home.decisions)] == ["o1", "o3"]


@pytest.mark.parametrize("line", ["{", "[1]", '{"outcome_id": "o9", "ammount": 5}'])
def test_a_line_that_is_no_outcome_is_refused_by_itself(bring, line):
    received = bring([row(), line], "outcomes.jsonl")
    assert (received.new, received.refused) == (1, 1)
    assert "wanted one JSON object a line" in received.quarantine.read_text()


def test_an_id_that_stands_for_something_else_is_refused_with_its_row(home, bring):
    bring([row()])
    received = bring([row(), row(amount="501"), row("o2")])
    assert (received.new, received.repeated, received.refused) == (1, 1, 1)
    told = json.loads(received.quarantine.read_text())
    assert (told["row"], told["values"]["amount"]) == (1, "501")
    assert "stands for another outcome" in told["reason"]
    assert read_outcomes(home.decisions)[0]["amount"] == 500


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["outcome_id", "decision_id", "kind", "occurred_at", "ammount"], "'ammount': 'amount' was meant"),
        (["outcome_id", "decision_id", "kind"], "lacks the column 'occurred_at'"),
    ],
)
def test_a_file_with_other_columns_is_refused_whole(home, tmp_path, columns, message):
    path = tmp_path / "outcomes.csv"
    pd.DataFrame([dict.fromkeys(columns, "x")]).to_csv(path, index=False)
    with pytest.raises(ContractError, match=message):
        bring_outcomes(home, path, now=NOW, progress=quiet)
    assert not home.decisions.exists()


def test_a_file_that_is_not_there_is_named(home, tmp_path):
    with pytest.raises(NotFoundError, match="is no file"):
        bring_outcomes(home, tmp_path / "none.csv", now=NOW, progress=quiet)


def test_an_outcome_waits_for_its_decision_and_is_matched_when_it_comes(home, bring, decision):
    bring([row(decision_id="late"), row("o2", decision_id=None, contact_id="c1")])
    assert [one["outcome_id"] for one in unmatched_outcomes(home)] == ["o1", "o2"]
    assert "2 in all" in str(unmatched_sheet(unmatched_outcomes(home)).notes)
    with DecisionLog(home.decisions) as log:
        log.append([decision("late")], now=NOW).result()
    assert [one["outcome_id"] for one in unmatched_outcomes(home)] == ["o2"]


EVENTS = st.lists(
    st.one_of(
        st.builds(lambda n: ("decision", f"d{n}"), st.integers(0, 4)),
        st.builds(lambda n: ("outcome", f"o{n}"), st.integers(0, 6)),
    ),
    max_size=12,
)


@settings(max_examples=40)
@given(events=EVENTS, order=st.randoms(use_true_random=False))
def test_any_order_and_any_repetition_end_in_the_same_state(tmp_path_factory, decision, events, order):
    shuffled = [*events, *events]
    order.shuffle(shuffled)
    assert state(tmp_path_factory, decision, shuffled) == state(tmp_path_factory, decision, sorted(set(events)))


def state(folders, decision, events):
    """Bring decisions and outcomes one by one; outcome n is of decision n, of which there are fewer."""
    home, there = Home(folders.mktemp("order")), set()
    with DecisionLog(home.decisions) as log:
        for kind, name in events:
            if kind == "outcome":
                occurred_at = NOW - timedelta(days=int(name[1:]))
                log.record(Outcome(name, f"d{name[1:]}", None, "purchase", occurred_at, 100), now=NOW)
            elif name not in there:
                log.append([decision(name)], now=NOW)
                there.add(name)
    waiting = [one["outcome_id"] for one in unmatched_outcomes(home)]
    return read_outcomes(home.decisions), waiting
