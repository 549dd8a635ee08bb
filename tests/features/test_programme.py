from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.engine import BEYOND
from features.errors import ContractError
from features.programme import Campaign, Policy, Programme, read_programme

BERLIN = Programme(timezone="Europe/Berlin")


def _settings(tmp_path, text):
    path = tmp_path / "holdfast.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_no_file_means_every_default(tmp_path):
    assert read_programme(tmp_path / "none.toml") == Programme()


def test_a_key_that_is_there_replaces_its_default_and_no_other(tmp_path):
    path = _settings(tmp_path, 'currency = "JPY"\ncurrency_digits = 0\n[stages]\nlapsed = 99\n')
    programme = read_programme(path)
    assert (programme.money(1234), programme.stages.lapsed, programme.stages.dormant) == ("1,234 JPY", 99, 28)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("horizn_days = 28", "horizn_days: .*not permitted"),
        ('horizon_days = "soon"', "horizon_days: .*integer.*'soon'"),
        ("horizon_days = 0", "horizon_days: .*greater than or equal to 1, got 0"),
        ("margin_rate = 1.5", "margin_rate: .*less than or equal to 1"),
        ("margin_rate = nan", "margin_rate: "),
        ('currency = "dollars"', "currency: .*pattern"),
        ('timezone = "Mars/Olympus"', "'Mars/Olympus' is no time zone"),
        ('timezone = "America"', "'America' is no time zone"),  # a folder of zones
        ("replay_from = 2018-01-01T00:00:00", "replay_from: .*timezone"),
        ("[stages]\ndormant = 84", r"stages.dormant \(84\) has to be below stages.lapsed \(84\)"),
        (
            '[[tiers]]\nname = "a"\nspend = 5\n[[tiers]]\nname = "b"\nspend = 5',
            "tiers: .*more spend than the one before",
        ),
        ('[[tiers]]\nname = "a"\nspend = 0\n[[tiers]]\nname = "a"\nspend = 5', "tiers: .*a name of its own"),
        ('tracked_offers = ["a", "b", "c", "d"]', "tracked_offers: .*at most 3"),
        ("[experiment]\nhold_out = -0.1", "experiment.hold_out: "),
        ("[experiment]\nregret = -1", "experiment.regret: .*greater than or equal to 0"),
        ("[policy]\nchanels = []", "policy.chanels: .*not permitted"),
        ('[policy]\nobjective = "clicks"', "policy.objective: .*'profit', 'retained_members' or 'retained_value'"),
        ('[policy]\nobjective = "retained_members"', "policy: objective retained_members needs policy.member_worth"),
        ("[policy]\ncontacts_per_period = 0", "policy.contacts_per_period: "),
        ("[policy.cost_caps]\nlost = 0.6", "policy.cost_caps.lost.*: .*'lapsed'"),
        ("[policy.cost_caps]\nlapsed = 0.6", "policy.cost_caps are shares of economics.acquisition_cost, which is not"),
        ("[campaigns.may]\nbudget = 0", "campaigns.may.budget: .*greater than 0, got 0"),
        ("[campaigns.may]\nbudget = -5", "campaigns.may.budget: .*greater than 0, got -5"),
        ("[campaigns.may]\nstarts = 2026-05-01T00:00:00", "campaigns.may.starts: .*timezone"),
        (
            "[campaigns.may]\nstarts = 2026-05-02T00:00:00Z\nends = 2026-05-01T00:00:00Z",
            "campaigns.may: .*has to be after starts",
        ),
        (
            '[campaigns.may]\nobjective = "retained_members"',
            "campaigns.may: objective retained_members needs policy.member_worth",
        ),
        ('[engine]\nonline = "postgres://host"', "engine.online: .*pattern.*postgres://host"),
        ('[engine]\nonline_prefix = "a:b"', "engine.online_prefix: .*pattern"),
        ('[engine]\nfeatures = "dask"', "engine.features: .*'duckdb' or 'spark'.*'dask'"),
        ('[engine]\nspark = "local[two]"', "engine.spark: .*pattern"),
        ('[engine]\ntracking = "mysql://host/db"', "engine.tracking: .*pattern"),
    ],
)
def test_a_wrong_setting_is_named_with_what_came(tmp_path, line, message):
    path = _settings(tmp_path, line)
    with pytest.raises(ContractError, match=f"holdfast.toml has 1 wrong settings: .*{message}"):
        read_programme(path)


