"""Where each thing lies below the data root (see the tree in README.md). Every path of the product comes from here."""

import errno
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from storage.errors import ConfigError, DiskFull, RootNotWritable
from storage.settings import settings

DRAFTS_FOR_S = 86400.0  # nobody writes one file for longer
RUN_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}")  # ours are 16 hexadecimal digits
EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif"}


@dataclass(frozen=True)
class Layout:
    """Paths below ``root``. Building one touches no disk."""

    root: Path

    def blob(self, sha256: str, image_format: str) -> Path:
        """Encoded bytes of a picture, by their digest."""
        within = f"blobs/{sha256[:2]}/{sha256[2:4]}/{sha256}.{EXTENSIONS[image_format]}"
        return self.root / within  # in one step: it is asked often

    def stage(self, stage: str, sha256: str) -> Path:
        """The output of one stage, by its digest."""
        return self.root / "stages" / stage / f"{sha256}.parquet"

    def dataset(self, name: str) -> Path:
        """Folder of a dataset: its ledger and its snapshots."""
        return self.root / "datasets" / name

    def snapshot(self, name: str, version: int) -> Path:
        """Folder of one published version; it counts as published once ``snapshot.json`` lies in it."""
        return self.dataset(name) / "snapshots" / f"{version:05d}"

    def ledger(self, name: str, kind: str) -> Path:
        """Folder of the append-only rows of one ``kind``."""
        return self.dataset(name) / "ledger" / kind

    def journal(self, name: str) -> Path:
        """Folder of the rows that downloads of a dataset have finished but not yet handed over."""
        return self.dataset(name) / "journal"

    @property
    def partial(self) -> Path:
        """Files that a transfer has begun and not ended."""
        return self.root / "partial"

    @property
    def pauses(self) -> Path:
        """How long hosts want to be left alone, for all processes that ask them: a file each, of use for a day."""
        return self.root / "pauses"

    @property
    def removals(self) -> Path:
        """What was removed from all datasets, for ever."""
        return self.root / "removals"

    def pack(self, digest: str) -> Path:
        """Folder of photos decoded for training."""
        return self.root / "packs" / digest

    def run(self, run_id: str) -> Path:
        """Folder of one training run; raises ConfigError for what cannot be the id of one, such as a path."""
        if not RUN_ID.fullmatch(run_id):
            raise ConfigError(
                f"{run_id[:80]!r} is no id of a run: it takes 1 to 64 letters, digits, - and _, as the folders below "
                f"{str(self.root / 'runs')!r} are named"
            )
        return self.root / "runs" / run_id

    def weights(self, learnt: str, sha256: str, suffix: str) -> Path:
        """A file of weights from elsewhere; ``learnt``: digest of the account of what it learnt, which lies two folders
        above as it does in a run, or a word where there is none.
        """
        return self.root / "weights" / learnt / sha256 / f"weights{suffix}"

    def comparison(self, digest: str) -> Path:
        """Folder of one comparison of runs."""
        return self.root / "comparisons" / digest

    def prediction(self, digest: str) -> Path:
        """Folder of what a model said of a person's own photos."""
        return self.root / "predictions" / digest

    @property
    def exports(self) -> Path:
        """Snapshots in the formats of others, a folder each."""
        return self.root / "exports"

    @property
    def cache(self) -> Path:
        """Prefect's records of task outputs."""
        return self.root / "cache"

    @property
    def prefect(self) -> Path:
        """Database and profile of the Prefect server that ``make ui`` and ``make demo`` start."""
        return self.root / "prefect"

    def check_writable(self) -> None:
        """Create the root if need be; raises RootNotWritable if it cannot be written."""
        probe = self.root / f".writable-{uuid.uuid4().hex}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise RootNotWritable(
                f"the data root {str(self.root)!r} cannot be written ({error.strerror}): "
                "make it writable, or set DARKROOM_ROOT to a folder that is"
            ) from error


def layout() -> Layout:
    """The layout of this process's data root."""
    return Layout(settings().root.absolute())


@contextmanager
def filling(path: Path) -> Iterator[None]:
    """Whatever the block writes to ``path``; raises DiskFull when no space is left."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no space left at {str(path)!r}: free some, or move DARKROOM_ROOT") from error
        raise


@contextmanager
def drafting(folder: Path) -> Iterator[Path]:
    """A temporary path in ``folder``, for a file or a folder, that is gone when the block ends, unless it was renamed.

    Raises DiskFull when no space is left.
    """
    if not folder.is_dir():  # asked first: making one that is there costs as much as writing a small file
        folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{uuid.uuid4().hex}.part"
    try:
        with filling(folder):
            yield part
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def sweep_drafts(layout: Layout, now_s: float | None = None) -> int:
    """Delete the drafts that killed processes left; how many that were. Young ones may be somebody's work."""
    swept = 0
    for folder in ("stages/*", "datasets/*/ledger/*", "datasets/*/journal", "removals", "partial", "pauses"):
        for draft in layout.root.glob(f"{folder}/.*.part"):
            with suppress(FileNotFoundError):  # its owner was faster
                if (now_s or time.time()) - draft.stat().st_mtime > DRAFTS_FOR_S and draft.is_file():
                    draft.unlink()
                    swept += 1
    return swept


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends well, and vanishes when it does not."""
    with drafting(path.parent) as part:
        yield part
        os.replace(part, path)


def write_bytes(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path``, whole or not at all."""
    with replacing(path) as part:
        part.write_bytes(data)
