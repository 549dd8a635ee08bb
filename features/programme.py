"""The programme's settings: one file, `holdfast.toml`, every key with a default and checked when read."""

import tomllib
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from features.engine import Engine
from features.errors import ContractError

Days = Annotated[int, Field(ge=1, le=3660)]
Share = Annotated[float, Field(ge=0, le=1)]
Stage = Literal["new", "active", "dormant", "lapsed", "returned"]
Objective = Literal["profit", "retained_members", "retained_value"]
Metric = Literal[
    "sales", "margin", "sales_per_member", "retained",
    "active_share", "frequency", "basket", "dormant_share", "lapsed_share", "contacts", "redemptions",
    "members", "joined", "buyers",
]  # fmt: skip
Length = Literal["week", "month", "quarter"]  # of a period of the tree


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Stages(_Settings):
    """Say where one life cycle stage ends and the next begins, in days."""

    new: Days = Field(56, description="a member is new for so long after joining")
    dormant: Days = Field(28, description="no purchase for so long: dormant")
    lapsed: Days = Field(84, description="no purchase for so long: lapsed; back after such a gap: returned")

    @model_validator(mode="after")
    def _ordered(self) -> "Stages":
        if self.dormant >= self.lapsed:
            raise ValueError(f"stages.dormant ({self.dormant}) has to be below stages.lapsed ({self.lapsed})")
        return self


class Tier(_Settings):
    """Name a tier and the spend that reaches it, in minor units."""

    name: str
    spend: Annotated[int, Field(ge=0)]


class Events(_Settings):
    """Say which kinds of events count as what."""

    visit: tuple[str, ...] = ("login", "visit")
    view: tuple[str, ...] = ("view",)
    support: tuple[str, ...] = ("support",)
    survey: tuple[str, ...] = ("survey",)
    points_earned: tuple[str, ...] = ("points_earned",)
    points_burnt: tuple[str, ...] = ("points_burnt",)
    points_expired: tuple[str, ...] = ("points_expired",)


class Experiment(_Settings):
    """Say how the policy keeps learning: who is held out, and how often it tries something else."""

    hold_out: Share = Field(0.05, description="share of members who never get an offer, by a hash of id and salt")
    exploration: Share = Field(0.10, description="share of decisions drawn at random from the eligible treatments")
    salt: str = Field("holdfast", description="changing it draws another hold-out group")
    floor: Annotated[float, Field(ge=0, le=5)] = Field(
        0.5,
        description="an offer is sent if its net value is above so many standard errors of its uplift: 0 acts on every "
        "estimate, 0.5 halves what is lost on noise and costs a twentieth of what real differences earn",
    )
    random_arm: Share = Field(0.02, description="share of members whose treatment is always drawn evenly, by a hash")
    regret: Annotated[float, Field(ge=0)] | None = Field(
        None, description="minor units that exploring may cost a decision at most, as expected; none: no such limit"
    )


class Economics(_Settings):
    """Say what members cost, in minor units, where no table says it."""

    acquisition_cost: Annotated[int, Field(ge=0)] | None = Field(
        None, description="what winning a member cost (CAC), where `members` has no such column; none: not known"
    )


class Policy(_Settings):
    """Say what decisions are for, and what none of them may do beside what the table of offers says."""

    objective: Objective = Field("profit", description="what the best offer is the best for")
    member_worth: Annotated[int, Field(gt=0)] | None = Field(
        None, description="what a retained member is worth, in minor units; `retained_members` needs it"
    )
    channels: tuple[str, ...] | None = Field(None, description="the channels that are open; none named: all")
    excluded_offers: tuple[str, ...] = Field((), description="offers that are not sent for now")
    min_days_between_contacts: Annotated[int, Field(ge=0)] = Field(
        0, description="days without any contact after each one; an offer may ask for more"
    )
    contacts_per_period: Annotated[int, Field(ge=1)] | None = Field(None, description="no more contacts in a period")
    period_days: Days = Field(28, description="a period is the last so many days")
    cost_caps: dict[Stage, Annotated[float, Field(ge=0)]] = Field(
        {}, description="life cycle stage -> share of [economics] acquisition_cost an offer's expected cost may reach"
    )
    point_cost: Annotated[float, Field(ge=0)] = Field(0.0, description="what a point costs, in minor units")
    points_used: Share = Field(1.0, description="share of granted points that are ever used")
    fallback: str = Field("control", description="what is done where nothing is known: control, or an offer")


