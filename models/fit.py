"""Train or evaluate one run, in a process of its own: ``python -m models.fit RUN.json``.

RUN.json: {"run_id": "...", "run_dir": "...", "pack_dir": "...", "recipe": a name or a whole recipe,
"device": "auto" | "cpu" | "cuda", "job": "train" | "evaluate" | "predict" | "export" | "find_lr", "seed": 0,
"threads": null, "labels": null or a Parquet file (source, photo_id, label), "start_from": [files of weights, or run
folders], "trained": null or the folder of the run that learnt}. Paths are relative to the working directory.

train     writes metrics.jsonl, tensorboard/, checkpoint/ and train.json into run_dir; goes on from a checkpoint there
evaluate  reads the best checkpoint, writes evaluation.json, predictions.parquet and scores.parquet

predict   writes answers.parquet about the photos of another pack; export model.pt2 and model.onnx; find_lr a sweep

On several GPUs, or in several processes on the CPU: ``torchrun --monitor-interval=2 --nproc-per-node=2 -m
models.fit RUN.json``; in a training each takes its share of every batch, and the first one writes; every other job,
find_lr too, is done by the first one alone. ``torchrun`` has an exit code of its own: see error.json and train.json. At
its usual interval of 0.1 s it may hang when it is told to stop just while it looks after its processes.

One process (or one ``torchrun``) at a time works in a run folder: the next one waits some seconds, then is refused.

Exit codes: 0 done; 143 stopped by SIGTERM, or because the parent died, with a checkpoint saved; otherwise error.json
says what happened: 2 ConfigError, 3 PackDamaged, 4 CheckpointMismatch, 5 DeviceMissing, 6 OutOfMemory,
7 TrainingDiverged, 8 ConstantOutputs, 9 DiskFull, 10 CheckpointDamaged; 1 is a fault of the program, with its traceback
on stderr and no error.json.
"""

import ctypes
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from models.errors import STOPPED_EXIT_CODE, ConfigError, FitError, Stopped
from models.recipes import from_dict, resolve
from models.specs import Recipe

PR_SET_PDEATHSIG = 1  # linux/prctl.h
LOCK_PATIENCE_S = 20.0  # what an orphan of an earlier try may take to save and end
LOCK_POLL_S = 0.1
REQUIRED = ("run_id", "run_dir", "pack_dir", "recipe")
DEFAULTS: dict[str, Any] = {
    "device": "auto", "job": "train", "seed": 0, "threads": None, "labels": None, "start_from": [],
    "trained": None,
}  # fmt: skip
LIMITS = {"seed": (0, 2**64 - 1), "threads": (1, 1024)}  # of torch's generators; and more threads end in a crash
CHOICES = {"device": ("auto", "cpu", "cuda"), "job": ("train", "evaluate", "predict", "export", "find_lr")}


class StopRequest:
    """Set by SIGTERM, or found when the process that started this one is gone."""

    def __init__(self) -> None:
        self.is_signalled, self.parent = False, os.getppid()

    def install(self) -> None:
        """Note SIGTERM instead of dying; on Linux have the kernel send it when the parent dies."""
        signal.signal(signal.SIGTERM, self._note)
        if sys.platform == "linux":
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    def __call__(self) -> bool:
        """Whether to save and stop now."""
        return self.is_signalled or os.getppid() != self.parent

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.is_signalled = True


def main(arguments: list[str]) -> int:
    """Run the job that a RUN.json describes; the exit code."""
    must_stop = StopRequest()
    must_stop.install()
    if len(arguments) != 1:
        sys.stderr.write(f"{__doc__}\n")
        return ConfigError.exit_code
    run_dir: Path | None = None
    try:
        values = read_request(Path(arguments[0]))
        with _held(Path(values["run_dir"]), must_stop):
            run_dir = Path(values["run_dir"])  # only now it is ours, to leave an error.json there
            (run_dir / "error.json").unlink(missing_ok=True)
            return _run(values, must_stop)
    except FitError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        if run_dir is not None:
            _leave_error(run_dir, error)
        return error.exit_code


