"""Rules: who may get an offer, said in a small language over what is known of a member.

    lifecycle_stage in ('lapsed', 'dormant') and not tier == 'gold'
    28 < recency_days <= 84 and spend_84d > tier_distance
    region != 'north' or personalisation == 'yes'

A comparison has a name on at least one side: `==`, `!=`, `<`, `<=`, `>`, `>=`, and chains of them, between names and
numbers; `==` and `!=` between names and 'words'; `in (...)` and `not in (...)` between a name and a list of numbers or
of words. Comparisons are joined by `and`, `or`, `not` and parentheses. Names are features (`holdfast features list`):
numbers, or words such as a stage, a tier or a region. There is no arithmetic, no function and nothing else.

What is missing is not known, and so is what follows from it: neither `tier == 'gold'` nor `tier != 'gold'` holds for a
member without a tier, nor does `not tier == 'gold'`; `tier == 'gold' or visits_28d > 3` holds if the visits do. This is
the logic of Kleene (1938) and of SQL. A rule that is not known to hold does not hold.

The text is parsed by Python's own parser and walked here, over NumPy; nothing of it is ever run.
"""

import ast
import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, reduce
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from features.errors import ContractError

Flags = NDArray[np.bool_]
Columns = Mapping[str, NDArray[Any]]  # numbers as float64, NaN where missing; words as objects, None where missing
Kind = Literal["number", "word"]

Fault = tuple[ast.expr, str]  # where, and what

LONGEST: Final = 1_000  # characters
_LARGEST: Final = 1e308
_NEVER: Final = "\\\n\r\f\0"  # a rule is one line; Python reads something into each of these
_COMPARISONS: Final[dict[type[ast.cmpop], Callable[..., Any]]] = {
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}
_OPPOSITES: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.GtE,
    ast.GtE: ast.Lt,
    ast.Gt: ast.LtE,
    ast.LtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_NOTHING: Final = np.array(None, dtype=object)
_OF_WORDS: Final = (ast.Eq, ast.NotEq)
_LISTED: Final = (ast.In, ast.NotIn)


@dataclass(frozen=True)
class Rule:
    """Hold a rule that was checked."""

    text: str
    tree: ast.expr
    names: frozenset[str]

    def holds(self, columns: Columns) -> Flags:
        """Say for whom it is known to hold, `(n_members,)`.

        Parameters
        ----------
        columns : of every one of `names`, `(n_members,)`

        >>> rule = parse_rule("recency_days > 28 and tier != 'gold'", {"recency_days": "number", "tier": "word"})
        >>> tiers = np.array(["gold", "silver", None, "silver"], dtype=object)
        >>> rule.holds({"recency_days": np.array([30.0, 30.0, 30.0, np.nan]), "tier": tiers}).tolist()
        [False, True, False, False]
        """
        return _where(self.tree, True, columns)


@cache
def known_facts() -> dict[str, Kind]:
    """Name everything that a rule may speak of: every feature."""
    from features import transforms  # noqa: F401 (registers the features)
    from features.catalogue.entries import CATALOGUE

    return {name: "word" if feature.is_text else "number" for name, feature in CATALOGUE.items()}


def parse_rule(text: str, known: Mapping[str, Kind]) -> Rule:
    """Read a rule.

    Raises
    ------
    ContractError
        With every place that is wrong.
    """
    tree = _parse(text)
    faults = [f"at character {_place(text, node)}, {fault}" for node, fault in _faults(tree, known)]
    if faults:
        raise ContractError(f"the rule {text!r}: {'; '.join(faults)}")
    return Rule(text, tree, frozenset(node.id for node in ast.walk(tree) if isinstance(node, ast.Name)))


def _parse(text: str) -> ast.expr:
    if len(text) > LONGEST:
        raise ContractError(f"a rule of {len(text):,} characters came, at most {LONGEST:,} were wanted")
    for place, character in enumerate(text, start=1):
        if character in _NEVER:
            raise ContractError(f"the rule {text!r}: at character {place}, {character!r} has no meaning")
    began = text.lstrip()
    try:
        return ast.parse(began, mode="eval").body
    except SyntaxError as error:
        place, said = error.offset or len(began) + 1, error.msg  # no offset: it ends too early
    except (ValueError, MemoryError, RecursionError):
        place, said = 1, "it is nested too deeply"
    raise ContractError(f"the rule {text!r}: at character {place + _indent(text)}, {said}")


def _faults(node: ast.expr, known: Mapping[str, Kind]) -> Iterator[Fault]:
    match node:
        case ast.BoolOp(values=parts):
            for part in parts:
                yield from _faults(part, known)
        case ast.UnaryOp(op=ast.Not(), operand=part):
            yield from _faults(part, known)
        case ast.Compare(left=left, ops=ops, comparators=others):
            for (a, b), op in zip(pairwise([left, *others]), ops, strict=True):
                yield from _pair_faults(a, op, b, known)
        case _:
            yield node, "a comparison was wanted, such as recency_days > 28 or tier == 'gold'"


