"""The world: what a service may not make up inside."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import numpy as np


@dataclass(frozen=True)
class World:
    """Hold the time, ids and chance."""

    clock: Callable[[], datetime]
    new_id: Callable[[], str]
    rng: np.random.Generator
