"""How much memory this process may take: what the machine has, or what the container it runs in was given."""

import os
from pathlib import Path
from typing import Final

SHARE: Final = 4  # the part of it that a query may take: beside it stand the parts that are read and written
LIMITS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def query_memory(limits: tuple[Path, ...] = LIMITS) -> int:
    """Give what a query may take, in bytes: a quarter of the least that anything allows."""
    allowed = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in limits:
        said = path.read_text().strip() if path.exists() else ""
        allowed += [int(said)] if said.isdigit() else []  # 'max': no limit
    return min(allowed) // SHARE
