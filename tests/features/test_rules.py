"""Rules hold for exactly those for whom Kleene's logic says so, and nothing else is ever run."""

import operator

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.catalogue.entries import CATALOGUE
from features.errors import ContractError
from features.rules import known_facts, parse_rule

KNOWN = {"days": "number", "visits": "number", "tier": "word", "region": "word"}
NUMBERS, WORDS = ("days", "visits"), ("tier", "region")
ORDERS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
EQUALS = {"==": operator.eq, "!=": operator.ne}
SOME_NUMBERS, SOME_WORDS = st.sampled_from([-1.0, 0.0, 2.5, 28.0]), st.sampled_from(["gold", "nörd", ""])


# A rule is drawn as its text and its meaning: from a member's values, None where missing, to True, False or None


def _both(operation):
    return lambda a, b: None if a is None or b is None else operation(a, b)


def _all(values):
    values = list(values)
    return False if False in values else None if None in values else True


def _not(value):
    return None if value is None else not value


def _named(names):
    return st.sampled_from(names).map(lambda name: (name, lambda member: member[name]))


def _said(values):
    return values.map(lambda value: (repr(value), lambda _: value))


@st.composite
def _comparison(draw):
    names, values, signs = draw(
        st.sampled_from([(NUMBERS, SOME_NUMBERS, ORDERS | EQUALS), (WORDS, SOME_WORDS, EQUALS)])
    )
    sides = [draw(_named(names)), draw(_named(names) | _said(values))]
    (left, a), (right, b) = sides if draw(st.booleans()) else sides[::-1]
    sign = draw(st.sampled_from(sorted(signs)))
    return f"{left} {sign} {right}", lambda member: _both(signs[sign])(a(member), b(member))


@st.composite
def _between(draw):
    (low, a), (name, x), (high, b) = draw(_said(SOME_NUMBERS)), draw(_named(NUMBERS)), draw(_named(NUMBERS))
    first, second = draw(st.sampled_from(sorted(ORDERS))), draw(st.sampled_from(sorted(ORDERS)))
    return f"{low} {first} {name} {second} {high}", lambda member: _all(
        [_both(ORDERS[first])(a(member), x(member)), _both(ORDERS[second])(x(member), b(member))]
    )


@st.composite
def _listed(draw):
    names, values = draw(st.sampled_from([(NUMBERS, SOME_NUMBERS), (WORDS, SOME_WORDS)]))
    name, among = draw(st.sampled_from(names)), draw(st.lists(values, min_size=1, max_size=3))
    text = f"({', '.join(map(repr, among))})"
    if draw(st.booleans()):
        return f"{name} in {text}", lambda member: _both(lambda a, b: a in b)(member[name], among)
    return f"{name} not in {text}", lambda member: _both(lambda a, b: a not in b)(member[name], among)


def _joined(rules):
    def both(pair):
        (left, a), (right, b) = pair
        return f"({left}) and ({right})", lambda member: _all([a(member), b(member)])

    def either(pair):
        (left, a), (right, b) = pair
        return f"({left}) or ({right})", lambda member: _not(_all([_not(a(member)), _not(b(member))]))

    def neither(rule):
        return f"not ({rule[0]})", lambda member: _not(rule[1](member))

    pairs = st.tuples(rules, rules)
    return pairs.map(both) | pairs.map(either) | rules.map(neither)


RULES = st.recursive(_comparison() | _between() | _listed(), _joined, max_leaves=8)
MEMBERS = st.lists(
    st.fixed_dictionaries(
        dict.fromkeys(NUMBERS, st.none() | SOME_NUMBERS) | dict.fromkeys(WORDS, st.none() | SOME_WORDS)
    ),
    max_size=6,
)


@given(rule=RULES, members=MEMBERS)
def test_a_rule_holds_for_whom_it_is_known_to_hold(rule, members):
    text, meaning = rule
    columns = {name: np.array([m[name] for m in members], dtype=object if name in WORDS else float) for name in KNOWN}
    parsed = parse_rule(text, KNOWN)
    held = parsed.holds({name: columns[name] for name in parsed.names})
    assert held.dtype == bool
    assert held.tolist() == [meaning(member) is True for member in members]


