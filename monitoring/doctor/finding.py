"""What was found of one part: what it is set to, whether that is well, and how to mend it where it is not."""

from collections.abc import Sequence
from dataclasses import dataclass

from features.sheet import Sheet


@dataclass(frozen=True)
class Finding:
    """Hold what was found; `mend` is empty where nothing is to be mended."""

    part: str
    setting: str  # with no user and no password in it
    found: str
    mend: str = ""

    @property
    def well(self) -> bool:
        """Whether it may stay as it is."""
        return not self.mend


def findings_sheet(findings: Sequence[Finding]) -> Sheet:
    """Show everything, and below it what is to be mended."""
    ill = [one for one in findings if not one.well]
    rows = tuple((one.part, one.setting, "well" if one.well else "ill", one.found) for one in findings)
    notes = tuple(f"{one.part}: {one.mend}" for one in ill)
    return Sheet(f"{len(ill)} of {len(rows)} are ill" if ill else "all is well", _HEADER, rows, notes)


_HEADER = ("part", "set to", "is", "found")
