"""What can go wrong that a person can mend: one small family, each member also a standard class.

A message says what came, what was wanted, and what to type. The front door prints it in one line and exits 2.
"""


class HoldfastError(Exception):
    """Say what a person can mend."""


class ContractError(HoldfastError, ValueError):
    """Refuse data, settings or a request that does not meet its contract."""


class NotFoundError(HoldfastError, LookupError):
    """Say that something named, or needed first, is not there."""


class CorruptError(HoldfastError, RuntimeError):
    """Refuse an artefact whose bytes are not the bytes that were written."""


class UnavailableError(HoldfastError, ConnectionError):
    """Say that a server does not answer, or not in time."""


class ConflictError(ContractError):
    """Refuse an id that already stands for something else."""


class UnwrittenError(HoldfastError, OSError):
    """Say that the disk did not take an entry: nothing of it is stored, and it may be sent again."""


class StaleError(HoldfastError, RuntimeError):
    """Refuse decisions that rest on what has changed meanwhile: nothing of them is stored, and they are taken anew."""