class Campaign(_Settings):
    """Say what one campaign may spend and send, and when; a decision names it by its id."""

    budget: Annotated[int, Field(gt=0)] | None = Field(None, description="expected cost of all contacts, minor units")
    starts: AwareDatetime | None = Field(None, description="nothing is sent before")
    ends: AwareDatetime | None = Field(None, description="nothing is sent from then on; the budget is paced until then")
    offers: tuple[str, ...] | None = Field(None, description="the only ones that it sends; none named: all")
    objective: Objective | None = Field(None, description="another one than the policy's")
    attribution_days: Days | None = Field(None, description="outcomes count for so many days; none: the horizon")

    @model_validator(mode="after")
    def _ordered(self) -> "Campaign":
        if self.starts and self.ends and self.starts >= self.ends:
            raise ValueError(f"ends ({self.ends}) has to be after starts ({self.starts})")
        return self


class Alerts(_Settings):
    """Say who is told when something is wrong; an address may carry a password or a token, so that it is not shown."""

    targets: tuple[str, ...] = Field(
        (),
        repr=False,
        description="Apprise addresses, such as slack://..., mailto://..., wecombot://..., dingtalk://..., feishu://...",
    )
    alertmanager: Annotated[str, Field(pattern="^https?://")] | None = Field(
        None, repr=False, description="Prometheus' Alertmanager, such as http://localhost:9093"
    )
    quiet: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")] | None = Field(
        None, description="local time in which only what is critical is sent, such as 22:00-07:00"
    )
    remind_hours: Annotated[int, Field(ge=1)] = Field(
        168, description="what goes on firing is told again after so long"
    )


class Level(_Settings):
    """Say what is done about a figure that stays beyond its threshold: whom the policy decides on, and within what."""

    name: Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,40}$")]
    after: Annotated[int, Field(ge=1, le=520)] = Field(
        1, description="periods in a row beyond the threshold, the last one counted"
    )
    audience: str | None = Field(
        None,
        description="a segment, stage or tier, or a rule, as `holdfast decide` takes it; none: the active",
    )
    campaign: str | None = Field(None, description="one of [campaigns]: its offers, dates and budget hold")
    budget: Annotated[int, Field(gt=0)] | None = Field(None, description="of all contacts' expected cost, minor units")


class Trigger(_Settings):
    """Say which figure is watched, and what is done, in up to three steps, while it is beyond its threshold."""

    metric: Metric
    below: float | None = None
    above: float | None = None
    period: Length = "week"
    window: Annotated[int, Field(ge=1, le=52)] = Field(1, description="the mean of so many periods is what counts")
    cooldown_days: Annotated[int, Field(ge=1)] = Field(28, description="a level acts again after so long, not before")
    levels: Annotated[tuple[Level, ...], Field(min_length=1, max_length=3)]

    @model_validator(mode="after")
    def _sensible(self) -> "Trigger":
        if (self.below is None) == (self.above is None):
            raise ValueError("one of below and above is wanted")
        after, names = [level.after for level in self.levels], {level.name for level in self.levels}
        if after != sorted(set(after)) or len(names) < len(after):
            raise ValueError("every level needs a name of its own, and more periods than the one before")
        return self

    @property
    def threshold(self) -> float:
        """What the figure is held against."""
        return self.below if self.below is not None else float(self.above or 0.0)

    @property
    def side(self) -> str:
        """On which side of it the figure acts."""
        return "below" if self.below is not None else "above"


class Cure(_Settings):
    """Say what a verdict may start by itself."""

    train: bool = Field(False, description="drift, or a promise that was not kept, trains a challenger for the gate")
    promote: bool = Field(False, description="a challenger that passes the gate becomes champion; else people promote")
    cooldown_days: Annotated[int, Field(ge=1)] = Field(7, description="no second training by itself within so long")


