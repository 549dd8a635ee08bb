"""The ledger of promotions as all machines see it: one object a change, numbered, and written only where none stands.

That makes a promotion compare-and-set across machines: of two that follow the same change, one finds its number taken.
"""

from dataclasses import dataclass
from typing import Final

from features.errors import ContractError
from features.stores.objects import Objects

FOLDER: Final = "ledger"
LINE_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class SharedLedger:
    """Read and write changes by their number, the first of which is 1."""

    objects: Objects

    def after(self, lines: tuple[bytes, ...]) -> list[bytes]:
        """Give the changes that came after those that a home has.

        Raises
        ------
        ContractError
            If the home has changes of its own.
        """
        last = len(lines)
        if lines and self._line(last) != lines[-1]:
            raise ContractError(
                f"the ledger of this home is not that of {self.objects.place}: `holdfast migrate local cluster` "
                f"carries it to an empty place; or name under [engine] in holdfast.toml the place that it is of"
            )
        found = list[bytes]()
        while (line := self._line(last + len(found) + 1)) is not None:
            found.append(line)
        return found

    def enter(self, number: int, line: bytes) -> bool:
        """Write a change; False if another has its number."""
        return self.objects.create(named(number), line)

    def _line(self, number: int) -> bytes | None:
        return self.objects.find(named(number), most=LINE_BYTES)


def named(number: int) -> str:
    """Name the object that a change is."""
    return f"{FOLDER}/{number:08d}.json"
