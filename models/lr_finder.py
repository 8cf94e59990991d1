"""Which learning rate to take: a sweep from far too low to far too high, after which the network is as it was.

Source: Smith, "Cyclical Learning Rates" (WACV 2017, arXiv 1506.01186, 3.3); range, smoothing, end and the suggestions
"minimum", "steepest" and "valley" as in fastai's ``lr_find``.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models import loop
from models.distributed import World
from models.errors import Stopped
from models.freezing import refuse_unknown_prefixes, start_epoch
from models.jobs import Request, describe, open_stores, write_json
from models.loader import FrameStore
from models.optimisers import make_optimiser, set_rates
from models.specs import Recipe
from models.systems import System
from models.training import prepare

LOWEST, HIGHEST, BATCHES = 1e-7, 10.0, 100
SMOOTHING = 0.98  # weight of the losses before, in the bias-corrected running mean
HOPELESS = 4.0  # times the best smoothed loss: there the sweep ends


@dataclass(frozen=True)
class Sweep:
    """The rates that were tried, the smoothed loss that each met, and the rates to take by three rules.

    A rule that finds nothing (the loss never fell) suggests None.
    """

    lrs: list[float]
    losses: list[float]
    suggestions: dict[str, float | None]


def find_lr_job(request: Request, must_stop: Callable[[], bool]) -> None:
    """Look for a rate with which ``train_job`` might begin; leaves lr_finder.json. Raises ``Stopped`` if told to."""
    learner = prepare(request)
    store = open_stores(request, {"train": learner.pack.splits["train"]}, learner.device)["train"]
    sweep = find_lr(request.recipe, learner.system, learner.model, store, seed=request.seed, must_stop=must_stop)
    about = describe(request, learner.pack, learner.model, learner.device)
    write_json(request.run_dir / "lr_finder.json", {**asdict(sweep), **about})


def find_lr(
    recipe: Recipe, system: System, model: nn.Module, store: FrameStore, *, seed: int, must_stop: Callable[[], bool]
) -> Sweep:
    """Train for at most 100 steps at rates that rise from 1e-7 to 10, with the recipe's optimiser, then take all back.

    What is frozen in the first epoch is frozen here. Raises ``Stopped`` once ``must_stop`` says so.
    """
    refuse_unknown_prefixes(model, recipe)
    lrs, losses = np.geomspace(LOWEST, HIGHEST, BATCHES).tolist(), []
    planned = sweep_batches(recipe, store.keys, seed)
    parts = [loop.split_batch(rows_B, recipe.accumulate) for _, rows_B in planned]
    with unchanged(model), closing(store.stream([part_B for each in parts for part_B in each])) as photos:
        optimiser = make_optimiser(model, recipe.optimiser)
        start_epoch(model, recipe.frozen, 0)
        for step, (epoch, rows_B) in enumerate(planned):
            if must_stop():
                raise Stopped(f"stopped at step {step} of the search for a learning rate")
            torch.manual_seed(loop.step_seed(seed, step, 0))
            set_rates(optimiser, lrs[step])
            optimiser.zero_grad(set_to_none=True)
            drawn = [system.draw(next(photos), seed, epoch) for _ in parts[step]]
            loss = loop.add_gradients(recipe, system, model, drawn, len(drawn), len(rows_B), World()).get()
            if not math.isfinite(loss):
                break
            losses.append(loss)
            if (smooth := smoothed(losses))[-1] > HOPELESS * min(smooth):
                break
            if recipe.optimiser.max_gradient_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.optimiser.max_gradient_norm)
            optimiser.step()
    return Sweep(lrs[: len(losses)], smoothed(losses), suggestions(lrs[: len(losses)], smoothed(losses)))


def sweep_batches(recipe: Recipe, keys: NDArray[np.uint64], seed: int) -> list[tuple[int, loop.Rows]]:
    """(epoch, rows) of the batches of a sweep: those that training begins with, over as many epochs as it takes."""
    found: list[tuple[int, loop.Rows]] = []
    for epoch in range(BATCHES):
        found += [(epoch, rows_B) for rows_B in loop.epoch_batches(keys, seed, epoch, recipe.batch_size)]
        if len(found) >= BATCHES:
            break
    return found[:BATCHES]


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """What the block does to the network (weights, statistics, gradients, modes) and to generators is taken back."""
    tensors = [(tensor, tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())]
    learning = [(each, each.requires_grad, each.grad) for each in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    generators = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, before in tensors:
                    tensor.copy_(before)
            for parameter, learns, gradient in learning:
                parameter.requires_grad_(learns).grad = gradient
            for module, is_training in modes:
                module.training = is_training
            random.setstate(generators[0])
            np.random.set_state(generators[1])


def smoothed(losses: Sequence[float]) -> list[float]:
    """The exponential running mean of the losses, corrected for its start (Kingma and Ba, Adam, 3)."""
    mean, found = 0.0, []
    for count, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        found.append(mean / (1 - SMOOTHING**count))
    return found


def suggestions(lrs: Sequence[float], losses: Sequence[float]) -> dict[str, float | None]:
    """The rate to take by each rule, without the first tenth of a sweep, where the mean is of too few losses.

    minimum: a tenth of the rate of the lowest loss. steepest: where the loss falls fastest over the logarithm of the
    rate, before its minimum. valley: the middle of the longest fall.
    """
    lrs, losses = lrs[BATCHES // 10 :], losses[BATCHES // 10 :]
    lowest = int(np.argmin(losses)) if losses else 0
    if lowest == 0:
        return {"minimum": None, "steepest": None, "valley": None}
    slope = np.gradient(losses[: lowest + 1], np.log(lrs[: lowest + 1]))
    start, end = longest_fall(losses)
    return {"minimum": lrs[lowest] / 10, "steepest": lrs[int(slope.argmin())], "valley": lrs[(start + end) // 2]}


def longest_fall(losses: Sequence[float]) -> tuple[int, int]:
    """Where the longest strictly falling subsequence begins and ends (dynamic programming over pairs)."""
    length, start = [1] * len(losses), list(range(len(losses)))
    for later, loss in enumerate(losses):
        for earlier in range(later):
            if losses[earlier] > loss and length[earlier] + 1 > length[later]:
                length[later], start[later] = length[earlier] + 1, start[earlier]
    end = int(np.argmax(length))
    return start[end], end
