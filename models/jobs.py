"""The jobs of ``models.fit``, each from a checked request to the files that it leaves in the run folder."""

import json
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
import torch
from torch import nn

from models.checkpoint import Checkpoints, RunIdentity
from models.errors import ConfigError, DeviceMissing, OutOfMemory
from models.evaluation import figures, prediction_rows, read_outputs
from models.loader import FrameStore, Pack, open_pack
from models.loop import MetricsLog, train
from models.metrics import best_threshold
from models.networks import build_model
from models.predictions import fixed_samples, predict
from models.recipes import Recipe

PACKAGES = ("torch", "torchvision", "numpy", "pyarrow", "safetensors")
MIN_PHOTOS = {"train": 8, "val": 2, "test": 2}


@dataclass(frozen=True)
class Request:
    """RUN.json, checked."""

    run_id: str
    run_dir: Path
    pack_dir: Path
    recipe: Recipe
    device: Literal["auto", "cpu", "cuda"]
    job: Literal["train", "evaluate"]
    seed: int
    threads: int | None


def run(request: Request, must_stop: Callable[[], bool]) -> None:
    """Do the job; out-of-memory errors come back as ``OutOfMemory``."""
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    try:
        {"train": train_job, "evaluate": evaluate_job}[request.job](request, must_stop)
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        batch_size = request.recipe.batch_size
        message = f"the memory of {request.device!r} ran out with batch_size {batch_size}: take a smaller one"
        raise OutOfMemory(message, batch_size=batch_size, device=request.device) from error


def train_job(request: Request, must_stop: Callable[[], bool]) -> None:
    """Train; leaves metrics.jsonl, checkpoint/ and train.json."""
    device, pack = choose_device(request.device), _open(request, "train", "val")
    model = build_model(request.recipe, request.seed, device)
    stores = {name: FrameStore(split, device) for name, split in pack.splits.items()}
    checkpoints = Checkpoints(request.run_dir, _identity(request, pack))
    log = MetricsLog(request.run_dir / "metrics.jsonl")
    progress = train(request.recipe, model, stores, checkpoints, log, seed=request.seed, must_stop=must_stop)
    final = {
        "photos": {name: len(split) for name, split in pack.splits.items()},
        "steps": progress.step,
        "epochs": progress.epoch,
        "best_epoch": progress.best_epoch,
        "best_val_loss": progress.best_val_loss,
        "seconds": progress.seconds,
        "history": progress.history,
    }
    write_json(request.run_dir / "train.json", {**describe(request, pack, model, device), "final": final})


def evaluate_job(request: Request, must_stop: Callable[[], bool]) -> None:
    """Judge the best epoch: threshold on val, then test, once; leaves predictions.parquet and evaluation.json."""
    recipe, device = request.recipe, choose_device(request.device)
    pack = _open(request, "val", "test")
    model = build_model(recipe, request.seed, device)
    progress = Checkpoints(request.run_dir, _identity(request, pack)).load_best(model)

    val = FrameStore(pack.splits["val"], device)
    val_samples = fixed_samples(val.keys, recipe)
    val_outputs_N5 = predict(model, val, val_samples, recipe)
    threshold = best_threshold(val_outputs_N5[:, 4], val_samples.is_crop_N, val_samples.weight_N)

    test = FrameStore(pack.splits["test"], device)
    samples = fixed_samples(test.keys, recipe)
    answers = read_outputs(predict(model, test, samples, recipe), threshold)
    found = {
        "split": "test",
        "photos": len(test),
        "samples": len(samples.photo_N),
        "threshold": threshold,
        "threshold_chosen_on": "val",
        "epoch": progress.best_epoch,
        "figures": figures(samples, answers, len(test), recipe),
        **describe(request, pack, model, device),
    }
    pq.write_table(prediction_rows(test.split, samples, answers), request.run_dir / ".predictions", compression="zstd")
    (request.run_dir / ".predictions").replace(request.run_dir / "predictions.parquet")
    write_json(request.run_dir / "evaluation.json", found)


def choose_device(name: str) -> torch.device:
    """The device of that name, "auto" being CUDA if there is any; raises ``DeviceMissing``."""
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceMissing("this machine has no usable CUDA device: ask for device 'cpu' or 'auto'", device=name)
    chosen = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(chosen if name == "auto" else name)


def describe(request: Request, pack: Pack, model: nn.Module, device: torch.device) -> dict[str, Any]:
    """What made a result: recipe, versions, commit, device, size of the network."""
    return {
        "run_id": request.run_id,
        "seed": request.seed,
        "recipe": request.recipe.as_dict(),
        "recipe_digest": request.recipe.digest,
        "pack_digest": pack.digest,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"cpu, {torch.get_num_threads()} threads",
        "packages": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "git_commit": git_commit(),
    }


def git_commit() -> str | None:
    """The commit of the source tree that this module lies in, or None outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--verify", "--quiet", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replace ``path`` at once, so that a reader never sees half of it."""
    fresh = path.with_name(f".{path.name}")
    fresh.write_text(json.dumps(value, indent=2) + "\n")
    fresh.replace(path)


def _open(request: Request, *splits: str) -> Pack:
    """The splits of the request's pack; ``ConfigError`` if one has too few photos to work with."""
    pack = open_pack(request.pack_dir, request.recipe.pack, splits)
    for name, split in pack.splits.items():
        if len(split) < MIN_PHOTOS[name]:
            message = (
                f"split {name!r} has {len(split)} photos and needs at least {MIN_PHOTOS[name]}:"
                " collect more photos or change the split"
            )
            raise ConfigError(message, split=name, photos=len(split), needed=MIN_PHOTOS[name])
    return pack


def _identity(request: Request, pack: Pack) -> RunIdentity:
    return RunIdentity(request.recipe.digest, request.recipe.name, request.seed, pack.digest)


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether the device or the machine had no memory left (the CPU allocator has no exception of its own)."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)