class Serving(_Settings):
    """Say how decisions are served."""

    workers: Annotated[int, Field(ge=1, le=64)] = Field(
        1, description="processes that answer; one keeps up with some thousand decisions a second on one processor"
    )
    deadline_ms: Annotated[int, Field(ge=10, le=10_000)] = Field(
        100, description="an answer is wanted so soon, where the request says nothing else: Request-Deadline-Ms"
    )
    feature_days: Days = Field(
        28, description="features older than this are not decided by; what stands in for them is"
    )
    in_flight: Annotated[int, Field(ge=1, le=10_000)] = Field(
        128,
        description="requests that a process answers at a time, of which one counts once more for every eight members; "
        "who comes above it is told to come back (429)",
    )
    requests_per_second: Annotated[int, Field(ge=1)] | None = Field(
        None, description="what a client may ask of one process whose key does not say; none: as much as it likes"
    )
    stop_seconds: Annotated[float, Field(ge=0, le=300)] = Field(
        0.5,
        description="when told to stop, the service says for so long that it is not ready and still answers: longer "
        "than a load balancer takes to see it",
    )


class Retention(_Settings):
    """Say for how many days what is held of members is kept; `holdfast retention` lets go of what is older."""

    decisions: Annotated[int, Field(ge=30)] = Field(
        730, description="of the log, contacts too: a decision older than that is nobody's, and still counts"
    )
    outcomes: Annotated[int, Field(ge=30)] = Field(
        730, description="those of decisions go with them; those of none, or of other systems' contacts, by themselves"
    )
    idempotency: Annotated[int, Field(ge=1, le=30)] = Field(
        30, description="so long a repeated Idempotency-Key gives the same answer; after 30 days none does anyhow"
    )
    live: Annotated[int, Field(ge=1)] = Field(
        180, description="purchases and events that came live and that no ingest has brought"
    )
    batches: Annotated[int, Field(ge=30)] = Field(
        730, description="decisions on whole audiences, likewise nobody's then"
    )
    reports: Annotated[int, Field(ge=1)] = Field(365, description="pages for people, which can be made again")
    shadow: Annotated[int, Field(ge=1)] = Field(90, description="what a shadow release would have decided")
    alerts: Annotated[int, Field(ge=1)] = Field(365, description="alerts that are over, and what was told about them")


