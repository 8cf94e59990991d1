"""The root of Darkroom's exceptions, and those that storage raises. ``tasks/errors.py`` grows the rest of the tree."""


class DarkroomError(Exception):
    """Anything that ends a run. Its class says what to do; its message names the thing and the remedy."""


class ConfigError(DarkroomError, ValueError):
    """The request is impossible: correct it and run again."""


class StorageError(DarkroomError):
    """The data root is not as it should be."""


class RootNotWritable(StorageError):
    """The data root cannot be created or written."""


class ManifestMissing(StorageError):
    """A manifest that a reference names is not on disk."""


class SchemaMismatch(StorageError):
    """A manifest does not have the columns of its stage."""


class BlobCorrupt(StorageError):
    """A blob is missing, or its bytes do not have the digest that names it."""


class DiskFull(StorageError):
    """No space is left below the data root."""


class SnapshotMissing(StorageError):
    """A dataset has no snapshot, or not the version that was asked for."""


class SnapshotConflict(StorageError):
    """Somebody else published the version that this run wanted to publish."""


class RemovedPhoto(StorageError):
    """Something holds a photo that was removed."""
