"""The job "train": from a pack to checkpoints and train.json, in one process or several; and what fits into memory."""

import gc
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from models.averaging import Averaged
from models.categories.labels import describe_classes
from models.checkpoint import Checkpoints, Progress
from models.errors import OutOfMemory
from models.freezing import never_learnt, refuse_frozen_chance
from models.jobs import (
    Request,
    choose_device,
    describe,
    identity_of_request,
    is_out_of_memory,
    learnt_classes,
    open_splits,
    open_stores,
    open_test,
    write_json,
)  # fmt: skip
from models.learnt import LEARNT, Learnt, learnt_by, learnt_together, refuse_learnt
from models.loader import FrameStore, Pack, PhotoBatch
from models.loop import train
from models.networks import build_model, forward, refuse_shown_otherwise, start_file, start_from, system_of
from models.optimisers import make_optimiser
from models.specs import Recipe
from models.systems import System
from models.tracking import RunLog

FINAL = ("best_epoch", "best_val_loss", "stopped_early", "skipped_steps", "seconds", "history")  # of Progress


@dataclass(frozen=True)
class Learner:
    """All that a request asks to be trained: the opened pack, the system and the network with its first weights."""

    pack: Pack
    classes: tuple[str, ...]
    system: System
    model: nn.Module
    device: torch.device
    starts: list[dict[str, Any]]  # an account of the files that the weights started from
    learnt: Learnt  # the photos of train, and those that these files have learnt


def prepare(request: Request) -> Learner:
    """Everything up to the first step; refuses whatever could not be trained."""
    recipe, device = request.recipe, choose_device(request.device, request.world)
    pack = open_splits(request, "train", "val")
    classes = learnt_classes(recipe, pack)
    test = open_test(request, classes)
    for path in request.start_from:
        refuse_shown_otherwise(path, recipe)
    known = {path: learnt_by(start_file(path)) for path in request.start_from}
    refuse_learnt(known, (pack.splits["val"], test))
    system = system_of(recipe, classes)
    model = build_model(system, request.seed, device)
    first = never_learnt(model, recipe)
    starts = start_from(model, request.start_from)
    refuse_frozen_chance(model, recipe, first)
    for start, path in zip(starts, request.start_from, strict=True):
        start["learnt_photos"] = None if (each := known[path]) is None else len(each.keys_N)
    learnt = learnt_together(pack.splits["train"].keys, known.values())
    return Learner(pack, classes, system, request.world.prepare(model, device), device, starts, learnt)


def train_job(request: Request, must_stop: Callable[[], bool]) -> None:
    """Train; leaves metrics.jsonl, tensorboard/, checkpoint/ and train.json. Raises ``Stopped`` if told to."""
    learner, world, folder = prepare(request), request.world, request.run_dir
    identity = identity_of_request(request, learner.pack, learner.classes)
    beside = {LEARNT: learner.learnt.as_bytes()}
    checkpoints = Checkpoints(folder, identity, request.recipe.keep_best, is_writer=world.is_first, beside=beside)
    log = RunLog(folder / "metrics.jsonl", folder / "tensorboard") if world.is_first else RunLog(None)
    with closing(log), world.joined(learner.device):
        progress = _train(request, learner, checkpoints, log, must_stop)
    if world.is_first:
        about = describe(request, learner.pack, learner.model, learner.device)
        about |= describe_classes(learner.pack.splits["train"]) if learner.classes else {"classes": []}
        about["start_from"] = learner.starts
        about["learnt"] = {"photos": len(learner.learnt.keys_N), "are_all": learner.learnt.are_all}
        write_json(folder / "train.json", {**about, **_outcome(progress, learner.pack)})


def _outcome(progress: Progress, pack: Pack) -> dict[str, Any]:
    """How a training ended, for train.json."""
    final = {
        "photos": {name: len(split) for name, split in pack.splits.items()},
        "steps": progress.step,
        "epochs": progress.epoch,
        **{name: getattr(progress, name) for name in FINAL},
    }
    return {"stopped_early": progress.stopped_early, "final": final}


def _train(
    request: Request, learner: Learner, checkpoints: Checkpoints, log: RunLog, must_stop: Callable[[], bool]
) -> Progress:
    """Train; raises ``OutOfMemory`` with what would fit."""
    recipe, device = request.recipe, learner.device
    stores: Mapping[str, FrameStore] = {}
    try:
        stores = open_stores(request, learner.pack.splits, device)
        keywords: dict[str, Any] = {"seed": request.seed, "world": request.world, "must_stop": must_stop}
        return train(recipe, learner.system, learner.model, stores, checkpoints, log, **keywords)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Only here, where the error is gone, has everything that it held been let go.
    photos = -(-recipe.batch_size // (recipe.accumulate * request.world.size))
    fits = None
    if stores and request.world.size == 1:  # else normalisation over the whole batch would wait for the others
        fits = largest_fitting(recipe, learner.system, learner.model, stores["train"], photos)
    raise out_of_memory(request, photos, fits)


def largest_fitting(recipe: Recipe, system: System, model: nn.Module, store: FrameStore, photos: int) -> int | None:
    """How many photos get through a whole step at once, found by halving ``photos``; None if not even two do.

    Spoils the weights.
    """
    while (photos := photos // 2) >= 2:
        gc.collect()
        if store.device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            _try_step(recipe, system, model, store.batch(np.arange(photos) % len(store)))
            return photos
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
    return None


def _try_step(recipe: Recipe, system: System, model: nn.Module, photos: PhotoBatch) -> None:
    """One step with everything that takes memory: gradients, the optimiser's state, an average of the weights."""
    average = None if recipe.ema_decay is None else Averaged(model, recipe.ema_decay)
    optimiser = make_optimiser(model.train(), recipe.optimiser)
    optimiser.zero_grad(set_to_none=True)
    batch = system.draw(photos, seed=0, epoch=0)
    loss = system.losses(forward(model, batch.inputs, recipe), batch.targets)["total"].mean()
    torch.autograd.backward(loss)
    optimiser.step()
    if average is not None:
        average.update(model, step=0)


def out_of_memory(request: Request, photos: int, fits: int | None) -> OutOfMemory:
    """The error for ``photos`` in one pass where ``fits`` are possible (None: unknown); says what to set."""
    recipe = request.recipe
    message = f"the memory of {request.device!r} ran out with {photos} of {recipe.batch_size} photos at a time"
    if fits is None:
        message += ": take a larger accumulate, smaller inputs, a smaller network or another device"
    else:
        message += f"; {fits} at a time fit: set accumulate to {-(-recipe.batch_size // fits)}"
    return OutOfMemory(message, batch_size=recipe.batch_size, fits=fits, device=request.device)
