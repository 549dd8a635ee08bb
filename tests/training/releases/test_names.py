from datetime import UTC, datetime

import pytest

from features.errors import ContractError, NotFoundError
from features.home import Home
from training.promotion import Verdict
from training.releases import names
from training.releases.ledger import promote

NOW = datetime(2017, 11, 1, 12, tzinfo=UTC)


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path)
    for release_id in ("a1", "b2"):
        (home.releases / release_id).mkdir(parents=True)
        (home.releases / release_id / "manifest.json").write_text("{}")
    return home


def test_a_release_is_found_by_any_of_its_names(home):
    names.give(home, "spring", "a1")
    names.give(home, "summer", "b2")
    names.give(home, "autumn", "b2")
    names.record_trained(home, "b2", inputs="key", champion=None, run_id="r")
    promote(home, "a1", expected=None, who="ada", now=NOW, verdict=Verdict(promote=True, said=()))
    found = {which: names.resolve(home, which) for which in ("a1", "spring", "summer", "champion", "challenger")}
    assert found == {"a1": "a1", "spring": "a1", "summer": "b2", "champion": "a1", "challenger": "b2"}
    assert names.names_of(home, "b2") == ["summer", "autumn"]


def test_a_name_goes_to_the_release_that_got_it_last(home):
    names.give(home, "spring", "a1")
    names.give(home, "spring", "b2")
    assert names.resolve(home, "spring") == "b2"


@pytest.mark.parametrize(
    ("which", "wanted"),
    [
        ("champion", "there is no champion yet; `holdfast promote`"),
        ("challenger", "nothing was trained yet; `holdfast train`"),
        ("winter", "there is no release 'winter'; `holdfast releases`"),
        ("../a1", "there is no release"),
    ],
)
def test_what_is_not_there_is_said_with_what_to_type(home, which, wanted):
    with pytest.raises(NotFoundError, match=wanted):
        names.resolve(home, which)


@pytest.mark.parametrize("name", ["champion", "challenger", "a b", "../up", "1st", "x" * 65])
def test_a_name_that_could_be_taken_for_something_else_is_refused(name):
    with pytest.raises(ContractError, match="--challenger"):
        names.check(name)


def test_no_name_is_no_name(home):
    names.check("")
    names.give(home, "", "a1")
    assert names.names_of(home, "a1") == []
