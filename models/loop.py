"""The training loop. It reads top to bottom; there are no callbacks.

Shapes: B photos of a batch, N validation samples.
Resuming is exact: an epoch's order and every draw are functions of (seed, epoch, photo), torch's generator is seeded by
(seed, step), the learning rate is a function of the step. What a step may do is decided before the weights change.
"""

import hashlib
import time
from collections.abc import Callable, Iterable
from contextlib import closing, nullcontext, suppress

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.averaging import Averaged
from models.checkpoint import Checkpoints, Progress, TrainingState
from models.distributed import World, refuse_small_shares
from models.errors import Stopped
from models.freezing import refuse_unknown_prefixes, start_epoch
from models.guards import SPREAD, Reading, admits, reason_to_stop, refuse_constant_outputs, refuse_divergence
from models.loader import FrameStore
from models.networks import forward, memory_figures
from models.optimisers import learning_rate, make_optimiser, set_rates
from models.predictions import predict
from models.randomness import uniform_draws
from models.specs import Recipe
from models.systems import Batch, System
from models.tracking import RunLog

PROGRESS_EVERY_S = 1.0
Rows = NDArray[np.int64]


def train(
    recipe: Recipe,
    system: System,
    model: nn.Module,
    stores: dict[str, FrameStore],
    checkpoints: Checkpoints,
    log: RunLog,
    *,
    seed: int,
    world: World,
    must_stop: Callable[[], bool],
) -> Progress:
    """Train ``model`` to the recipe's last epoch, or until it stops early, from its last checkpoint if there is one.

    Raises ``Stopped`` (all steps saved) once ``must_stop`` says so, ``TrainingDiverged``, ``ConstantOutputs``.
    """
    store = stores["train"]
    refuse_unknown_prefixes(model, recipe)
    optimiser = make_optimiser(model, recipe.optimiser)
    average = None if recipe.ema_decay is None else Averaged(model, recipe.ema_decay)
    state = TrainingState(model, optimiser, average)
    progress = checkpoints.load_last(state) or Progress()
    sizes = [len(rows_B) for rows_B in epoch_batches(store.keys, seed, 0, recipe.batch_size)]
    refuse_small_shares(sizes, recipe.accumulate, world)
    totals = {"epochs": recipe.epochs, "steps": len(sizes) * recipe.epochs}
    log.write("start", step=progress.step, epoch=progress.epoch, **totals)
    started_s = reported_s = time.monotonic() - progress.seconds

    for epoch in range(progress.epoch, 0 if progress.stopped_early else recipe.epochs):
        epoch_started_s, seen_before = time.monotonic(), progress.photos_seen
        start_epoch(model, recipe.frozen, epoch)
        batches = epoch_batches(store.keys, seed, epoch, recipe.batch_size)[progress.step_in_epoch :]
        parts = [split_batch(world.share(rows_B), recipe.accumulate) for rows_B in batches]
        with closing(store.stream([part_B for parts_of_batch in parts for part_B in parts_of_batch])) as photos:
            for rows_B, parts_of_batch in zip(batches, parts, strict=True):
                if world.broadcast_flag(must_stop()):
                    checkpoints.save(state, progress, None)
                    raise Stopped(f"stopped at step {progress.step}")

                torch.manual_seed(step_seed(seed, progress.step, world.rank))
                lr = learning_rate(recipe, progress.step, len(sizes))
                set_rates(optimiser, lr)
                optimiser.zero_grad(set_to_none=True)
                drawn = (system.draw(next(photos), seed, epoch) for _ in parts_of_batch)
                loss = add_gradients(recipe, system, model, drawn, len(parts_of_batch), len(rows_B), world).get()
                if admits(loss, lr, progress, recipe.guards):
                    if recipe.optimiser.max_gradient_norm is not None:
                        nn.utils.clip_grad_norm_(model.parameters(), recipe.optimiser.max_gradient_norm)
                    optimiser.step()
                    if average is not None:
                        average.update(model, progress.step)
                else:
                    log.write("skipped", step=progress.step, loss=loss, lr=lr)

                progress.step, progress.step_in_epoch = progress.step + 1, progress.step_in_epoch + 1
                progress.loss_sum += loss * len(rows_B)
                progress.photos_seen += len(rows_B)
                progress.seconds = (now_s := time.monotonic()) - started_s
                if now_s - reported_s >= PROGRESS_EVERY_S:
                    reported_s, rate = now_s, (progress.photos_seen - seen_before) / (now_s - epoch_started_s)
                    where = {"epoch": epoch + 1, "step": progress.step, **totals}
                    log.write("progress", **where, loss=loss, lr=lr, photos_per_s=rate)

        rate = (progress.photos_seen - seen_before) / (time.monotonic() - epoch_started_s)
        checkpoints.save(state, progress, None)  # the epoch's steps stay, whatever becomes of its validation
        last_lr = learning_rate(recipe, progress.step - 1, len(sizes))
        figures = {"loss": progress.loss_sum / progress.photos_seen, "lr": last_lr}
        with nullcontext() if average is None else average.apply_to(model):
            figures |= validate_together(recipe, system, model, stores["val"], must_stop, world)
        is_best = end_epoch(recipe, progress, figures)
        progress.seconds = time.monotonic() - started_s
        spent = {"seconds": time.monotonic() - epoch_started_s, "photos_per_s": rate, **memory_figures(store.device)}
        log.write("epoch", epoch=epoch + 1, step=progress.step, **totals, **figures, is_best=is_best, **spent)
        checkpoints.save(state, progress, figures["val_loss"])
        if progress.stopped_early:
            break

    found = {name: getattr(progress, name) for name in ("best_epoch", "best_val_loss", "stopped_early", "seconds")}
    log.write("end", step=progress.step, skipped_steps=progress.skipped_steps, **found)
    return progress


