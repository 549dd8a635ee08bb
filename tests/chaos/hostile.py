"""Hostile requests without end: valid ones with something wrong put into values, text, bytes, headers or addresses."""

import copy
import json
from dataclasses import dataclass, field
from urllib.parse import quote

MARK = "secret4711"  # in what is sent; never in an error or a log
INJECTIONS = (
    "' OR 1=1 --", '"; DROP TABLE decisions; --', "1; SELECT pg_sleep(9)", "' UNION SELECT body FROM answers --",
    "{{7*7}}", "${jndi:ldap://127.0.0.1/a}", "<%= 7*7 %>", "#{7*7}", "{0.__class__}", "%s%s%s%n", "$(id)", "`id`",
    "|id",
    "../../../../etc/passwd", "..\\..\\windows", "%2e%2e%2f", "file:///etc/passwd", "/dev/stdin", "C:\\con\\con",
    "<script>alert(1)</script>", "<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>", "javascript:1",
    "\r\nX-Injected: 1", "a\r\n\r\nHTTP/1.1 200 OK", "\x00", "a\x00b", "\x1b[31m", "\u202e", "\u200b", "\ufeff",
    "\u2028",
    "\u0130", "ﬀ", "e\u0301" * 60, "𝕳", "👩‍👩‍👧‍👦", "\ud800", "\udfff\ud800", "\uffff", "\U0010ffff", "Ω" * 128,
    "ß" * 129, "",
    " ", "\t", "null", "undefined", "NaN", "None", "true", "-0", "1e999", "0x10", "__proto__", "constructor",
    "hasOwnProperty",
    "A" * 128, "A" * 129, "A" * 70_000, "=1+1", "@SUM(1)", "(" * 500, "(a+)+$" + "a" * 60, "%" * 200, "\\" * 99,
    '"' * 99,
)  # fmt: skip
VALUES = (
    None, True, False, 0, -1, 1, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**30, 10**400, 1.5, -0.0, 1e308,
    5e-324,
    [], {}, [[]], [None], {"": ""}, {"a": {"b": {}}}, [[[[[[[[]]]]]]]], ["m1", "m1"], ["m1", None], ["m1", 7], [""],
    "2017-12-01T10:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2017-02-30T00:00:00Z",
    "2017-12-01T24:00:00Z", "2017-12-01T10:00:60Z", "20171201T100000Z", "-2017-12-01T10:00:00Z", 1e18, "12", "1.0",
)  # fmt: skip
RAW = (
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "01", "+1", ".5", "1.", "0x1f", "1_000", "'a'", "undefined",
    "[" * 9_000, '{"a":' * 5_000, "[" * 300 + "]" * 300, "1" * 5_000, "-" + "9" * 4_400, "0." + "1" * 9_000,
    "1e-9999999",
    '"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"\\x41"', '"a', '"\n"', "/* c */ 1", "1 // c", "[1,]", "{1:2}",
    "", "nul",
)  # fmt: skip
CALLS = {
    "/v1/decisions": ("POST", {"members": ["m1", "m2"], "campaign_id": "c", "offers": ["A"], "context": {"till": 3}}),
    "/v1/scores": ("POST", {"members": ["m1"], "offers": ["A", "B"]}),
    "/v1/outcomes": (
        "POST",
        {
            "outcome_id": "o", "decision_id": "d", "kind": "visit", "occurred_at": "2017-11-02T10:00:00Z", "amount": 5,
        },
    ),
    "/v1/transactions": (
        "POST",
        {"rows": [{"transaction_id": "t", "member_id": "m1", "occurred_at": "2017-11-02T10:00:00Z", "amount": 5}]},
    ),
    "/v1/events": (
        "POST",
        {"rows": [{"event_id": "e", "member_id": "m1", "occurred_at": "2017-11-02T10:00:00Z", "kind": "view"}]},
    ),
    "/v1/members/m1/preferences": ("PUT", {"personalisation": True}),
}  # fmt: skip
TYPES = (
    "text/plain", "application/json; charset=utf-16", "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/json, text/html", "APPLICATION/JSON", "", "application/xml", "a" * 5_000, "application/json;;;;",
    "\xff",
)  # fmt: skip
METHODS = ("GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "POST", "BREW", "")
PATHS = (
    "/", "//", "/v1", "/v1/", "/v1//decisions", "/v1/decisions/", "/v1/./scores", "/v1/../metrics", "/%2e%2e/",
    "/v1/decisions%00",
    "/openapi.json", "/livez", "/readyz", "/metrics", "/v1/release", "/docs", "/admin", "/.env", "/v1/decisions?x=1",
)  # fmt: skip


@dataclass
class Hostile:
    """Hold one request."""

    method: str
    path: str
    body: bytes
    headers: dict = field(default_factory=lambda: {"content-type": "application/json"})


def hostile(rng):
    """Make one after the other."""
    kinds = (_values, _values, _texts, _texts, _raw, _bytes, _bytes, _keys, _encodings, _headers, _addresses)
    while True:
        path, (method, body) = _pick(rng, list(CALLS.items()))
        yield _pick(rng, kinds)(rng, path, method, json.loads(json.dumps(body)))


def _pick(rng, some):
    return some[int(rng.integers(len(some)))]


def _places(value, found=()):
    """Name every place in a body."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*found, key)
        yield from _places(inner, (*found, key))


def _put(rng, body, value):
    *way, last = _pick(rng, list(_places(body)))
    inside = body
    for key in way:
        inside = inside[key]
    inside[last] = copy.deepcopy(value)  # what is put into it later is its own
    return body


def _text(rng):
    word = _pick(rng, INJECTIONS)
    return (MARK + word, word + MARK, word, MARK + word + str(rng.integers(10**6)))[int(rng.integers(4))]


def _json(body):
    return json.dumps(body).encode()


def _values(rng, path, method, body):
    for _ in range(int(rng.integers(1, 3))):
        body = _put(rng, body, _pick(rng, VALUES))
    return Hostile(method, path, _json(body))


def _texts(rng, path, method, body):
    if rng.random() < 0.3:
        body[_text(rng)] = _text(rng)
    if rng.random() < 0.2 and "context" in body:
        body["context"] = {_text(rng): _pick(rng, (*VALUES, _text(rng))) for _ in range(int(rng.integers(1, 60)))}
    return Hostile(method, path, _json(_put(rng, body, _text(rng))))


def _raw(rng, path, method, body):
    text = json.dumps(_put(rng, body, "@@")).replace('"@@"', _pick(rng, RAW))
    return Hostile(method, path, text.encode())


def _bytes(rng, path, method, body):
    text = bytearray(_json(_put(rng, body, MARK) if rng.random() < 0.5 else body))
    for _ in range(int(rng.integers(1, 6))):
        at, byte = int(rng.integers(len(text) + 1)), int(rng.integers(256))
        change = int(rng.integers(5))
        if change == 0:
            text[at : at + 1] = bytes([byte])
        elif change == 1:
            text[at:at] = bytes([byte])
        elif change == 2:
            del text[at : at + int(rng.integers(1, 9))]
        elif change == 3:
            del text[at:]
        else:
            text[at:at] = text[: int(rng.integers(len(text) + 1))]
        text = text or bytearray(b"{")
    return Hostile(method, path, bytes(text))


def _keys(rng, path, method, body):
    """Give a key twice, or in another case, or not at all."""
    text, name = json.dumps(body), _pick(rng, [*body, MARK])
    change = int(rng.integers(4))
    if change == 0:
        text = text[:-1] + f', "{name}": {json.dumps(_pick(rng, VALUES))}' + "}"
    elif change == 1:
        text = text.replace(f'"{name}"', f'"{name.upper()}"')
    elif change == 2:
        body.pop(name, None)
        text = json.dumps(body)
    else:
        text = json.dumps([body] if rng.random() < 0.5 else {name: body})
    return Hostile(method, path, text.encode())


def _encodings(rng, path, method, body):
    text = json.dumps(_put(rng, body, _pick(rng, ("mé" + MARK, "m1"))), ensure_ascii=False)
    made = (
        b"\xef\xbb\xbf" + text.encode(), text.encode("utf-16"), text.encode("utf-16-be"), text.encode("utf-32"),
        text.encode("latin-1"), text.encode() + b"\x00", text.encode() + b"\xff\xfe", text.encode("utf-7"),
        text.encode().replace(b"m", b"\xc0\xad"), text.encode().replace(b"m", b"\xed\xa0\x80"),
        b" " * 5_000 + text.encode(),
    )  # fmt: skip
    return Hostile(method, path, _pick(rng, made))


def _headers(rng, path, method, body):
    headers = {"content-type": _pick(rng, (*TYPES, "application/json"))}
    name = _pick(
        rng, ("idempotency-key", "content-length", "x-forwarded-for", "host", "authorization", "traceparent", "expect")
    )
    value = _pick(
        rng, ("", MARK, "k" * 256, "k\x7f", "é", "-1", "1e9", "99999999999999999999", "0x10", "1, 2", "Bearer " + MARK)
    )
    headers[name] = value
    return Hostile(method, path, _json(body), headers)


def _addresses(rng, _path, _method, body):
    part = quote(_text(rng).encode("utf-8", "surrogatepass"), safe="/.%" if rng.random() < 0.3 else "")
    made = (
        f"/v1/decisions/{part}",
        f"/v1/members/{part}/preferences",
        f"/v1/members/{part}",
        f"/v1/members/{part}/export",
        f"/v1/erasures/{part}",
        f"/{part}",
    )
    path = _pick(rng, (*made, *PATHS))
    return Hostile(_pick(rng, (*METHODS, "GET", "PUT", "POST")), path[:8_000], _json(body))