def _run(values: Mapping[str, Any], must_stop: StopRequest) -> int:
    """The job itself. Importing torch takes seconds, so it happens here, after a bad request was refused."""
    recipe = resolve_recipe(values["recipe"])
    from models import jobs
    from models.distributed import World

    paths: dict[str, Any] = {name: Path(values[name]) for name in ("run_dir", "pack_dir")}
    paths |= {name: None if values[name] is None else Path(values[name]) for name in ("labels", "trained")}
    paths["start_from"] = tuple(Path(path) for path in values["start_from"])
    world = World.from_environment(os.environ)
    try:
        jobs.run(jobs.Request(**{**values, **paths, "recipe": recipe, "world": world}), must_stop)
    except Stopped:
        return STOPPED_EXIT_CODE
    return 0


def read_request(path: Path) -> dict[str, Any]:
    """The values of a RUN.json with the defaults filled in; ``ConfigError`` names what is wrong."""
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}", path=str(path)) from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold an object, not {type(values).__name__}", path=str(path))
    known = (*REQUIRED, *DEFAULTS)
    for key in values:
        if key not in known:
            raise ConfigError(f"{path} has an unknown key {key!r}: its keys are {', '.join(known)}", key=key)
    for key in REQUIRED:
        if key not in values:
            raise ConfigError(f"{path} lacks {key!r}", key=key)
    return _check_types({**DEFAULTS, **values}, path)


def _check_types(values: dict[str, Any], path: Path) -> dict[str, Any]:
    """The values, if each is of a kind that the run can use."""
    claims = {key: values[key] in allowed for key, allowed in CHOICES.items()}
    claims |= {key: _is_name(values[key]) for key in ("run_id", "run_dir", "pack_dir")}
    claims |= {key: values[key] is None or _is_name(values[key]) for key in ("labels", "trained")}
    starts = values["start_from"]
    claims["start_from"] = isinstance(starts, list) and all(map(_is_name, starts))
    claims["seed"] = _is_count(values["seed"], *LIMITS["seed"])
    claims["threads"] = values["threads"] is None or _is_count(values["threads"], *LIMITS["threads"])
    for key, holds in claims.items():
        if not holds:
            hint = f": choose one of {', '.join(CHOICES[key])}" if key in CHOICES else ""
            hint = ": choose {} to {}".format(*LIMITS[key]) if key in LIMITS else hint
            raise ConfigError(f"{path}: {key} cannot be {values[key]!r}{hint}", key=key)
    return values


def _is_name(value: Any) -> bool:
    """Whether a file could have that name."""
    try:
        return isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def _is_count(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def resolve_recipe(value: Any) -> Recipe:
    """The recipe of that name, or the one that a mapping spells out."""
    return resolve(value) if isinstance(value, str) else from_dict(value)


def _leave_error(run_dir: Path, error: FitError) -> None:
    """Write error.json; on a full disk the exit code has to do."""
    with suppress(OSError):
        fresh = run_dir / f".error-{os.getpid()}"
        fresh.write_text(json.dumps(error.as_dict(), indent=2) + "\n")
        fresh.replace(run_dir / "error.json")


@contextmanager
def _held(run_dir: Path, must_stop: Callable[[], bool]) -> Iterator[None]:
    """Make the run folder and keep other processes out of it until the block, or this process, ends.

    Of the processes that ``torchrun`` starts together, the first one holds it for all. Raises ``ConfigError``.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = (run_dir / ".lock").open("a")
    except OSError as error:
        message = f"the run folder {run_dir} cannot be written ({error}): choose another"
        raise ConfigError(message, path=str(run_dir)) from error
    with lock:
        if os.environ.get("RANK", "0") == "0":
            _lock(lock.fileno(), run_dir, must_stop)
        yield


def _lock(handle: int, run_dir: Path, must_stop: Callable[[], bool]) -> None:
    """Take the lock, which the system gives back when its holder is gone; ``ConfigError`` if that lives on."""
    until = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until or must_stop():
                message = f"another process works in the run folder {run_dir}: wait for it, or choose another folder"
                raise ConfigError(message, path=str(run_dir)) from None
        time.sleep(LOCK_POLL_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
