"""One exception tree for everything a person can put right; one exit code for each leaf.

A message says what was expected, what was found, and what to do. Anything else that escapes is a defect and keeps
its traceback. The codes are documented in docs/exit-codes.md; they never change meaning.
"""

from typing import ClassVar


class MstarError(Exception):
    """Base of every error that is shown to a person as one message, without a traceback."""

    exit_code: ClassVar[int] = 1
    retriable: ClassVar[bool] = False


class SpecError(MstarError):
    """The run spec or a task file is wrong: unknown key, wrong type, impossible value."""

    exit_code = 3


class DataError(MstarError):
    """The data set is wrong: missing or corrupt image, duplicate id, unusable answer."""

    exit_code = 4


class ModelError(MstarError):
    """The model folder is not a model, or does not fit the task."""

    exit_code = 5


class IntegrityError(MstarError):
    """What was read is not what was written: truncated or altered part, foreign manifest."""

    exit_code = 6


class StorageError(MstarError):
    """The store cannot be used: full disk, read-only folder, unreachable endpoint."""

    exit_code = 7
    retriable = True


class ConflictError(MstarError):
    """Somebody else holds the run, or its name belongs to a different spec."""

    exit_code = 8


class StepFailed(MstarError):
    """A step failed more often than its spec allows."""

    exit_code = 9


class Cancelled(MstarError):
    """The run was cancelled; ``resume`` takes it up again."""

    exit_code = 10


class NotFound(MstarError):
    """No such run, step or object."""

    exit_code = 11


class MissingDependency(MstarError):
    """An optional package that this command needs is not installed."""

    exit_code = 12


class Preempted(MstarError):
    """The pod was told to stop: preempted, drained, or its node shut down. What a checkpoint holds is kept."""

    exit_code = 14
    retriable = True


class OutOfMemory(MstarError):
    """A pod used more memory than its limit, or an engine more than its GPU has."""

    exit_code = 15


class ClusterError(MstarError):
    """The cluster refuses what is asked of it, or cannot place it: permission, quota, image, no fitting node."""

    exit_code = 16


class StoreRefused(MstarError):
    """The store answers and says no: wrong credentials, no permission, no such bucket."""

    exit_code = 17


class ClusterUnreachable(MstarError):
    """The cluster does not answer."""

    exit_code = 18
    retriable = True


class WorkerLost(MstarError):
    """The process that ran a step ended without a word: killed, or out of memory."""

    exit_code = 13
    retriable = True


def leaves() -> list[type[MstarError]]:
    """Every kind of error that has an exit code of its own."""
    return list(MstarError.__subclasses__())


def by_code(exit_code: int, message: str) -> MstarError:
    """The error whose exit code is given, with a message that another process wrote."""
    kind = next((leaf for leaf in leaves() if leaf.exit_code == exit_code), MstarError)
    return kind(message)
