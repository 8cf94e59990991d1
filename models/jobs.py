"""The jobs of ``models.fit``, each from a checked request to the files that it leaves in the run folder.

Each job is a function ``job(request, must_stop)`` in the module that ``JOBS`` names; what they share is here.
"""

import json
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models import disk
from models.categories.labels import class_numbers, classes_of
from models.categories.spec import CategorySpec
from models.checkpoint import RunIdentity
from models.distributed import World
from models.errors import ConfigError, DeviceMissing, OutOfMemory
from models.loader import FrameStore, Pack, Split, open_pack, open_rows, room_on, settle
from models.networks import start_file
from models.specs import Recipe

JOBS = {  # name: (module, function)
    "train": ("models.training", "train_job"),
    "evaluate": ("models.evaluation", "evaluate_job"),
    "predict": ("models.predicting", "predict_job"),
    "export": ("models.export", "export_job"),
    "find_lr": ("models.lr_finder", "find_lr_job"),
}
PACKAGES = ("torch", "torchvision", "numpy", "pyarrow", "safetensors")
NO_MEMORY = ("DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
MIN_PHOTOS = {"train": 8, "val": 2, "test": 2}


@dataclass(frozen=True)
class Request:
    """RUN.json, checked, and which process of the run this is."""

    run_id: str
    run_dir: Path
    pack_dir: Path
    recipe: Recipe
    device: str  # "auto", "cpu" or "cuda"
    job: str
    seed: int
    threads: int | None
    labels: Path | None = None
    start_from: tuple[Path, ...] = ()
    trained: Path | None = None  # the run whose network predicts or is exported
    world: World = field(default_factory=World)


def run(request: Request, must_stop: Callable[[], bool]) -> None:
    """Do the job; memory that ran out comes back as ``OutOfMemory``.

    Only training uses more than one process: of those that were started, the first does any other job, as if alone.
    """
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    if request.job != "train" and not request.world.is_first:
        return
    if request.job != "train":
        request = replace(request, world=World())
    module, function = JOBS[request.job]
    try:
        getattr(import_module(module), function)(request, must_stop)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        batch_size = request.recipe.batch_size
        message = f"the memory of {request.device!r} ran out with batch_size {batch_size}: take a smaller one"
        raise OutOfMemory(message, batch_size=batch_size, fits=None, device=request.device) from error


def choose_device(name: str, world: World | None = None) -> torch.device:
    """The device of that name, "auto" being CUDA if there is any; a GPU for each process. Raises ``DeviceMissing``."""
    world = world or World()
    if name == "cuda" and not torch.cuda.is_available():
        raise DeviceMissing("this machine has no usable CUDA device: ask for device 'cpu' or 'auto'", device=name)
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    if world.local_rank >= (there := torch.cuda.device_count()):
        message = f"process {world.local_rank + 1} on this machine has no GPU, there are {there}: start {there} at most"
        raise DeviceMissing(message, device=name, devices=there)
    torch.cuda.set_device(world.local_rank)
    return torch.device("cuda", world.local_rank)


def open_splits(request: Request, *splits: str) -> Pack:
    """The splits of the request's pack; ``ConfigError`` if one has too few photos to work with."""
    pack = open_pack(request.pack_dir, request.recipe.pack, splits, request.labels)
    for split in pack.splits.values():
        _refuse_few(split)
    return pack


def open_test(request: Request, classes: Sequence[str]) -> Split:
    """The photos of test without their frames, before anything is learnt: what could not be judged is not trained.

    Raises ``ConfigError`` for too few, and as ``refuse_unknown_labels`` does.
    """
    test = open_rows(request.pack_dir, "test", request.labels)
    _refuse_few(test)
    refuse_unknown_labels(request.recipe, test, classes)
    return test


def _refuse_few(split: Split) -> None:
    if len(split) < (needed := MIN_PHOTOS[split.name]):
        message = (
            f"split {split.name!r} has {len(split)} photos and needs at least {needed}:"
            " collect more photos or change the split"
        )
        raise ConfigError(message, split=split.name, photos=len(split), needed=needed)


def open_stores(request: Request, splits: Mapping[str, Split], device: torch.device) -> dict[str, FrameStore]:
    """The photos of all splits that a run needs, for batches, with the large frames if the recipe has any.

    They share half of the free memory of a GPU.
    """
    needs_detail = request.recipe.pack.detail_height is not None
    stores = {name: FrameStore(split, device, needs_detail) for name, split in splits.items()}
    settle(stores.values(), room_on(device))
    return stores


def learnt_classes(recipe: Recipe, pack: Pack) -> tuple[str, ...]:
    """The labels of train, sorted, where the recipe's system learns labels.

    Raises ``ConfigError`` for photos without a label, and for labels of other splits that train lacks.
    """
    classes = classes_of(pack.splits["train"]) if isinstance(recipe.system, CategorySpec) else ()
    for split in pack.splits.values():
        refuse_unknown_labels(recipe, split, classes)
    return classes


def refuse_unknown_labels(recipe: Recipe, split: Split, classes: Sequence[str]) -> None:
    """Raise ``ConfigError`` for photos without a label, or with one that train lacks, where labels are learnt."""
    if isinstance(recipe.system, CategorySpec):
        class_numbers(split.labels, classes, split.name)


def identity_of_request(request: Request, pack: Pack, classes: Sequence[str]) -> RunIdentity:
    """What the run's checkpoints belong to."""
    recipe = request.recipe
    return RunIdentity(
        recipe_digest=recipe.digest,
        recipe_name=recipe.name,
        seed=request.seed,
        pack_digest=pack.digest,
        labels_sha256=None if request.labels is None else disk.sha256_of(request.labels),
        start_sha256s=tuple(disk.sha256_of(start_file(path)) for path in request.start_from),
        classes=tuple(classes),
    )


def describe(request: Request, pack: Pack, model: nn.Module, device: torch.device) -> dict[str, Any]:
    """What made a result: recipe, versions, commit, device, size of the network."""
    threads = f"cpu, {torch.get_num_threads()} threads"
    return {
        "run_id": request.run_id,
        "seed": request.seed,
        "recipe": request.recipe.as_dict(),
        "recipe_digest": request.recipe.digest,
        "pack_digest": pack.digest,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else threads,
        "processes": request.world.size,
        "packages": describe_packages(),
        "git_commit": git_commit(),
    }


def describe_packages() -> dict[str, str]:
    """The versions that decide what a network answers."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def git_commit() -> str | None:
    """The commit of the source tree that this module lies in, or None outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--verify", "--quiet", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replace ``path`` at once, so that a reader never sees half of it; raises ``DiskFull``."""
    disk.replace(path, (json.dumps(value, indent=2) + "\n").encode())


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device or the machine had no memory left (not every allocator has an exception of its own)."""
    is_typed = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return is_typed or any(words in str(error) for words in NO_MEMORY)
