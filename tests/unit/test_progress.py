"""Progress where there is a terminal, and where there is none."""

import io
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flows import progress
from tasks import fitting
from tasks.stopping import STOPPING


class Future:
    """A future that is there at once, or fails."""

    def __init__(self, value: Any, pending_polls: int = 0) -> None:
        self.value, self.polls = value, pending_polls

    @property
    def state(self) -> "Future":
        return self

    def is_final(self) -> bool:
        return self.polls <= 0

    def wait(self, timeout: float | None = None) -> None:
        self.polls -= 1

    def result(self) -> Any:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The lines that were printed, without a terminal."""
    out = io.StringIO()
    monkeypatch.setattr(progress, "CONSOLE", Console(file=out, force_terminal=False))
    monkeypatch.setattr(progress, "as_completed", lambda futures: iter(reversed(futures)))
    return lambda: out.getvalue().splitlines()


def test_results_come_in_order_whatever_ends_first(said: Callable[[], list[str]]) -> None:
    """Results are matched to what was asked by their place."""
    assert progress.gather("stage", [Future("a"), Future("b"), Future("c")]) == ["a", "b", "c"]  # type: ignore[arg-type]
    assert said() == ["stage: 3 of 3"]
    assert progress.gather("stage", []) == []
    assert progress.one("stage", Future("only")) == "only"  # type: ignore[arg-type]


def test_a_failure_is_raised(said: Callable[[], list[str]]) -> None:
    """The first failure ends the wait with its own error."""
    with pytest.raises(KeyError, match="why"):
        progress.gather("stage", [Future("a"), Future(KeyError("why"))])  # type: ignore[arg-type]


def test_a_failure_holds_nothing_of_what_failed(said: Callable[[], list[str]]) -> None:
    """Neither tables nor connections, which would live as long as the error does; nor does what caused it."""
    held: list[weakref.ref[Future]] = []

    def read() -> None:
        table = Future("large")
        held.append(weakref.ref(table))
        raise KeyError("why")

    def convert() -> None:
        table = Future("large")
        held.append(weakref.ref(table))
        try:
            read()
        except KeyError as error:
            raise ValueError("in words") from error

    failed = Future(None)
    failed.result = convert  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="in words") as caught:
        progress.one("stage", failed)  # type: ignore[arg-type]
    assert [each() for each in held] == [None, None], caught


def test_lines_are_few_without_a_terminal(said: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A log is not filled: one line every few seconds, and the last."""
    now = [0.0]
    monkeypatch.setattr("flows.progress.time.monotonic", lambda: now[0])
    with progress.bar("download", 100) as show:
        for done in range(1, 101):
            now[0] += 0.11
            show(done)
            show(done)
    assert said() == ["download: 46 of 100", "download: 92 of 100", "download: 100 of 100"]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Label and count stand in it; no line is printed beside it."""
    out = io.StringIO()
    monkeypatch.setattr(progress, "CONSOLE", Console(file=out, force_terminal=True, width=100))
    with progress.bar("measure", 2) as show:
        show(2)
    assert "measure" in out.getvalue()
    assert "2/2" in out.getvalue()
    assert "2 of 2" not in out.getvalue()


def test_a_training_shows_its_epochs(said: Callable[[], list[str]], tmp_path: Path) -> None:
    """The bar follows metrics.jsonl and ends full; the result is the future's."""
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text(json.dumps({"event": "epoch", "epoch": 3}) + "\n")
    assert progress.training("train", Future("run", pending_polls=2), metrics, 40) == "run"  # type: ignore[arg-type]
    assert said() == ["train: 40 of 40"]


def test_who_gives_up_ends_the_waits_of_the_tasks(said: Callable[[], list[str]]) -> None:
    """Not so a failure; and who waits for other tasks afterwards begins anew."""

    class Interrupted(Future):
        def result(self) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyError):
        progress.gather("stage", [Future(KeyError("why"))])  # type: ignore[arg-type]
    assert not STOPPING.is_set()
    with pytest.raises(KeyboardInterrupt):
        progress.gather("stage", [Interrupted("a")])  # type: ignore[arg-type]
    assert STOPPING.is_set()
    assert progress.gather("stage", [Future("a")]) == ["a"]  # type: ignore[arg-type]
    assert not STOPPING.is_set()


@pytest.mark.parametrize("ends", [True, False])
def test_who_gives_up_ends_the_training_of_that_run_alone(tmp_path: Path, ends: bool) -> None:
    """The folder is marked until the training has seen it, also if that takes longer than one waits."""

    class Interrupted(Future):
        def wait(self, timeout: float | None = None) -> None:
            if timeout == 1.0:
                raise KeyboardInterrupt
            assert {tmp_path} == fitting.STOPPING
            self.polls = 0 if ends else 1

    with pytest.raises(KeyboardInterrupt):
        progress.training("train", Interrupted("run", 1), tmp_path / "metrics.jsonl", 4)  # type: ignore[arg-type]
    assert (set() if ends else {tmp_path}) == fitting.STOPPING
    fitting.STOPPING.clear()


@pytest.mark.parametrize(
    ("text", "epoch"),
    [
        ("", 0),
        ('{"event": "start", "epoch": 0}\n', 0),
        ('{"event": "epoch", "epoch": 1}\n{"event": "progress", "epoch": 2}\n', 1),
        ('{"event": "epoch", "epoch": 1}\n{"event": "epoch", "epoch": 2}\n', 2),
        ('{"event": "epoch", "epoch": 1}\n{"event": "epoch", "epo', 1),
        ('{"event": "epoch", "epoch": 1}\n{"event": "epoch", "epo{"event": "start", "epoch": 1}\n', 1),
    ],
)
def test_the_epoch_that_was_reached(tmp_path: Path, text: str, epoch: int) -> None:
    """The last whole epoch line counts, not one that is torn, nor one that a later try was glued to."""
    assert progress.epoch_reached(tmp_path / "metrics.jsonl") == 0
    (tmp_path / "metrics.jsonl").write_text(text)
    assert progress.epoch_reached(tmp_path / "metrics.jsonl") == epoch
