"""How deep JSON may nest and how long its words and numbers may be, seen before anything of it is parsed."""

import re
from typing import Final

DEPTH: Final = 16
NUMBER: Final = 40  # characters
STRING: Final = 8 * 1024  # bytes as they came, escapes and all

# A string that does not end goes on to the end of the body: looking for one at each of its quotes takes minutes.
_STRING: Final = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_NUMBER: Final = re.compile(rb"[-+.0-9eE]{%d}" % (NUMBER + 1))
_BRACKET: Final = re.compile(rb"[\[\]{}]")


def too_much(body: bytes) -> str | None:
    """Say which limit a body breaks, if it does.

    >>> too_much(b'{"a": [1, 2]}'), too_much(b"[" * 17)
    (None, 'values nest at most 16 deep')
    """
    if len(body) <= STRING and body.count(b"[") + body.count(b"{") <= DEPTH and not _NUMBER.search(body):
        return None  # nothing in it can: most bodies
    if len(body) > STRING and any(len(one) > STRING for one in _STRING.findall(body)):
        return f"a string has at most {STRING} bytes"
    bare = _STRING.sub(b'""', body)
    if _NUMBER.search(bare):
        return f"a number has at most {NUMBER} characters"
    depth = 0
    for bracket in _BRACKET.finditer(bare):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > DEPTH:
            return f"values nest at most {DEPTH} deep"
    return None
