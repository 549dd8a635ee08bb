"""How much memory queries may take, of what the machine has or the container was given, and where the rest goes."""

import os
from pathlib import Path
from typing import Final

from features.files import part_of

SHARE: Final = 4  # the part of it that a query may take: beside it stand the parts that are read and written
LIMITS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

Settings = dict[str, str | bool | int | float | list[str]]


def query_memory(limits: tuple[Path, ...] = LIMITS) -> int:
    """Give what a query may take, in bytes: a quarter of the least that anything allows."""
    allowed = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in limits:
        said = path.read_text().strip() if path.exists() else ""
        allowed += [int(said)] if said.isdigit() else []  # 'max': no limit
    return min(allowed) // SHARE


def within(folder: Path, memory: int | None = None) -> Settings:
    """Give settings of DuckDB by which queries keep to their memory, and spill into a folder; a killed one's is swept.

    Its own are four fifths of the machine, beside whatever else runs on it, and `.tmp` wherever one stands.
    """
    return {"memory_limit": f"{memory or query_memory()}B", "temp_directory": str(part_of(folder / "spilled"))}
