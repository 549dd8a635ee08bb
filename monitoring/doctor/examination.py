"""The examination: settings first, for all else follows from them, then parts, champion and machine."""

from collections.abc import Callable
from datetime import datetime

from features.errors import HoldfastError
from features.home import Home
from features.programme import read_programme
from monitoring.doctor.finding import Finding
from monitoring.doctor.machine import disk, place, versions
from monitoring.doctor.parts import PARTS, Asked


def examine(home: Home, *, clock: Callable[[], datetime]) -> list[Finding]:
    """Try everything the settings name, each for a few seconds at most, and change nothing.

    Where the settings are wrong no part is tried: it is not known which.
    """
    machine = [place(home), disk(home), versions()]
    try:
        engine = read_programme(home.settings).engine
    except HoldfastError as error:
        mend = "mend each line that is named: it says what came and what was wanted"
        return [Finding("settings", str(home.settings), str(error), mend), *machine]
    asked = Asked(home, engine, clock)
    parts = [look(asked) for look in PARTS]
    whole = "read, every key is one that there is" if home.settings.exists() else "not there: every default holds"
    settings = Finding("settings", str(home.settings), whole)
    return [settings, *parts, _champion(home), *machine, asked.clocks()]


def _champion(home: Home) -> Finding:
    from serving.champion import open_champion
    from training.releases.ledger import champion_id

    try:
        said = champion_id(home)
    except HoldfastError as error:
        return Finding("champion", str(home.releases), str(error), "bring the ledger back from a copy of the releases")
    if said is None:
        return Finding("champion", "none", "nothing is promoted yet: `holdfast train`, then `holdfast promote`")
    release_named = f"release {said}"
    try:
        release, refused = open_champion(home)
    except HoldfastError as error:
        return Finding("champion", release_named, str(error), "`holdfast train` and `promote` make another")
    if refused:
        found = f"does not load ({refused.reason}); {release.release_id} serves in its place"
        return Finding("champion", release_named, found, "`holdfast rollback`, or train and promote anew")
    return Finding(
        "champion", release_named, f"loads: {len(release.feature_names)} features, {len(release.offer_ids)} offers"
    )
