"""Progress bars for whatever takes longer than a few seconds; plain lines where there is no terminal."""

import json
import logging
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from prefect.futures import PrefectFuture, as_completed
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tasks import fitting
from tasks.stopping import STOPPING

Result = TypeVar("Result")
LINE_EVERY_S = 5.0
CONSOLE = Console(stderr=True, highlight=False)


@contextmanager
def bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar of ``total`` steps; call what it yields with the number of steps done so far."""
    columns = (TextColumn("{task.description:<16}"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=CONSOLE, disable=not CONSOLE.is_terminal) as progress:
        line = progress.add_task(label, total=total)
        spoken, spoken_at = -1, time.monotonic()

        def show(done: int) -> None:
            nonlocal spoken, spoken_at
            progress.update(line, completed=done)
            is_due = done == total or time.monotonic() - spoken_at > LINE_EVERY_S
            if not CONSOLE.is_terminal and is_due and done != spoken:
                spoken, spoken_at = done, time.monotonic()
                CONSOLE.print(f"{label}: {done} of {total}")

        yield show


@contextmanager
def stoppable() -> Iterator[None]:
    """Whoever gives up waiting for the tasks of the block ends their own waits too: they end with what they have."""
    STOPPING.clear()
    try:
        yield
    except Exception:
        raise
    except BaseException:  # Ctrl-C, or a run that was cancelled
        STOPPING.set()
        raise


def gather(
    label: str, futures: Sequence[PrefectFuture[Result]], keep: Callable[[Result], object] = lambda result: None
) -> list[Result]:
    """The results of ``futures`` in order, with a bar while they come; ``keep`` gets each as soon as it is there.

    The first failure is raised at once; what came before it has been kept.
    """
    if not futures:
        return []
    with stoppable(), bar(label, len(futures)) as show:
        for done, future in enumerate(as_completed(list(futures)), start=1):
            keep(result_of(future))
            show(done)
    return [future.result() for future in futures]


def stream(
    label: str, count: int, submit: Callable[[int], PrefectFuture[Result]], keep: Callable[[int, Result], object],
    may_go_on: Callable[[int], bool] = lambda ahead: True, ahead: int = 8,
) -> int:  # fmt: skip
    """Submit jobs 0 to ``count``, ``ahead`` of them at a time; ``keep`` gets each number and result as it comes.

    ``may_go_on`` is asked before each, with the number of jobs then under way; returns how many were submitted. The
    first failure is raised when what is under way has ended and been kept.
    """
    ended: SimpleQueue[int] = SimpleQueue()
    futures: list[PrefectFuture[Result]] = []
    failure: BaseException | None = None
    submitted = done = 0
    with stoppable(), bar(label, count) as show:
        while True:
            while failure is None and submitted < count and submitted - done < ahead:
                if not may_go_on(submitted - done + 1):
                    count = submitted
                    break
                futures.append(submit(submitted))
                futures[submitted].add_done_callback(partial(_put, ended, submitted))
                submitted += 1
            if done == submitted:
                break
            number = ended.get()
            try:
                keep(number, result_of(futures[number]))
            except Exception as error:  # noqa: BLE001  raised below, when the others have been kept
                failure = failure or error
            done += 1
            show(done)
    if failure:
        raise failure
    return submitted


def result_of(future: PrefectFuture[Result]) -> Result:
    """The result of one future. A failure, which Prefect keeps until the process ends, loses what its functions held:
    tables, and connections of which DuckDB would then say at length that they leaked.
    """
    try:
        return future.result()
    except BaseException as failure:
        error: BaseException | None = failure
        while error is not None:
            traceback.clear_frames(error.__traceback__)
            error = error.__cause__ or error.__context__
        raise


def _put(ended: SimpleQueue[int], number: int, future: object) -> None:
    ended.put(number)


def say(log: logging.Logger, message: str) -> None:
    """Into the log of the run, and to whoever watches the terminal."""
    log.info(message)
    CONSOLE.print(message)


def one(label: str, future: PrefectFuture[Result]) -> Result:
    """The result of one future, with a bar while it is awaited."""
    return gather(label, [future])[0]


def training(label: str, future: PrefectFuture[Result], metrics: Path, epochs: int) -> Result:
    """The result of a training's future, with a bar over the epochs that its metrics.jsonl has reached.

    Whoever interrupts this ends the training, which saves its checkpoint first.
    """
    with bar(label, epochs) as show:
        try:
            while not future.state.is_final():
                show(min(epoch_reached(metrics), epochs))
                future.wait(timeout=1.0)
        except BaseException:
            fitting.STOPPING.add(metrics.parent)  # and stays so until the training has seen it
            future.wait(timeout=fitting.GRACE_S)
            if future.state.is_final():
                fitting.STOPPING.discard(metrics.parent)
            raise
        show(epochs)
    return result_of(future)


def epoch_reached(metrics: Path) -> int:
    """The number of the last finished epoch in a metrics.jsonl; 0 before there is one."""
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    for line in reversed(lines):
        with suppress(json.JSONDecodeError):  # torn, or glued to a torn one, by a process that was killed
            if '"event": "epoch"' in line:
                return int(json.loads(line)["epoch"])
    return 0