def test_tables_within_the_settings_are_checked_with_the_rest(tmp_path):
    path = _settings(
        tmp_path, "horizon_days = 0\n[policy]\npoints_used = 2\n[campaigns.a]\nbudget = 0\n[campaigns.b]\nx = 1"
    )
    with pytest.raises(
        ContractError, match=r"4 wrong settings: horizon_days: .*policy.points_used: .*campaigns.a.budget.*b.x"
    ):
        read_programme(path)


def test_no_release_carries_the_policy_of_the_moment():
    told = Programme(policy=Policy(fallback="A"), campaigns={"may": Campaign(budget=1)}).model_dump(mode="json")
    assert not {"policy", "campaigns"} & set(told)
    assert Programme.model_validate(told) == Programme()


def test_a_password_in_an_address_is_never_shown(tmp_path):
    path = _settings(tmp_path, '[engine]\nonline = "redis//user:s3cret@host:6379"')
    with pytest.raises(ContractError, match="may hold a password") as refused:
        read_programme(path)
    assert "s3cret" not in str(refused.value)
    path = _settings(tmp_path, '[engine]\nonline = "redis://user:s3cret@host:6379"')
    assert "s3cret" not in f"{read_programme(path)!r} {read_programme(path).model_dump_json()}"


def test_where_things_run_is_no_part_of_a_programme(tmp_path):
    """Another engine makes no snapshot anew, and no release carries it."""
    path = _settings(tmp_path, '[engine]\nonline = "redis://host:6379/0"')
    assert read_programme(path).model_dump() == Programme().model_dump()


def test_the_profile_of_a_cluster_names_every_part_that_is_still_of_one_machine(tmp_path):
    path = _settings(tmp_path, '[engine]\nprofile = "cluster"\nonline = "redis://host:6379/0"\nspark = "mars"')
    with pytest.raises(ContractError, match="has 7 wrong settings") as refused:
        read_programme(path)
    for part in ("features", "registry", "tracking", "studies", "decisions", "objects"):
        assert f"engine.{part}: " in str(refused.value)
        assert f'wanted {part} = "' in str(refused.value)
    assert "engine.online" not in str(refused.value)


def test_what_the_profile_of_a_cluster_asks_for_is_what_it_takes(tmp_path):
    lines = "\n".join(f'{part} = "{value}"' for part, value in BEYOND.items())
    assert read_programme(_settings(tmp_path, f'[engine]\nprofile = "cluster"\n{lines}')).engine.features == "spark"


def test_every_wrong_setting_is_said_at_once(tmp_path):
    path = _settings(tmp_path, 'nam = "x"\nhorizon_days = 0\ntimezone = "Nowhere"\n[stages]\nnew = "a"\n')
    with pytest.raises(ContractError, match="has 4 wrong settings") as caught:
        read_programme(path)
    assert all(key in str(caught.value) for key in ("nam:", "horizon_days:", "timezone:", "stages.new:"))


@pytest.mark.parametrize(("content", "message"), [(b"name = ", "is not TOML"), (b'name = "caf\xe9"', "is not UTF-8")])
def test_a_file_that_is_no_toml_is_one_clear_line(tmp_path, content, message):
    path = tmp_path / "holdfast.toml"
    path.write_bytes(content)
    with pytest.raises(ContractError, match=message):
        read_programme(path)


@pytest.mark.parametrize(
    ("as_of", "hours"),
    [
        ("2017-03-27", 23),  # the clock went forward on the day before
        ("2017-10-30", 25),  # it went back
        ("2017-06-01", 24),
    ],
)
def test_a_day_of_23_or_25_hours_is_one_day(as_of, hours):
    midnight = datetime.fromisoformat(as_of).replace(tzinfo=BERLIN.zone).astimezone(UTC)
    before = BERLIN.days_before(midnight, 1)
    assert midnight - before == timedelta(hours=hours)
    assert before.astimezone(BERLIN.zone).hour == 0


@given(
    day=st.dates(date(2000, 1, 1), date(2037, 1, 1)),
    days=st.integers(-800, 800),
    zone=st.sampled_from(["America/New_York", "Europe/Berlin", "Asia/Kathmandu", "Australia/Lord_Howe", "UTC"]),
)
def test_days_are_counted_on_the_calendar_and_can_be_walked_back(day, days, zone):
    """No clock of these zones changes at midnight, so that midnights map to midnights and back."""
    programme = Programme(timezone=zone)
    start = datetime(day.year, day.month, day.day, tzinfo=programme.zone).astimezone(UTC)
    there = programme.days_before(start, days)
    local = there.astimezone(programme.zone)
    assert (local.hour, local.minute) == (0, 0)
    assert (start.astimezone(programme.zone).date() - local.date()).days == days
    assert programme.days_before(there, -days) == start
    assert there.tzinfo is UTC