class Programme(_Settings):
    """Describe one membership programme.

    >>> Programme(timezone="Europe/Berlin").horizon_days
    28
    """

    name: str = "programme"
    timezone: str = Field("UTC", description="where a day begins and ends")
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "USD"
    currency_digits: Annotated[int, Field(ge=0, le=4)] = Field(2, description="100 cents to the dollar: 2; yen: 0")
    margin_rate: Share = Field(0.25, description="margin as a share of sales, where transactions bring no margin")
    churn: Literal["lapse", "contract"] = Field(
        "lapse", description="what churn is: no purchase within the horizon, or a subscription that ends within it"
    )
    horizon_days: Days = Field(28, description="what is predicted: the next so many days")
    lead_days: Annotated[int, Field(ge=0)] = Field(
        0, description="early warning: the horizon begins so many days after the prediction, which leaves time to act"
    )
    grace_days: Annotated[int, Field(ge=0)] = Field(
        7, description="contracts: a subscription renewed so many days after its end never ended"
    )
    activity_days: Days = Field(56, description="who is scored: members with a purchase in the last so many days")
    history_days: Days = Field(84, description="the first snapshot has so many days behind it, to fill every window")
    snapshot_days: Days = Field(7, description="a snapshot of the features every so many days")
    test_days: Days = Field(56, description="models are judged by the last so many days of which labels are known")
    tiers: tuple[Tier, ...] = Field(
        (Tier(name="bronze", spend=0), Tier(name="silver", spend=50_000), Tier(name="gold", spend=150_000)),
        description="from the lowest to the highest",
    )
    tier_days: Days = Field(364, description="the spend of so many days makes the tier")
    points_expire_after_days: Days = Field(364, description="points expire so many days after they were earned")
    tracked_offers: tuple[str, ...] = Field((), max_length=3, description="offers whose last contact is a feature")
    tracked_categories: tuple[str, ...] = Field((), max_length=3, description="categories whose share is a feature")
    online_channels: tuple[str, ...] = Field(("online", "web", "app"), description="channels that count as online")
    seed: int = 2017
    stages: Stages = Stages()
    events: Events = Events()
    experiment: Experiment = Experiment()
    economics: Economics = Economics()
    policy: Policy = Field(Policy(), exclude=True)  # of the moment: no release carries it, nor the campaigns
    campaigns: dict[str, Campaign] = Field({}, exclude=True)
    engine: Engine = Field(Engine(), exclude=True)  # of the machines, not of the programme: no release carries it
    serving: Serving = Field(Serving(), exclude=True)
    alerts: Alerts = Field(Alerts(), exclude=True)  # of the people on call, likewise
    triggers: dict[Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,40}$")], Trigger] = Field({}, exclude=True)
    cure: Cure = Field(Cure(), exclude=True)
    retention: Retention = Field(Retention(), exclude=True)  # of the law and the company, likewise
    replay_from: AwareDatetime | None = Field(
        None, description="for a programme of the past: the moment at which the service's clock starts"
    )

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError) as error:  # OSError: a folder of zones, such as 'America'
            raise ValueError(f"{name!r} is no time zone; wanted a name such as 'Europe/Berlin'") from error
        return name

    @field_validator("tiers")
    @classmethod
    def _rising(cls, tiers: tuple[Tier, ...]) -> tuple[Tier, ...]:
        spends, names = [tier.spend for tier in tiers], {tier.name for tier in tiers}
        if spends != sorted(set(spends)) or len(names) < len(tiers):
            raise ValueError("every tier has to have a name of its own, and more spend than the one before")
        return tiers

    @model_validator(mode="after")
    def _complete(self) -> "Programme":
        aims = {"policy": self.policy.objective} | {
            f"campaigns.{name}": campaign.objective for name, campaign in self.campaigns.items()
        }
        lacking = [name for name, aim in aims.items() if aim == "retained_members" and self.policy.member_worth is None]
        wanted = [f"{name}: objective retained_members needs policy.member_worth" for name in lacking]
        if self.policy.cost_caps and self.economics.acquisition_cost is None:
            wanted.append("policy.cost_caps are shares of economics.acquisition_cost, which is not set")
        wanted += [
            f"triggers.{name}: level {level.name} names campaign {level.campaign}, which is not in [campaigns]"
            for name, trigger in self.triggers.items()
            for level in trigger.levels
            if level.campaign is not None and level.campaign not in self.campaigns
        ]
        if wanted:
            raise ValueError("; ".join(wanted))
        return self

    @property
    def zone(self) -> ZoneInfo:
        """The programme's time zone."""
        return ZoneInfo(self.timezone)

    @property
    def horizon(self) -> timedelta:
        """The label window's length."""
        return timedelta(days=self.horizon_days)

    @property
    def label_days(self) -> int:
        """The days after `as_of` that have to pass before a label is known."""
        return self.lead_days + self.horizon_days + (self.grace_days if self.churn == "contract" else 0)

    def money(self, minor: float) -> str:
        """Show minor units as people write them.

        >>> Programme().money(-123456)
        '-1,234.56 USD'
        """
        return f"{minor / 10**self.currency_digits:,.{self.currency_digits}f} {self.currency}"

    def days_before(self, as_of: datetime, days: int) -> datetime:
        """Step back whole local days, so that a day of 23 or 25 hours counts as one."""
        local = as_of.astimezone(self.zone).replace(tzinfo=None) - timedelta(days=days)
        return local.replace(tzinfo=self.zone).astimezone(as_of.tzinfo)


def read_programme(path: Path) -> Programme:
    """Read `holdfast.toml`; a missing file means every default.

    Raises
    ------
    ContractError
        With every key that is wrong, what came and what was wanted.
    """
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        return Programme.model_validate(settings)
    except tomllib.TOMLDecodeError as error:
        raise ContractError(f"{path} is not TOML: {error}; mend that line") from error
    except UnicodeDecodeError as error:
        raise ContractError(f"{path} is not UTF-8: {error}; save it as UTF-8") from error
    except ValidationError as error:
        errors = error.errors()
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {_shown(e['input'])}" for e in errors)
        raise ContractError(f"{path} has {len(errors)} wrong settings: {wrong}") from None


def _shown(value: object) -> str:
    return "an address that may hold a password" if "@" in (text := repr(value)) else text
