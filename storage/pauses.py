"""Pauses that hosts have asked for, told by one process to all others that share a data root.

A file of JSON for each budget of a host says when a pause began, when it ends, and what share of the full rate the host
bears then. It is news within a second, on a network disk as soon as that shows it. Nobody locks it: of two who write at
once one is heard. Clocks may be wrong, so what was written in the future is not believed, and no pause counts for
longer than LONGEST_S. Nothing here raises: whoever cannot be told earns a pause of its own.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from storage.errors import DiskFull
from storage.layout import write_bytes

LOG = logging.getLogger(__name__)
LONGEST_S = 86400.0  # a host that wants more is asked once a day
SKEW_S = 60.0  # between the clocks of machines that share a disk
RECOVERED_S = 600.0  # after the end of a pause: by then whoever was slowed down is as fast as before


@dataclass(frozen=True)
class Pause:
    """What a host bears: nothing for ``seconds`` from now, none if they are not above 0; then ``share`` of the full
    rate, above 0 and at most 1.
    """

    seconds: float
    share: float


class PauseFile:
    """The pause of the budget ``name``, as the processes that share ``folder`` tell it to each other."""

    def __init__(self, folder: Path, name: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._path = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"
        self._name, self._now = name, now
        self._seen: tuple[int, int] | None = None

    def news(self) -> Pause | None:
        """What was written since this was last asked, and is not over."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        if (written := (found.st_mtime_ns, found.st_ino)) == self._seen:
            return None
        self._seen = written
        return read(self._path, self._now())

    def tell(self, pause: Pause) -> None:
        """Let the others know of ``pause``; a longer one of theirs goes on. A line in the log if that cannot be."""
        now, theirs = self._now(), read(self._path, self._now())
        seconds = min(LONGEST_S, max(pause.seconds, theirs.seconds if theirs else 0.0))
        times = {"asked_at": now.isoformat(), "ends_at": (now + timedelta(seconds=seconds)).isoformat()}
        try:
            write_bytes(self._path, json.dumps({"budget": self._name, **times, "share": pause.share}).encode())
        except (OSError, DiskFull) as error:
            LOG.warning("other processes are not told that %s pauses for %.0f s: %s", self._name, seconds, error)


def read(file: Path, now: datetime) -> Pause | None:
    """The pause in ``file``; None if it is long over, none can be read, or it was written after ``now``."""
    try:
        said = json.loads(file.read_bytes())
        asked_at, ends_at = datetime.fromisoformat(said["asked_at"]), datetime.fromisoformat(said["ends_at"])
        age_s, seconds, share = (now - asked_at).total_seconds(), (ends_at - now).total_seconds(), float(said["share"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):  # also a time without a zone
        return None
    seconds = min(seconds, LONGEST_S - age_s)
    return Pause(seconds, share) if age_s >= -SKEW_S and seconds > -RECOVERED_S and 0 < share <= 1 else None
