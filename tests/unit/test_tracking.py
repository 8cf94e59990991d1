"""What a run writes about itself can be read back, also after it was killed."""

import builtins
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event

from models.errors import DiskFull
from models.tracking import RunLog


def records(path: Path) -> Iterator[Event]:
    """The events of a file for TensorBoard: length [8 bytes], its checksum [4], the event, its checksum [4]."""
    content = path.read_bytes()
    while content:
        length = int.from_bytes(content[:8], "little")
        yield Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]


def write_epochs(log: RunLog, start: int, epochs: range) -> None:
    """Say that a run of 10 steps an epoch goes on from step ``start``."""
    log.write("start", step=start, epoch=start // 10, epochs=9, steps=90)
    for epoch in epochs:
        step = 10 * epoch
        log.write("progress", epoch=epoch, epochs=9, step=step - 5, steps=90, loss=2.0, lr=0.1, photos_per_s=7.0)
        log.write("epoch", epoch=epoch, epochs=9, step=step, steps=90, loss=1 / epoch, val_loss=0.5, is_best=True)
    log.close()


def test_every_event_is_a_line(tmp_path: Path) -> None:
    """Events stand in their order with an aware time; what a full disk left of a line spoils no other."""
    path = tmp_path / "metrics.jsonl"
    write_epochs(RunLog(path), 0, range(1, 3))
    with path.open("a") as file:
        file.write('{"event": "ep')
    write_epochs(RunLog(path), 10, range(2, 3))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kinds = ["start", "progress", "epoch", "progress", "epoch", "start", "progress", "epoch"]
    assert [line["event"] for line in lines] == kinds
    assert all(line["at"].endswith("+00:00") for line in lines)
    assert lines[2]["loss"] == 1.0


def test_curves_are_not_doubled(tmp_path: Path) -> None:
    """TensorBoard gets every number by its step, and with each start the step from which older files are void."""
    folder = tmp_path / "tensorboard"
    write_epochs(RunLog(tmp_path / "metrics.jsonl", folder), 0, range(1, 4))
    [first] = folder.iterdir()
    first.rename(folder / "events.out.tfevents.1.first")
    write_epochs(RunLog(tmp_path / "metrics.jsonl", folder), 20, range(3, 4))
    [*_, second] = sorted(folder.iterdir())
    started = [event for event in records(second) if event.HasField("session_log")]
    assert [(event.step, event.session_log.status) for event in started] == [(21, 1)]
    points = {
        (value.tag, event.step): value.simple_value
        for event in records(folder / "events.out.tfevents.1.first")
        for value in event.summary.value
    }
    assert {tag for tag, _ in points} == {
        "loss", "val_loss", "progress/loss", "progress/lr", "progress/photos_per_s",
    }  # fmt: skip
    assert [points["loss", step] for step in (10, 20)] == [1.0, 0.5]
    assert points["progress/loss", 5] == 2.0


def test_curves_are_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Without tensorboardX a run says so once, and trains."""

    def refuse(name: str, *rest: Any, real: Any = builtins.__import__, **named: Any) -> Any:
        if name.startswith("tensorboardX"):
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with caplog.at_level(logging.WARNING):
        write_epochs(RunLog(tmp_path / "metrics.jsonl", tmp_path / "tensorboard"), 0, range(1, 4))
    assert [record.message for record in caplog.records if "tensorboardX" in record.message] == [
        "no curves for TensorBoard: the package tensorboardX is not installed"
    ]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 7
    assert not (tmp_path / "tensorboard").exists()


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    """Of several processes one keeps the log."""
    write_epochs(RunLog(None, tmp_path / "tensorboard"), 0, range(1, 2))
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named() -> None:
    """An event that cannot be written is a typed error."""
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    log = RunLog(None)
    log.path = Path("/dev/full")
    with pytest.raises(DiskFull, match="no room to write /dev/full"):
        log.write("start", step=0)
