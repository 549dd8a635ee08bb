"""Each feature's share of a margin, exact as TreeSHAP gives it, from a table that is made once.

What a leaf shares out depends on nothing of a row but which of the features on the way to it lead there. Where these
are three at most, that is eight cases a leaf: the library goes through every tree for every row, ten times as long.

Lundberg et al., "From local explanations to global understanding with explainable AI for trees", Nature Machine
Intelligence, 2020; Yang, "Fast TreeSHAP: accelerating SHAP value computation for trees", 2021.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from math import factorial, inf, prod
from typing import Any, Final

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from training.prediction import Matrix, contributions

MOST: Final = 3  # features on the way to a leaf
ROWS: Final = 16  # at once: more would not stay in the processor's cache

Shares = Callable[[Matrix], NDArray[np.float32]]
Tree = Mapping[str, Any]


@dataclass(frozen=True)
class _Way:
    """Hold what a feature has to be for a row to come to a leaf, and how often that is so."""

    low: float = -inf
    high: float = inf
    missing: bool = True
    share: float = 1.0  # of the rows it was learned from


@dataclass(frozen=True)
class _Leaf:
    value: float
    ways: Mapping[int, _Way]  # by feature


def shares_of(booster: xgb.Booster) -> Shares:
    """Give what shares out each row's margin among the features, `(n_rows, n_features)`."""
    read = json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]
    trees = read["model"]["trees"] if read["name"] == "gbtree" else []
    if not trees or any(tree["categories"] for tree in trees):
        return partial(contributions, booster)
    leaves = [leaf for tree in trees for leaf in _leaves(tree)]
    if max(len(leaf.ways) for leaf in leaves) not in range(1, MOST + 1):
        return partial(contributions, booster)
    return _Table(leaves, booster.num_features())


class _Table:
    """Look shares up: of which case a row is at every leaf, and what the leaf gives to each feature on its way then."""

    def __init__(self, leaves: list[_Leaf], n_features: int) -> None:
        width = max(len(leaf.ways) for leaf in leaves)
        padded = [[*leaf.ways.items(), *[(0, _Way())] * (width - len(leaf.ways))] for leaf in leaves]
        feature = np.array([[feature for feature, _ in ways] for ways in padded])  # (n_leaves, width)
        conditions = np.array([[(way.low, way.high, way.missing) for _, way in ways] for ways in padded])
        self._low, self._high = conditions[..., :2].transpose(2, 1, 0).reshape(2, -1).astype(np.float32)
        self._missing = conditions[..., 2].T.ravel() == 1
        self._feature = feature.T.ravel()  # (width * n_leaves,), as the conditions on it
        self._given = np.concatenate([_given(leaf, width) for leaf in leaves]).ravel()
        self._steps = width * np.exp2(np.arange(width, dtype=np.float32))  # in `_given`, by what leads there
        order = np.argsort(feature.ravel(), kind="stable")
        self._leaf, place = np.divmod(order, width)
        self._first = ((self._leaf << width) * width + place).astype(np.int32)
        self._used, self._starts = np.unique(feature.ravel()[order], return_index=True)
        self._shape = (width, len(leaves))
        self._n_features = n_features

    def __call__(self, X: Matrix) -> NDArray[np.float32]:
        shares = np.zeros((len(X), self._n_features), dtype=np.float32)
        for first in range(0, len(X), ROWS):
            there = X[first : first + ROWS].take(self._feature, axis=1)
            leads = ((there >= self._low) & (there < self._high)) | (np.isnan(there) & self._missing)
            case = self._steps @ leads.reshape(-1, *self._shape)  # exact: small whole numbers
            at = case.astype(np.int32).take(self._leaf, axis=1) + self._first
            shares[first : first + ROWS, self._used] = np.add.reduceat(self._given.take(at), self._starts, axis=1)
        return shares


def _leaves(tree: Tree, node: int = 0, ways: Mapping[int, _Way] | None = None) -> Iterator[_Leaf]:
    """Walk a tree; features that come again on a way are one condition."""
    ways, left, right = ways or {}, tree["left_children"][node], tree["right_children"][node]
    if left == -1:
        yield _Leaf(tree["split_conditions"][node], ways)
        return
    feature, at = tree["split_indices"][node], float(np.float32(tree["split_conditions"][node]))
    before, covered = ways.get(feature, _Way()), tree["sum_hessian"]
    for child, is_left in ((left, True), (right, False)):
        way = replace(
            before,
            low=before.low if is_left else max(before.low, at),
            high=min(before.high, at) if is_left else before.high,
            missing=before.missing and bool(tree["default_left"][node]) == is_left,
            share=before.share * covered[child] / covered[node],
        )
        yield from _leaves(tree, child, {**ways, feature: way})


def _given(leaf: _Leaf, width: int) -> NDArray[np.float64]:
    """Say what a leaf gives to each feature on its way, `(2 ** width, width)`, in each case of which lead there."""
    zero = [way.share for way in leaf.ways.values()]
    given = np.zeros((2**width, width))
    for case in range(2**width):
        one = [float(case >> place & 1) for place in range(len(zero))]
        for place in range(len(zero)):
            given[case, place] = leaf.value * (one[place] - zero[place]) * _weighed(one, zero, place)
    return given


def _weighed(one: list[float], zero: list[float], left_out: int) -> float:
    """Average, as Shapley does, how often a row comes to a leaf of which some of the other features are known."""
    others = [place for place in range(len(zero)) if place != left_out]
    total = 0.0
    for known in product((False, True), repeat=len(others)):
        size = sum(known)
        weight = factorial(size) * factorial(len(others) - size) / factorial(len(others) + 1)
        total += weight * prod(one[place] if k else zero[place] for place, k in zip(others, known, strict=True))
    return total
