"""The opening of a home's log, as its settings say: by itself, or as one of several that decide as one."""

from features.home import Home
from features.log.ledger import Terms
from features.log.shared import SharedLog
from features.programme import read_programme


def open_log(home: Home) -> SharedLog:
    """Open the log of a home, to write to.

    Raises
    ------
    ContractError
        As `SharedLog`, or if the settings are wrong.
    """
    engine = read_programme(home.settings).engine
    terms = Terms(engine.decisions, engine.decisions_timeout_ms / 1000) if engine.agree else None
    return SharedLog(home.decisions, terms)
