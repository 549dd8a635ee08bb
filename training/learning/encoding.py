"""A person's frame as the matrix a booster reads: numbers as they are, words as one column per word of the training.

Trees that split on words themselves score a word they never saw as some word they did (XGBoost 3.2), so the vocabulary
is frozen here: an unseen word is none of the known ones, and a missing one is missing.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from features.errors import ContractError
from features.intake.values import read_numbers

Matrix = NDArray[np.float32]
Words = tuple[str, ...]

MOST_WORDS: Final = 32  # of one column; rarer ones are told apart by none of them
FEWEST_ROWS: Final = 5  # that a word needs to have a column


@dataclass(frozen=True)
class Encoding:
    """Hold the columns of the training, and of those that hold words, the words."""

    columns: dict[str, Words | None]  # None: numbers

    @property
    def names(self) -> Words:
        """Name the matrix's columns, as in `("tenure", "plan=monthly", "plan=yearly")`."""
        return tuple(name for column, words in self.columns.items() for name in _names(column, words))

    def matrix(self, X: pd.DataFrame | ArrayLike) -> Matrix:
        """Encode a frame, or an array with the columns in their order, as `(n_rows, len(names))`; NaN where missing.

        Raises
        ------
        ContractError
            If a column of the training is not there, or holds something else now; if a value is infinite.
        """
        matrix = np.asarray(X, dtype=np.float32) if self._is_plain(X) else self._from_frame(X)
        if np.isinf(matrix).any():
            infinite = [name for name, column in zip(self.names, matrix.T, strict=True) if np.isinf(column).any()]
            raise ContractError(f"columns {infinite} hold infinite values; wanted finite ones, or missing (NaN)")
        return matrix

    def _is_plain(self, X: pd.DataFrame | ArrayLike) -> bool:
        """Say whether there is nothing to look up: an array of numbers for as many columns of numbers."""
        numbers = isinstance(X, np.ndarray) and X.dtype.kind in "fiub" and X.shape[1:] == (len(self.columns),)
        return numbers and all(words is None for words in self.columns.values())

    def _from_frame(self, X: pd.DataFrame | ArrayLike) -> Matrix:
        frame = _frame(X) if isinstance(X, pd.DataFrame) else self._in_order(X)
        missing = [name for name in self.columns if name not in frame]
        if missing:
            raise ContractError(f"columns {missing} are missing; wanted those of the training, {list(self.columns)}")
        blocks = [
            _numbers(frame[name], name)[:, None] if words is None else _shown(frame[name], words)
            for name, words in self.columns.items()
        ]
        return np.hstack(blocks, dtype=np.float32, casting="same_kind")

    def _in_order(self, X: ArrayLike) -> pd.DataFrame:
        frame = _frame(X)
        if frame.shape[1] != len(self.columns):
            raise ContractError(f"{frame.shape[1]} columns came; wanted {len(self.columns)}, {list(self.columns)}")
        return frame.set_axis(list(self.columns), axis=1)


def fit_encoding(X: pd.DataFrame | ArrayLike) -> Encoding:
    """Read off a frame which columns hold numbers (booleans are 0 and 1) and which words, and these.

    A column of text in which every value reads as a number holds numbers.

    Raises
    ------
    ContractError
        For no rows, no columns, two columns of one name, or values that are neither numbers nor words (such as times).
    """
    frame = _frame(X)
    if frame.empty:
        raise ContractError(f"features of shape {frame.shape} came, (n_rows, n_features) was wanted")
    twice = frame.columns[frame.columns.duplicated()].tolist()
    if twice:
        raise ContractError(f"columns {twice} came twice; give each a name of its own")
    odd = [name for name, values in frame.items() if values.dtype.kind in "mMc"]
    if odd:
        raise ContractError(f"columns {odd} hold times or such; turn them into numbers, as in days before as_of")
    return Encoding({str(name): _words(values) for name, values in frame.items()})


def _frame(X: pd.DataFrame | ArrayLike) -> pd.DataFrame:
    if isinstance(X, pd.DataFrame):
        return X.set_axis(X.columns.astype(str), axis=1)
    array = np.asarray(X)
    if array.ndim != 2:  # noqa: PLR2004 (rows and columns)
        raise ContractError(f"features of shape {array.shape} came, (n_rows, n_features) was wanted")
    return pd.DataFrame(array, columns=[str(place) for place in range(array.shape[1])])


def _words(values: pd.Series) -> Words | None:
    if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return None
    said = _text(values)
    if read_numbers(said).notna().eq(said.notna()).all():
        return None
    counts = said.value_counts()
    common = counts[counts >= FEWEST_ROWS].sort_index().sort_values(ascending=False, kind="stable").index[:MOST_WORDS]
    return tuple(sorted(common))


def _text(values: pd.Series) -> pd.Series:
    """Give words without the spaces around them; nothing but spaces is missing."""
    said = values.astype("string").str.strip()
    return said.mask(said == "")


def _numbers(values: pd.Series, name: str) -> NDArray[np.float64]:
    if not (pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values)):
        said = _text(values)
        values = read_numbers(said)
        strange: list[Any] = said[values.isna() & said.notna()].unique().tolist()[:3]
        if strange:
            raise ContractError(f"column {name!r} held numbers in training and holds {strange} now; mend it")
    return values.to_numpy(dtype=np.float64, na_value=np.nan)


def _shown(values: pd.Series, words: Words) -> NDArray[np.float64]:
    said = _text(values)
    place = pd.Categorical(said, categories=list(words)).codes
    block: NDArray[np.float64] = (place[:, None] == np.arange(len(words))).astype(np.float64)
    block[said.isna().to_numpy(dtype=bool)] = np.nan
    return block


def _names(column: str, words: Words | None) -> Words:
    return (column,) if words is None else tuple(f"{column}={word}" for word in words)
