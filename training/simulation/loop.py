"""The closed loop: every policy lives the same waves by the same chance, and its value is that of the stated truth."""

from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.programme import Experiment
from features.sheet import Progress, unseen
from features.world.company import Company, found_company
from features.world.history import history
from features.world.law import World
from features.world.members import Members
from features.world.respond import respond
from features.world.tables import member_ids
from features.world.truth import expected_outcome
from training.judging.estimators import snips
from training.judging.findings import Gate
from training.ope import fixed
from training.policy import MODEL, Arms, arms, draw
from training.policy import RANDOM as RANDOM_ARM
from training.simulation import rivals
from training.simulation.ceiling import find_ceiling
from training.simulation.experience import Experience, askable, experience_of, history_of
from training.simulation.learning import Learned, judge, learn, silence
from training.simulation.rivals import Policy, Wave, within_budget

Floats = NDArray[np.float64]

NO_CONTACT: Final = "no contact"
RANDOM: Final = "random"
BEST_FIXED: Final = "best fixed, in hindsight"
FIXED_BY_LOG: Final = "best fixed, by the log"
RESPONSE: Final = "response model"
CHURN: Final = "churn score, top fifth"
STATIC: Final = "model, no exploration"
LOOP: Final = "model, the loop"
CEILING: Final = "all that features show"
ORACLE: Final = "oracle"
WIN_BACK: Final = "win_back"  # what a churn campaign sends, where there is such an offer


@dataclass(frozen=True)
class Flight:
    """Say what is simulated.

    Parameters
    ----------
    world : its history is lived first, with randomised contacts; the rounds follow it
    rounds : waves of decisions
    budget : minor units that a round may cost in expectation, contacts and redemptions
    budget_share : instead, a share of what the oracle would spend in the first round if money were not short
    experiment : hold-out, random arm, exploration and floor of the loop
    gate : of its money limit alone use is made here
    """

    world: World
    rounds: int = 5
    budget: float | None = None
    budget_share: float | None = None
    experiment: Experiment = field(default_factory=Experiment)
    gate: Gate = field(default_factory=Gate)


@dataclass(frozen=True)
class Round:
    """Hold what one policy did in one round; money in minor units, in expectation by the truth, of its own members."""

    policy: str
    number: int  # from 1
    decisions: int
    profit: float  # of all members: margin less redemption and contact costs
    gain: float  # per decision, over no contact
    best_fixed_gain: float  # what the best fixed offer would have gained
    oracle_gain: float
    learned_gain: float  # what the model would have gained without hold-out and exploration; else as `gain`
    contacted: float  # share of the decisions
    spend: float  # contacts and redemptions
    rows: int = 0  # decisions that were learned from
    promoted: bool | None = None  # whether the challenger that was trained after the round was; None without one
    reasons: tuple[str, ...] = ()  # the gate's

    @property
    def regret(self) -> float:
        """What the oracle would have earned more."""
        return self.decisions * (self.oracle_gain - self.gain)

    @property
    def share(self) -> float:
        """Give the share of the oracle's lead over the best fixed offer; not a number where it has none."""
        lead = self.oracle_gain - self.best_fixed_gain
        return (self.learned_gain - self.best_fixed_gain) / lead if lead > 0 else float("nan")


@dataclass(frozen=True)
class Life:
    """Hold one policy and the world as it has made it."""

    name: str
    policy: Policy
    members: Members
    company: Company | None = None  # None where the policy reads nothing
    experience: Experience | None = None  # None where nothing more is learned
    champion: Learned | None = None


@dataclass(frozen=True)
class Start:
    """Hold the world at the end of its history."""

    members: Members
    company: Company
    experience: Experience
    arm: Arms  # (n_members,)


def simulate(flight: Flight, rng: np.random.Generator, progress: Progress = unseen) -> list[Round]:
    """Let every policy live every round; give what each did, round by round."""
    living, learning, *chance = rng.spawn(2 + flight.rounds)
    steps = flight.rounds + 1
    progress("living and learning", 0, steps)
    start = _start(flight, living)
    lives, rows = _lives(flight, start, learning), []
    budget = _budget(flight, start)
    for number, stream in enumerate(chance, 1):
        progress("living and learning", number, steps)
        lived = [_live(flight, life, number, stream, budget) for life in lives]
        taught = [_learn(flight, life, row, start.arm, learning) for life, row in lived]
        lives = [life for life, _ in taught]
        rows += [row for _, row in taught]
    progress("living and learning", steps, steps)
    return rows


def _start(flight: Flight, rng: np.random.Generator) -> Start:
    world, told = flight.world, flight.experiment
    chunk = history(world, rng)
    company = found_company(world, chunk.tables)
    arm = arms(
        member_ids(chunk.members).to_pylist(), salt=told.salt, hold_out=told.hold_out, random_arm=told.random_arm
    )
    return Start(chunk.members, company, history_of(world, chunk.members, company), arm)


def _lives(flight: Flight, start: Start, rng: np.random.Generator) -> list[Life]:
    """Let every policy begin where the history ends."""
    world, log = flight.world, start.experience
    margin = float(start.company.tables["transactions"]["margin"].to_numpy().mean())
    best = _best_by_log(log, world)
    names = world.treatments[1:]
    won_back = 1 + names.index(WIN_BACK) if WIN_BACK in names else best
    ceiling = find_ceiling(world, start.members, log)
    challenger = learn(log, world, floor=flight.experiment.floor, rng=rng)
    champion = challenger if judge(log, world, challenger, None, gate=flight.gate).promote else None
    read = partial(Life, members=start.members, company=start.company)
    return [
        Life(NO_CONTACT, rivals.no_contact, start.members),
        Life(RANDOM, rivals.at_random, start.members),
        Life(FIXED_BY_LOG, partial(rivals.always, treatment=best), start.members),
        Life(BEST_FIXED, rivals.best_fixed, start.members),
        read(RESPONSE, partial(rivals.by_response, learned=challenger, margin=margin)),
        read(CHURN, partial(rivals.by_churn, booster=silence(log), offer=won_back)),
        read(STATIC, _serve(flight, champion, start.arm, exploration=0.0), champion=champion),
        read(LOOP, _serve(flight, champion, start.arm), experience=log, champion=champion),
        read(CEILING, ceiling),
        Life(ORACLE, rivals.oracle, start.members),
    ]