def add_gradients(
    recipe: Recipe,
    system: System,
    model: nn.Module,
    drawn: Iterable[Batch],
    parts: int,
    photos: int,
    world: World,
) -> Reading:
    """Add to each parameter the gradient of the mean loss over a batch of ``photos``, of which ``drawn`` is our part.

    Every sample counts 1 / ``photos``, so neither unequal ``parts`` nor the number of processes changes the gradient.
    Gradients are summed over the processes once, after the last part. The mean loss sets off to the host before the
    last backward pass.
    """
    total, reading = 0.0, None
    for part, batch in enumerate(drawn, 1):
        outputs = forward(model, batch.inputs, recipe)
        loss = system.losses(outputs, batch.targets)["total"].sum() / photos
        total = total + loss.detach()
        if part == parts:
            reading = Reading(world.sum(total.clone()))
        torch.autograd.backward(loss)
    world.sum_gradients(model)
    return reading


def validate_together(
    recipe: Recipe, system: System, model: nn.Module, store: FrameStore, must_stop: Callable[[], bool], world: World
) -> dict[str, float]:
    """``validate`` in the first process, for which the others wait; all have its figures, or raise ``Stopped``."""
    found: dict[str, float] | None = None
    with suppress(Stopped):
        found = validate(recipe, system, model, store, must_stop) if world.is_first else None
    if (found := world.broadcast(found)) is None:
        raise Stopped("stopped while an epoch was validated")
    return found


def validate(
    recipe: Recipe, system: System, model: nn.Module, store: FrameStore, must_stop: Callable[[], bool] = lambda: False
) -> dict[str, float]:
    """Figures on the fixed samples of val: the loss, its terms, the system's own, and each output's spread.

    Raises ``Stopped`` once ``must_stop`` says so.
    """
    samples = system.samples(store.split)
    outputs = predict(model, system, store, samples, recipe, must_stop)
    tensors = {name: torch.as_tensor(values, dtype=torch.float32) for name, values in outputs.items()}
    terms = system.losses(tensors, {name: _as_target(values) for name, values in samples.targets.items()})
    means = {
        name: float(np.average(term_N.double().numpy(), weights=samples.weight_N)) for name, term_N in terms.items()
    }
    return {
        "val_loss": means.pop("total"),
        **{f"val_loss_{name}": mean for name, mean in means.items()},
        **{f"val_{name}": value for name, value in system.figures(outputs, samples).items()},
        **{f"{SPREAD}{name}": float(values.std(axis=0).max()) for name, values in outputs.items()},
    }


def _as_target(values: NDArray[np.float64]) -> Tensor:
    """A target as the network's outputs are compared with it: fractions in float32, whole numbers as they are."""
    tensor = torch.as_tensor(values)
    return tensor.float() if tensor.is_floating_point() else tensor


def end_epoch(recipe: Recipe, progress: Progress, figures: dict[str, float]) -> bool:
    """Note an epoch's figures in ``progress`` and whether it was the last; whether it was the best so far.

    Raises ``TrainingDiverged`` and ``ConstantOutputs``.
    """
    epoch, val_loss = progress.epoch + 1, figures["val_loss"]
    refuse_divergence(val_loss, progress.step, figures["lr"])
    refuse_constant_outputs(figures, epoch, recipe.guards)
    if is_best := progress.best_val_loss is None or val_loss < progress.best_val_loss:
        progress.best_val_loss, progress.best_epoch = val_loss, epoch
    progress.epoch, progress.step_in_epoch, progress.loss_sum, progress.photos_seen = epoch, 0, 0.0, 0
    progress.history.append({"epoch": epoch, **figures})
    progress.stopped_early = reason_to_stop([each["val_loss"] for each in progress.history], recipe.early_stopping)
    return is_best


def epoch_batches(keys: NDArray[np.uint64], seed: int, epoch: int, batch_size: int) -> list[Rows]:
    """The rows of each batch: all photos once, in the order of (seed, epoch), in parts of nearly equal size.

    None has more than ``batch_size`` rows, unless one had a single row otherwise (batch normalisation).
    """
    order = np.argsort(uniform_draws("order", seed, epoch, keys, 1)[:, 0], kind="stable")
    return np.array_split(order, max(1, min(-(-len(keys) // batch_size), len(keys) // 2)))


def split_batch(rows_B: Rows, accumulate: int) -> list[Rows]:
    """The rows in that many parts of nearly equal size, or in fewer, so that each has two (batch normalisation)."""
    return np.array_split(rows_B, max(1, min(accumulate, len(rows_B) // 2)))


def step_seed(seed: int, step: int, rank: int) -> int:
    """What torch's generators are seeded with before a step of one process (dropout, and whatever else is drawn)."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{step}/{rank}".encode(), digest_size=8).digest())
