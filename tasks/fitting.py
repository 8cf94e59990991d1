"""The training process: started, followed, ended and understood.

Everything that needs a device runs as ``python -m models.fit RUN.json`` in a process of its own, so that its memory is
always freed, a crash cannot take the worker along, and no flow has to import torch.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from models.errors import STOPPED_EXIT_CODE, FitError
from storage.layout import write_bytes
from storage.settings import child_environment, settings
from tasks import errors

GRACE_S = 30.0  # what a child gets to save its checkpoint after SIGTERM
POLL_S = 0.2
# Batches are large and short-lived: glibc would hand each back to the system at once and fetch it again, page by page,
# which took half of the time of drawing them on a CPU; and threads that wait need not spin. What the user has set wins.
ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**32), "OMP_WAIT_POLICY": "PASSIVE",
}  # fmt: skip
STOPPING: set[Path] = set()  # folders of runs that somebody gave up waiting for: their child is ended, and saves
# A child is a world of its own, also below a launcher that put this process into another one.
LAUNCHER = ("RANK", "LOCAL_", "WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "ROLE_", "MASTER_", "TORCHELASTIC_")
Follow = Callable[[dict[str, Any]], None]


def run_fit(job: str, run_dir: Path, request: dict[str, Any], follow: Follow) -> None:
    """Run one job of models.fit ("train", "evaluate"); ``follow`` gets each line of metrics.jsonl as it comes.

    Raises the TrainingError that the child names. The child is ended if this call is, whatever ends it, and as soon as
    ``run_dir`` stands in STOPPING, be it from before the child was started.
    """
    run_file, log_file = run_dir / f"{job}.run.json", run_dir / f"{job}.log"
    request = {
        "job": job,
        "run_dir": str(run_dir),
        "device": settings().device,
        "threads": settings().threads,
        **request,
    }
    write_bytes(run_file, json.dumps(request, indent=1).encode())
    (run_dir / "error.json").unlink(missing_ok=True)
    metrics = run_dir / "metrics.jsonl"
    start = whole_bytes(metrics)
    with log_file.open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "models.fit", str(run_file)], stdout=log, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, env=environment(),
            start_new_session=True,  # Ctrl-C is ours, not its
        )  # fmt: skip
        try:
            for event in _events(child, run_dir, start):
                follow(event)
        finally:
            end(child)
            STOPPING.discard(run_dir)
    if child.returncode:
        error = failure(run_dir, child.returncode, log_file)
        if isinstance(error, errors.PackDamaged):
            (Path(request["pack_dir"]) / "pack.json").unlink(missing_ok=True)  # the next run packs again
        raise error


def environment() -> dict[str, str]:
    """The child's environment: this process's, less what a launcher such as torchrun says of this process."""
    given = ENVIRONMENT | child_environment()
    return {name: value for name, value in given.items() if not name.startswith(LAUNCHER)}


def whole_bytes(metrics: Path) -> int:
    """The length of a metrics.jsonl up to its last line break: the child cuts off what a killed try left behind it."""
    return metrics.read_bytes().rfind(b"\n") + 1 if metrics.exists() else 0


def _events(child: subprocess.Popen[bytes], run_dir: Path, position: int) -> Iterator[dict[str, Any]]:
    """Whole lines that the child appends to metrics.jsonl, until it has ended and all are read; torn ones are none."""
    metrics = run_dir / "metrics.jsonl"
    while True:
        ended = child.poll() is not None or run_dir in STOPPING
        if metrics.exists():
            with metrics.open("rb") as stream:
                stream.seek(position)
                for line in stream:
                    if not line.endswith(b"\n"):
                        break
                    position += len(line)
                    with suppress(ValueError):
                        yield json.loads(line)
        if ended:
            return
        time.sleep(POLL_S)


def end(child: subprocess.Popen[bytes]) -> None:
    """End the child if it still runs: SIGTERM, the time to save a checkpoint, SIGKILL."""
    if child.poll() is not None:
        return
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def failure(run_dir: Path, code: int, log_file: Path) -> errors.DarkroomError:
    """The error that a child with exit status ``code`` reported, as one of ours."""
    try:
        report = json.loads((run_dir / "error.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        report = _told_by_status(code, log_file)
    if report is None:
        return _unexplained(code, log_file)
    message, fields = report["message"], report.get("fields", {})
    match report["type"]:
        case "TrainingDiverged":
            return errors.TrainingDiverged(message, step=fields.get("step"))
        case "OutOfMemory":
            return errors.OutOfMemory(message, batch_size=fields.get("batch_size"), fits=fields.get("fits"))
        case "DiskFull":
            return errors.DiskFull(message)
        case "ConstantOutputs":
            return errors.ConstantOutputs(message)
        case "PackDamaged":
            return errors.PackDamaged(message)
        case "ConfigError" | "DeviceMissing":
            return errors.ConfigError(message)
        case _:
            return errors.TrainingError(message)


def _told_by_status(code: int, log_file: Path) -> dict[str, Any] | None:
    """What an error.json would say that the child could not write, as on a full disk; None for a status of no error.

    The message is the child's last words if they are of that error, or else what the error's class says.
    """
    kinds = {kind.exit_code: kind for kind in FitError.__subclasses__()}
    if code not in kinds:
        return None
    name, said = kinds[code].__name__, log_file.read_text(errors="replace").splitlines()
    words = (kinds[code].__doc__ or name).splitlines()[0]
    is_told = bool(said) and said[-1].startswith(f"{name}: ")
    return {"type": name, "message": said[-1].removeprefix(f"{name}: ") if is_told else f"{words} ({log_file.parent})"}


def _unexplained(code: int, log_file: Path) -> errors.TrainingError:
    """The error for a child that left no error.json: what it was ended by, and its last words."""
    if code == STOPPED_EXIT_CODE:
        return errors.TrainingError("the training was stopped, with a checkpoint saved: run again, and it goes on")
    ended = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    said = log_file.read_text(errors="replace").splitlines()
    last = f"its last words were {said[-1]!r}" if said else "it said nothing"
    return errors.TrainingError(f"the training process ended with {ended}; {last}: read {str(log_file)!r}")
