"""What can go wrong in a training run. Every class names its remedy in its message, its facts in ``fields``.

``models.fit`` turns an error into ``error.json`` and into the exit code that stands here, so that the process which
started it can raise the same type again.
"""

from typing import Any, ClassVar


class FitError(Exception):
    """A training or evaluation run that cannot go on: ``fields`` holds the facts, ``exit_code`` tells the caller."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.fields = fields

    def as_dict(self) -> dict[str, Any]:
        """The content of ``error.json``."""
        return {"type": type(self).__name__, "message": str(self), "fields": self.fields}


class ConfigError(FitError, ValueError):
    """An impossible request: fix it and run again."""

    exit_code = 2


class PackDamaged(FitError):
    """The pack is not what its ``pack.json`` says: pack again."""

    exit_code = 3


class CheckpointMismatch(FitError):
    """The run folder's checkpoint belongs to another recipe, seed, pack, labels or start, or is missing."""

    exit_code = 4


class DeviceMissing(FitError):
    """The device that was asked for is not on this machine."""

    exit_code = 5


class OutOfMemory(FitError):
    """The device's memory ran out at ``fields['batch_size']``; ``fields['fits']`` photos at a time do fit (or None)."""

    exit_code = 6


class TrainingDiverged(FitError):
    """The loss became NaN or infinite at ``fields['step']``."""

    exit_code = 7


class ConstantOutputs(FitError):
    """The network answers the same whatever it sees (what happened to seed 000's network)."""

    exit_code = 8


class DiskFull(FitError):
    """The disk of the run folder is full: make room and run again, it goes on from its last checkpoint."""

    exit_code = 9


class CheckpointDamaged(FitError):
    """A checkpoint is not what was written, and there is no whole one to go on from."""

    exit_code = 10


class ExportMismatch(FitError):
    """An exported network answers otherwise than the one it was made of; it was not kept."""

    exit_code = 11


class Stopped(Exception):
    """The job was asked to stop: a training has saved its checkpoint, of other jobs nothing is left but time."""


STOPPED_EXIT_CODE = 143  # 128 + SIGTERM, as a shell reports it
