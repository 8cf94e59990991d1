"""The training loop. It reads top to bottom; there are no callbacks.

Shapes: B batch, N validation samples; outputs are x1, x2, y1, y2 and the crop logit.
Resuming is exact: an epoch's order and every draw are functions of (seed, epoch, photo), the rate is one of the step.
"""

import json
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.checkpoint import Checkpoints, Progress
from models.errors import ConstantOutputs, TrainingDiverged
from models.loader import FrameStore
from models.losses import crop_loss
from models.networks import forward
from models.predictions import fixed_samples, predict
from models.recipes import OptimiserSpec, Recipe
from models.transforms import plan_samples, render, uniform_draws

PROGRESS_EVERY_S = 1.0
CONSTANT_STD = 1e-4  # of edges in fractions and of a logit; seed 000's network had about 1e-6


class Stopped(Exception):
    """The run was asked to stop; its checkpoint is saved."""


class MetricsLog:
    """Appends one JSON line per event to ``metrics.jsonl``, at once; nothing is ever taken back.

    Events: start, progress (about every second), epoch (epochs count from 1), end. A run that was killed and resumed
    starts again with "start"; an epoch that then stands twice was trained twice, with the same result.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, event: str, **values: Any) -> None:
        """One line: the event, the time (UTC), the values."""
        line = {"event": event, "at": datetime.now(UTC).isoformat(timespec="milliseconds"), **values}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def train(
    recipe: Recipe,
    model: nn.Module,
    stores: dict[str, FrameStore],
    checkpoints: Checkpoints,
    log: MetricsLog,
    *,
    seed: int,
    must_stop: Callable[[], bool],
) -> Progress:
    """Train ``model`` to the recipe's last epoch, from its last checkpoint if there is one.

    Raises ``Stopped`` (with a checkpoint saved) once ``must_stop`` says so, ``TrainingDiverged``, ``ConstantOutputs``.
    """
    store, device = stores["train"], stores["train"].device
    optimiser = make_optimiser(model, recipe.optimiser)
    progress = checkpoints.load_last(model, optimiser) or Progress()
    steps_per_epoch = len(epoch_batches(store.keys, seed, 0, recipe.batch_size))
    total_steps = steps_per_epoch * recipe.epochs
    log.write("start", step=progress.step, epoch=progress.epoch, epochs=recipe.epochs, steps=total_steps)
    started_s = reported_s = time.monotonic()
    earlier_s = progress.seconds

    for epoch in range(progress.epoch, recipe.epochs):
        epoch_started_s, first_step = time.monotonic(), progress.step_in_epoch
        batches = epoch_batches(store.keys, seed, epoch, recipe.batch_size)
        seen_here = 0
        for rows_B in batches[first_step:]:
            if must_stop():
                progress.seconds = earlier_s + time.monotonic() - started_s
                checkpoints.save(model, optimiser, progress, is_best=False)
                raise Stopped(f"stopped at step {progress.step}")

            model.train()
            plan = plan_samples(store.keys[rows_B], seed, epoch, recipe)
            image_B5HW = render(store.batch(rows_B), plan, recipe)
            rectangle_B4 = torch.as_tensor(plan.rectangle_N4, dtype=torch.float32, device=device)
            is_crop_B = torch.as_tensor(plan.is_crop_N, dtype=torch.float32, device=device)
            outputs_B5 = forward(model, image_B5HW, recipe)
            loss = crop_loss(outputs_B5, rectangle_B4, is_crop_B, recipe.loss).total_B.mean()

            lr = learning_rate(recipe.optimiser, progress.step, steps_per_epoch, total_steps)
            for group in optimiser.param_groups:
                group["lr"] = lr
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            if recipe.optimiser.max_gradient_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.optimiser.max_gradient_norm)
            optimiser.step()

            refuse_divergence(loss_value := loss.item(), progress.step, lr)
            progress.step, progress.step_in_epoch = progress.step + 1, progress.step_in_epoch + 1
            progress.loss_sum += loss_value * len(rows_B)
            progress.photos_seen += len(rows_B)
            seen_here += len(rows_B)
            if (now_s := time.monotonic()) - reported_s >= PROGRESS_EVERY_S:
                reported_s = now_s
                rate = seen_here / (now_s - epoch_started_s)
                where = {"epoch": epoch + 1, "epochs": recipe.epochs, "step": progress.step, "steps": total_steps}
                log.write("progress", **where, loss=loss_value, lr=lr, photos_per_s=rate)

        train_s = time.monotonic() - epoch_started_s
        figures = {"loss": progress.loss_sum / progress.photos_seen}
        figures |= validate(model, stores["val"], recipe, epoch + 1)
        refuse_divergence(figures["val_loss"], progress.step, lr)
        is_best = progress.best_val_loss is None or figures["val_loss"] < progress.best_val_loss
        if is_best:
            progress.best_val_loss, progress.best_epoch = figures["val_loss"], epoch + 1
        progress.epoch, progress.step_in_epoch, progress.loss_sum, progress.photos_seen = epoch + 1, 0, 0.0, 0
        progress.seconds = earlier_s + time.monotonic() - started_s
        progress.history.append({"epoch": epoch + 1, **figures, "lr": lr})
        checkpoints.save(model, optimiser, progress, is_best=is_best)
        where = {"epoch": epoch + 1, "epochs": recipe.epochs, "step": progress.step, "steps": total_steps}
        spent = {"seconds": time.monotonic() - epoch_started_s, "photos_per_s": seen_here / train_s}
        log.write("epoch", **where, **figures, lr=lr, is_best=is_best, **spent)

    best = {"best_epoch": progress.best_epoch, "best_val_loss": progress.best_val_loss}
    log.write("end", step=progress.step, **best, seconds=progress.seconds)
    return progress


def validate(model: nn.Module, store: FrameStore, recipe: Recipe, epoch: int) -> dict[str, float]:
    """Figures on the fixed validation samples; raises ``ConstantOutputs`` if the network no longer tells them apart."""
    samples = fixed_samples(store.keys, recipe)
    outputs_N5 = predict(model, store, samples, recipe)
    spread = float(outputs_N5.std(axis=0).max())
    if epoch > recipe.constant_outputs_after_epoch and spread < CONSTANT_STD:
        message = (
            f"after epoch {epoch} the network answers the same for every photo (standard deviation {spread:.1e}):"
            " lower the learning rate, or look at the packed frames"
        )
        raise ConstantOutputs(message, epoch=epoch, output_std=spread)
    targets = (samples.rectangle_N4, samples.is_crop_N)
    rectangle_N4, is_crop_N = (torch.as_tensor(target, dtype=torch.float32) for target in targets)
    loss_N = crop_loss(torch.as_tensor(outputs_N5), rectangle_N4, is_crop_N, recipe.loss).total_B.numpy()
    right_N = (outputs_N5[:, 4] >= 0) == samples.is_crop_N
    weight_N = samples.weight_N
    return {
        "val_loss": float(np.average(loss_N, weights=weight_N)),
        "val_crop_accuracy": float(np.average(right_N, weights=weight_N)),
        "output_std": spread,
    }


def refuse_divergence(loss: float, step: int, lr: float) -> None:
    """Raise ``TrainingDiverged`` if the loss is no number any more."""
    if not math.isfinite(loss):
        message = f"the loss became {loss} at step {step} (learning rate {lr:.2g}): lower the learning rate"
        raise TrainingDiverged(message, step=step, loss=str(loss), lr=lr)


def epoch_batches(keys: NDArray[np.uint64], seed: int, epoch: int, batch_size: int) -> list[NDArray[np.int64]]:
    """The rows of each batch: all photos once, in the order of (seed, epoch), in parts of nearly equal size."""
    order = np.argsort(uniform_draws(seed, epoch, keys, 1)[:, 0], kind="stable")
    return np.array_split(order, max(1, round(len(keys) / batch_size)))


def learning_rate(spec: OptimiserSpec, step: int, steps_per_epoch: int, total_steps: int) -> float:
    """The rate of one step: a function of the step alone, so there is no schedule to save."""
    done = step / max(1, total_steps)
    if spec.schedule == "exponential":
        return spec.lr * spec.decay ** (step // steps_per_epoch)
    if spec.schedule == "cosine":
        return spec.lr * (1 + math.cos(math.pi * done)) / 2
    if spec.schedule == "one_cycle":
        if done < spec.warmup_fraction:
            return spec.lr * (1 - 0.96 * (1 + math.cos(math.pi * done / spec.warmup_fraction)) / 2)
        return spec.lr * (1 + math.cos(math.pi * (done - spec.warmup_fraction) / (1 - spec.warmup_fraction))) / 2
    return spec.lr


def make_optimiser(model: nn.Module, spec: OptimiserSpec) -> torch.optim.Optimizer:
    """The recipe's optimiser; weight decay spares biases and normalisation (tensors of one dimension)."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": spec.weight_decay}, {"params": others, "weight_decay": 0.0}]
    if spec.name == "sgd":
        return torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum)
    if spec.name == "adam":
        return torch.optim.Adam(groups, lr=spec.lr)
    return torch.optim.AdamW(groups, lr=spec.lr)
