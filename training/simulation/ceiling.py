"""How far features tell members apart: true effects and redemptions, learned from them without noise of outcomes.

The oracle knows traits that no table shows. What is left of its lead after this is not the learners' to earn.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from features.world.law import World
from features.world.members import Members
from features.world.truth import effects, redemption_probability
from training.learning.learners import BINS, Trees, grow
from training.simulation.experience import Experience
from training.simulation.rivals import Wave, best_of

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

HALVES: Final = 2
DEEP: Final = Trees(depth=6, rate=0.1, rounds=150, leaf_share=0.0005)  # there is no noise to be wary of


@dataclass(frozen=True)
class Ceiling:
    """Hold for each half of the members the boosters of the other: nobody's own truth is remembered."""

    boosters: list[list[xgb.Booster]]

    def __call__(self, wave: Wave) -> Floats:
        """Send what is best by all that features tell of the truth."""
        said = np.empty((len(wave.asked), 2 * len(wave.world.offers)))
        for half, boosters in enumerate(self.boosters):
            rows = wave.asked % HALVES == half
            said[rows] = np.column_stack([booster.inplace_predict(wave.X[rows]) for booster in boosters])
        effect, redemption = np.hsplit(said, 2)
        return best_of(wave, effect - wave.contact_cost, wave.costs(redemption.clip(0.0, 1.0)))


def find_ceiling(world: World, members: Members, experience: Experience) -> Ceiling:
    """Regress the true effects and redemptions of past waves on their features."""
    truth = np.empty((len(experience), 2 * len(world.offers)))
    for wave in np.unique(experience.wave).tolist():
        rows = experience.wave == wave
        known = np.hstack([effects(world, members, wave), redemption_probability(world, members, wave)])
        truth[rows] = known[experience.member[rows]]
    return Ceiling([_learn(experience, truth, experience.member % HALVES != half) for half in range(HALVES)])


def _learn(experience: Experience, truth: Floats, rows: Flags) -> list[xgb.Booster]:
    cut = xgb.QuantileDMatrix(experience.X[rows], max_bin=BINS, nthread=1)
    return [grow(cut, effect, DEEP) for effect in truth[rows].T]