@given(rule=st.recursive(_comparison() | _listed(), _joined, max_leaves=8), members=MEMBERS)
def test_a_database_says_the_same(rule, members):
    """DuckDB reads rules without chains as they are; where it says NULL, a rule does not hold."""
    text, _ = rule
    schema = pa.schema([(name, pa.string() if name in WORDS else pa.float64()) for name in KNOWN])
    with duckdb.connect() as db:
        db.register("members", pa.Table.from_pylist(members, schema))
        wanted = db.sql(f"SELECT coalesce({text}, false) FROM members").fetchall()  # noqa: S608 (drawn above)
    columns = {name: np.array([m[name] for m in members], dtype=object if name in WORDS else float) for name in KNOWN}
    assert parse_rule(text, KNOWN).holds(columns).tolist() == [holds for (holds,) in wanted]


@given(text=st.text(max_size=40) | st.text("dayst<>=!'()&0129 andornoti,.[]:", max_size=30))
def test_any_text_is_a_rule_or_a_fault_with_its_place(text):
    try:
        rule = parse_rule(text, KNOWN)
    except ContractError as error:
        assert "at character" in str(error)  # noqa: PT017 (either of two is right)
    else:
        assert rule.holds(dict.fromkeys(NUMBERS, np.zeros(2)) | dict.fromkeys(WORDS, np.array(["", None]))).shape == (
            2,
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at character 1, "),
        ("tierr == 'gold'", "at character 1, tierr is no feature; did you mean tier?"),
        ("'ä' == tier and zone == 'x'", "at character 17, zone is no feature; `holdfast features list` names them all"),
        ("  dys > 1", "at character 3, dys is no feature; did you mean days?"),
        ("tier == ", "at character 9, invalid syntax"),
        ("days = 3", "at character 6, invalid syntax"),
        ("tier == 'gold", "at character 9, unterminated string"),
        ("days", "at character 1, a comparison was wanted"),
        ("days + 1 > 3", "at character 1, a name, a number or a word in quotes was wanted"),
        ("days > True", "at character 8, a name, a number"),
        ("days > 1e999", "at character 8, a name, a number"),
        ("tier == None", "at character 9, a name, a number"),
        ("tier is 'gold'", "at character 9, 'is' compares nothing here"),
        ("1 < 2", "at character 1, nothing of the member is compared"),
        ("tier > 'gold'", "at character 8, words have no order"),
        ("tier == 3", "at character 9, a number is compared with a word"),
        ("days == tier", "at character 9, a number is compared with a word"),
        ("tier in ('gold', 3)", "at character 9, a number is compared with a word"),
        ("tier in ()", "at character 9, a name, a number"),
        ("days in (visits, 2)", "at character 9, a name, in, and a list"),
        ("days > 1 and len(tier) > 2", "at character 14, a name, a number"),
        ("__import__('os').system('true') == 0", "at character 1, a name, a number"),
        ("tier == f'{days}'", "at character 9, a name, a number"),
        ("tier == '\\x41'", "at character 10, "),
        ("days > 1\nand days < 2", "at character 9, "),
        ("(" * 300 + "days > 1" + ")" * 300, "at character .*nested"),
        ("days > 1 or " * 100 + "days > 1", "1,208 characters came, at most 1,000 were wanted"),
    ],
)
def test_what_is_wrong_is_pointed_at(text, message):
    with pytest.raises(ContractError, match=message.replace("?", "[?]")):
        parse_rule(text, KNOWN)


def test_every_fault_is_named_at_once():
    with pytest.raises(
        ContractError, match=r"character 1, tierr .*; at character 19, dayz .*; at character 38, .*order"
    ):
        parse_rule("tierr == 'a' and (dayz > 1 or tier > 'b')", KNOWN)


def test_rules_speak_of_every_feature():
    known = known_facts()
    assert set(known) == set(CATALOGUE)
    assert {known[name] for name in ("lifecycle_stage", "tier", "region", "personalisation", "segment")} == {"word"}
    assert {known[name] for name in ("recency_days", "tier_level", "visits_28d")} == {"number"}
