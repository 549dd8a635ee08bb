"""The limits of JSON's shape, against a reader that looks at every value once it is parsed."""

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.problems import BODY_BYTES
from serving.shape import DEPTH, NUMBER, STRING, too_much

texts = st.text(alphabet='a[]{}"\\0123456789é', max_size=60)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**50), 10**50) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=60,
)


def depth(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


def numbers(value):
    if isinstance(value, dict | list):
        return [one for inner in (value.values() if isinstance(value, dict) else value) for one in numbers(inner)]
    return [str(value)] if isinstance(value, int) and not isinstance(value, bool) else []


@given(values, st.integers(0, DEPTH + 3), st.booleans())
def test_just_what_is_too_deep_or_too_long_is_refused(value, deeper, ascii_only):
    for _ in range(deeper):
        value = [value]
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    wrong = depth(value) > DEPTH or any(len(number) > NUMBER for number in numbers(value))
    assert (too_much(body) is not None) == wrong


def test_a_string_has_a_length_and_its_escapes_count():
    assert too_much(json.dumps(["x" * (STRING - 2)]).encode()) is None
    assert re.search("string", too_much(json.dumps(["x" * (STRING - 1)]).encode()))
    assert re.search("string", too_much(json.dumps(['"' * (STRING // 2)]).encode()))


@given(st.binary(max_size=300) | st.text('[]{}"\\,0', max_size=300).map(str.encode))
def test_what_is_no_json_is_looked_at_all_the_same(body):
    assert too_much(body) is None or isinstance(too_much(body), str)


@pytest.mark.parametrize("piece", [b'"', b'\\"', b'"\\', b'"\\"', b"[", b'["', b"9"])
def test_the_largest_body_of_one_piece_is_looked_at_in_no_time(piece):
    began = time.process_time()
    too_much(piece * (BODY_BYTES // len(piece)))
    assert time.process_time() - began < 1  # milliseconds; a pattern that begins anew at each quote takes minutes