def _serve(flight: Flight, champion: Learned | None, arm: Arms, *, exploration: float | None = None) -> Policy:
    """Serve a champion; without exploration nobody is in the random arm, and the hold-out stays."""
    told = flight.experiment
    served = partial(rivals.by_model, learned=champion, salt=told.salt)
    if exploration is None:
        return partial(served, arm=arm, exploration=told.exploration, regret=told.regret)
    return partial(served, arm=np.where(arm == RANDOM_ARM, MODEL, arm), exploration=exploration)


def _budget(flight: Flight, start: Start) -> float | None:
    """Give what a round may cost, in minor units."""
    if flight.budget_share is None:
        return flight.budget
    wave = _wave(flight, Life(ORACLE, rivals.oracle, start.members), flight.world.waves, None)
    return flight.budget_share * float((rivals.oracle(wave)[:, 1:] * wave.cost).sum())


def _wave(flight: Flight, life: Life, number: int, budget: float | None) -> Wave:
    asked = askable(life.members, number)
    wave = Wave(flight.world, number, life.members, asked, np.empty((len(asked), 0), dtype=np.float32), budget)
    if life.company is None:
        return wave
    X = life.company.features(number).loc[wave.ids()].to_numpy(dtype=np.float32)
    return replace(wave, X=X)


def _live(
    flight: Flight, life: Life, number: int, stream: np.random.Generator, budget: float | None
) -> tuple[Life, Round]:
    """Decide, and let the members respond; from the same stream two policies meet the same chance."""
    drawing, living = deepcopy(stream).spawn(2)
    world = flight.world
    wave = _wave(flight, life, world.waves + number - 1, budget)
    probabilities = within_budget(wave, life.policy(wave))
    treatment = draw(probabilities, drawing.random(len(life.members))[wave.asked])
    decisions = pd.DataFrame(
        {
            "member_id": wave.ids(),
            "treatment": np.asarray(world.treatments, dtype=object)[treatment],
            "propensity": probabilities[np.arange(len(treatment)), treatment],
        }
    )
    answer = respond(world, life.members, decisions, wave=wave.number, rng=living)
    row = _measure(life, wave, probabilities, number)
    after = replace(life, members=answer.members)
    if life.company is not None:
        after = replace(after, company=life.company.after(answer, wave.number))
    if life.experience is not None:
        known = pd.DataFrame(wave.X, index=decisions["member_id"])
        seen = experience_of(world, life.members, answer.tables, known, wave.number)
        after = replace(after, experience=life.experience.plus(seen))
    return after, row


def _measure(life: Life, wave: Wave, probabilities: Floats, number: int) -> Round:
    """Value what was done by the truth, beside what could have been done with the same members."""
    costs = np.concatenate([[0.0], wave.contact_cost])
    outcome = expected_outcome(wave.world, wave.members, wave.number)
    net = outcome[wave.asked] - costs
    gain = net - net[:, :1]

    def mean_gain(policy: Floats) -> float:
        return float((policy * gain).sum(axis=1).mean())

    told = probabilities
    if life.name in (STATIC, LOOP):
        everybody = np.full(len(wave.members), MODEL)
        told = within_budget(wave, rivals.by_model(wave, life.champion, everybody, exploration=0.0))
    return Round(
        policy=life.name,
        number=number,
        decisions=len(wave.asked),
        profit=float(outcome[:, 0].sum() + (probabilities * gain).sum()),
        gain=mean_gain(probabilities),
        best_fixed_gain=mean_gain(within_budget(wave, rivals.best_fixed(wave))),
        oracle_gain=mean_gain(within_budget(wave, rivals.oracle(wave))),
        learned_gain=mean_gain(told),
        contacted=float(1 - probabilities[:, 0].mean()),
        spend=float((probabilities[:, 1:] * wave.cost).sum()),
    )


def _learn(flight: Flight, life: Life, row: Round, arm: Arms, rng: np.random.Generator) -> tuple[Life, Round]:
    """Train a challenger on all that was logged so far, let the gate judge it, and promote it or keep the champion."""
    if life.experience is None:
        return life, row
    challenger = learn(life.experience, flight.world, floor=flight.experiment.floor, rng=rng)
    judged = judge(life.experience, flight.world, challenger, life.champion, gate=flight.gate)
    champion = challenger if judged.promote else life.champion
    after = replace(life, champion=champion, policy=_serve(flight, champion, arm))
    return after, replace(row, rows=len(life.experience), promoted=judged.promote, reasons=judged.reasons)


def _best_by_log(log: Experience, world: World) -> int:
    """Choose the offer that the randomised log says is best for all, by its treatment's number."""
    cost = np.array([0.0, *[float(offer.contact_cost) for offer in world.offers]])
    everybody = np.ones((len(log), len(world.offers)), dtype=np.bool_)
    values = [snips(log.log(cost), fixed(1 + offer, everybody)).mean() for offer in range(len(world.offers))]
    return 1 + int(np.argmax(values))
