"""The exception tree. A bad photo is a row with a reason; a bad run is one of these, and its class says what to do.

Only TransientError is ever retried.
"""

from storage.errors import (
    BlobCorrupt,
    ConfigError,
    DarkroomError,
    DiskFull,
    ManifestMissing,
    RemovedPhoto,
    RootNotWritable,
    SchemaMismatch,
    SnapshotConflict,
    SnapshotMissing,
    StorageError,
)

__all__ = [
    "BlobCorrupt",
    "ConfigError",
    "ConstantOutputs",
    "CredentialsRejected",
    "DarkroomError",
    "DiskFull",
    "EmptyResult",
    "GateRefused",
    "Interrupted",
    "ManifestMissing",
    "OutOfMemory",
    "PackDamaged",
    "PermanentSourceError",
    "RateLimited",
    "RemovedPhoto",
    "RootNotWritable",
    "SchemaMismatch",
    "SnapshotConflict",
    "SnapshotMissing",
    "SourceChanged",
    "SourceUnavailable",
    "StorageError",
    "TooFewPhotos",
    "TrainingDiverged",
    "TrainingError",
    "TransientError",
]


class Interrupted(DarkroomError):
    """Somebody gave up waiting."""


class EmptyResult(DarkroomError):
    """A search found nothing, or the rules keep nothing."""


class TooFewPhotos(DarkroomError):
    """There are photos, but not enough for what was asked."""


class GateRefused(DarkroomError):
    """A refresh would publish, or an audit remove, something suspicious."""


class TransientError(DarkroomError):
    """It may work in a while."""


class RateLimited(TransientError):
    """A host asks for a pause of ``retry_after_s`` (None: it did not say for how long)."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SourceUnavailable(TransientError):
    """5xx, resets, time-outs, Flickr's 0, 10, 105 and 201."""


class PermanentSourceError(DarkroomError):
    """A source will not answer this request, however often it is asked."""


class CredentialsRejected(PermanentSourceError):
    """The key is missing, malformed or expired."""


class SourceChanged(PermanentSourceError):
    """An answer no longer parses: ``url`` gave no usable ``field``."""

    def __init__(self, message: str, url: str = "", field: str = "") -> None:
        super().__init__(message)
        self.url = url
        self.field = field


class TrainingError(DarkroomError):
    """The training process ended badly."""


class TrainingDiverged(TrainingError):
    """The loss is no longer a number since ``step``."""

    def __init__(self, message: str, step: int | None = None) -> None:
        super().__init__(message)
        self.step = step


class ConstantOutputs(TrainingError):
    """The network answers the same for every photo."""


class OutOfMemory(TrainingError):
    """A batch of ``batch_size`` does not fit in the device's memory; ``fits``: the largest that was seen to."""

    def __init__(self, message: str, batch_size: int | None = None, fits: int | None = None) -> None:
        super().__init__(message)
        self.batch_size, self.fits = batch_size, fits


class PackDamaged(TrainingError):
    """A pack does not have the bytes that its card promises."""
