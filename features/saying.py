"""A sentence as what it is made of, so that it is written down once and said in the language of whoever reads it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Self


@dataclass(frozen=True)
class Saying:
    """Hold the English words of a sentence, and what fills its braces: text that is no language's, or a saying.

    The words name the sentence too: a catalogue of another language lists them beside its own.
    """

    words: str
    filled: "Mapping[str, str | Saying]" = field(default_factory=dict)

    def __str__(self) -> str:
        """Say it in English.

        >>> str(saying("{column} is gone", column=saying("the {what}", what="spend")))
        'the spend is gone'
        """
        return self.words.format_map(self.filled)

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Self:
        """Read back what `asdict` gave."""
        values = told["filled"].items()
        return cls(told["words"], {name: cls.read(one) if isinstance(one, Mapping) else one for name, one in values})


def saying(words: str, /, **filled: str | Saying) -> Saying:
    """Make a saying."""
    return Saying(words, filled)


def day(moment: date) -> Saying:
    """Say a day.

    >>> str(day(date(2026, 3, 2)))
    '2026-03-02'
    """
    parts = {"year": moment.year, "month": moment.month, "day": moment.day}
    return Saying("{year}-{month:0>2}-{day:0>2}", {name: str(part) for name, part in parts.items()})
