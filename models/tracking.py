"""What a run says while it trains: a line of JSON per event, and curves for TensorBoard.

    <run>/metrics.jsonl    events: start, progress (about every second), epoch (epochs count from 1), end
    <run>/tensorboard/     the numbers of progress and epoch events, by optimiser step; needs the package tensorboardX

Lines are never taken back: a run that was killed and resumed starts again with "start", and an epoch that then stands
twice was trained twice, with the same result. TensorBoard is told to forget the steps that are trained again.
"""

import json
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models import disk

LOG = logging.getLogger(__name__)
CURVES = {"epoch": "", "progress": "progress/"}  # events that have curves, and what the names of these begin with
NO_CURVE = {"step", "steps", "epoch", "epochs", "is_best"}


class RunLog:
    """Appends each event to ``metrics.jsonl`` at once. Without a path (all processes but the first) it writes nothing.

    Raises ``DiskFull`` where an event cannot be written.
    """

    def __init__(self, path: Path | None, tensorboard: Path | None = None) -> None:
        self.path, self.tensorboard = path, tensorboard
        self._curves: Curves | None = None
        if path is not None and path.exists():
            _cut_half_line(path)

    def write(self, event: str, **values: Any) -> None:
        """One line: the event, the time (UTC), the values."""
        if self.path is None:
            return
        now = datetime.now(UTC)
        line = {"event": event, "at": now.isoformat(timespec="milliseconds"), **values}
        with disk.noticing_a_full_disk(self.path):
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            if event == "start" and self.tensorboard is not None:
                self._curves = open_curves(self.tensorboard, after_step=values["step"])
            if self._curves is not None and event in CURVES:
                self._curves.add(CURVES[event], now, values)

    def close(self) -> None:
        """Close what is open; a full disk was noticed when it mattered."""
        if self._curves is not None:
            self._curves.close()


class Curves:
    """An event file for TensorBoard that begins after ``after_step``: what older files say of later steps is void.

    Written in this thread: the package's own writer waits for ever once its thread met a full disk.
    """

    def __init__(self, folder: Path, after_step: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"), f".{os.getpid()}")
        start = SessionLog(status=SessionLog.START)
        self._put(Event(wall_time=datetime.now(UTC).timestamp(), step=after_step + 1, session_log=start))

    def add(self, prefix: str, at: datetime, values: Mapping[str, Any]) -> None:
        """One point for each number of ``values``, at its step."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        drawn = [name for name in values if name not in NO_CURVE and isinstance(values[name], int | float)]
        points = [Summary.Value(tag=prefix + name, simple_value=values[name]) for name in drawn]
        self._put(Event(wall_time=at.timestamp(), step=values["step"], summary=Summary(value=points)))

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            self._writer.close()

    def _put(self, event: Any) -> None:
        self._writer.write_event(event)
        self._writer.flush()


def open_curves(folder: Path, after_step: int) -> Curves | None:
    """The curves of a run that starts or goes on after a step; None, and a line in the log, without tensorboardX."""
    try:
        return Curves(folder, after_step)
    except ImportError:
        LOG.warning("no curves for TensorBoard: the package tensorboardX is not installed")
        return None


def _cut_half_line(path: Path) -> None:
    """Remove what a full disk may have left of a last line, or the next line would be lost with it."""
    with path.open("r+b") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