def _pair_faults(a: ast.expr, op: ast.cmpop, b: ast.expr, known: Mapping[str, Kind]) -> Iterator[Fault]:
    sides = [a, *_listed(b)] if isinstance(op, _LISTED) else [a, b]
    faults = [(side, fault) for side in sides if (fault := _side_fault(side, known))]
    if faults:
        yield from faults
        return
    kinds = {_kind(side, known) for side in sides}
    if isinstance(op, _LISTED):
        if not isinstance(a, ast.Name) or any(isinstance(side, ast.Name) for side in sides[1:]):
            yield b, "a name, in, and a list of numbers or words was wanted, such as tier in ('gold', 'silver')"
    elif type(op) not in _COMPARISONS:
        yield b, "'is' compares nothing here; == was wanted"
    elif not any(isinstance(side, ast.Name) for side in sides):
        yield a, "nothing of the member is compared; a name was wanted on one side"
    elif kinds == {"word"} and not isinstance(op, _OF_WORDS):
        yield b, "words have no order; == or != was wanted"
    if len(kinds) > 1:
        yield b, "a number is compared with a word; put words in quotes, and numbers in none"


def _side_fault(side: ast.expr, known: Mapping[str, Kind]) -> str | None:
    if isinstance(side, ast.Name) and side.id not in known:
        like = difflib.get_close_matches(side.id, known, n=1)
        hint = f"did you mean {like[0]}?" if like else "`holdfast features list` names them all"
        return f"{side.id} is no feature; {hint}"
    if isinstance(side, ast.Name) or _literal(side) is not None:
        return None
    return "a name, a number or a word in quotes was wanted"


def _kind(side: ast.expr, known: Mapping[str, Kind]) -> Kind:
    if isinstance(side, ast.Name):
        return known[side.id]
    return "word" if isinstance(_literal(side), str) else "number"


def _listed(node: ast.expr) -> list[ast.expr]:
    """Give a list's members; in parentheses, one alone is no tuple to Python."""
    return node.elts if isinstance(node, ast.Tuple) and node.elts else [node]


def _literal(node: ast.expr) -> str | float | None:
    match node:
        case ast.Constant(value=str() as word):
            return word
        case ast.Constant(value=bool()):
            return None
        case ast.Constant(value=int() | float() as number) if number <= _LARGEST:
            return float(number)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant() as positive):
            size = _literal(positive)
            return -size if isinstance(size, float) else None
        case _:
            return None


def _place(text: str, node: ast.expr) -> int:
    """Count characters, from 1; Python counts bytes, from 0, after what the text begins with."""
    return len(text.lstrip().encode()[: node.col_offset].decode()) + _indent(text) + 1


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip())


def _where(node: ast.expr, wanted: bool, columns: Columns) -> Flags:  # noqa: FBT001 (which of two values is looked for)
    """Say for whom a part is known to be true, or known to be false."""
    match node:
        case ast.UnaryOp(operand=part):
            return _where(part, not wanted, columns)
        case ast.BoolOp(op=op, values=parts):
            found = [_where(part, wanted, columns) for part in parts]
            every = isinstance(op, ast.And)
        case ast.Compare(left=left, ops=ops, comparators=others):
            pairs = zip(pairwise([left, *others]), ops, strict=True)
            found = [_compare(a, op if wanted else _OPPOSITES[type(op)](), b, columns) for (a, b), op in pairs]
            every = True
        case _:  # `parse_rule` lets nothing else pass
            raise AssertionError(node)
    return reduce(np.logical_and if every == wanted else np.logical_or, found)


def _compare(a: ast.expr, op: ast.cmpop, b: ast.expr, columns: Columns) -> Flags:
    if isinstance(op, ast.In):
        return reduce(np.logical_or, [_compare(a, ast.Eq(), one, columns) for one in _listed(b)])
    if isinstance(op, ast.NotIn):
        return reduce(np.logical_and, [_compare(a, ast.NotEq(), one, columns) for one in _listed(b)])
    found = _COMPARISONS[type(op)](_values(a, columns), _values(b, columns))
    named = [side for side in (a, b) if isinstance(side, ast.Name)]
    # what is missing differs from everything, and two missing words are equal; any other comparison with it is false
    if isinstance(op, ast.NotEq) or len(named) > 1:
        found = reduce(np.logical_and, [_there(columns[side.id]) for side in named], found)
    return np.asarray(found, dtype=np.bool_)


def _values(side: ast.expr, columns: Columns) -> NDArray[Any]:
    if isinstance(side, ast.Name):
        return columns[side.id]
    value = _literal(side)
    return np.asarray(value, dtype=object if isinstance(value, str) else np.float64)


def _there(column: NDArray[Any]) -> Flags:
    return np.asarray(np.not_equal(column, _NOTHING) if column.dtype == object else ~np.isnan(column))
