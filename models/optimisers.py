"""Optimisers by name, each parameter at its own rate, and the learning rate as a pure function of the step.

Nothing of a schedule is ever saved: a resumed run asks for the rate of its next step.
Source: one-cycle: Smith and Topin, "Super-Convergence" (arXiv 1708.07120), in the form of fastai's ``fit_one_cycle``
(both halves cosines, from 1/25 of the peak); cosine: Loshchilov and Hutter, SGDR (arXiv 1608.03983, eq. 5); AdamW: the
same, arXiv 1711.05101; no decay of biases and normalisation: He et al., "Bag of Tricks" (arXiv 1812.01187, 3.1);
rates by depth: Howard and Ruder, ULMFiT (arXiv 1801.06146, 3.2).
"""

import math
from typing import Any

import torch
from torch import nn

from models.specs import OptimiserSpec, Recipe, ScheduleSpec

ONE_CYCLE_START = 1 / 25  # of the peak


def make_optimiser(model: nn.Module, spec: OptimiserSpec) -> torch.optim.Optimizer:
    """The recipe's optimiser over all parameters, also those that do not learn yet: without a gradient they stay."""
    groups = parameter_groups(model, spec)
    fused = {"fused": True} if next(model.parameters()).is_cuda else {}
    if spec.name == "sgd":
        return torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum, **fused)
    if spec.name == "rmsprop":
        return torch.optim.RMSprop(groups, lr=spec.lr, momentum=spec.momentum)
    if spec.name == "adam":
        return torch.optim.Adam(groups, lr=spec.lr, **fused)
    return torch.optim.AdamW(groups, lr=spec.lr, **fused)


def parameter_groups(model: nn.Module, spec: OptimiserSpec) -> list[dict[str, Any]]:
    """Parameters of one rate and one decay together; ``rate_factor`` is the group's part of the learning rate.

    Weight decay spares biases and normalisation (tensors of one dimension).
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        factor = next((factor for prefix, factor in spec.rate_factors if name.startswith(prefix)), 1.0)
        decay = spec.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((factor, decay), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "rate_factor": factor}
        for (factor, decay), parameters in groups.items()
    ]


def set_rates(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Give each group its part of the rate ``lr``."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["rate_factor"]


@torch.no_grad()
def match_memory_order(optimiser: torch.optim.Optimizer) -> None:
    """Give each slot that has its parameter's shape the parameter's order in memory, as if it had been made of it.

    Fused kernels walk over both in the order of their memory: a slot in another order would meet the wrong weights.
    """
    for parameter, slots in optimiser.state.items():
        for name, slot in slots.items():
            if isinstance(slot, torch.Tensor) and slot.shape == parameter.shape:
                slots[name] = torch.empty_like(parameter, dtype=slot.dtype).copy_(slot)


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The rate of one step (the first is 0) of a run over all of the recipe's epochs."""
    factor = rate_factor(recipe.schedule, step, steps_per_epoch, steps_per_epoch * recipe.epochs)
    return recipe.optimiser.lr * factor


def rate_factor(spec: ScheduleSpec, step: int, steps_per_epoch: int, total_steps: int) -> float:
    """The part of the recipe's rate that counts at ``step``, in [0, 1] unless ``decay`` exceeds 1.

    Over w warm-up steps the factor grows by 1 / (w + 1) a step, so that step w is the first at full rate.
    """
    warmup_steps = min(round(spec.warmup_fraction * total_steps), total_steps - 1)
    if step < warmup_steps and spec.kind == "one_cycle":
        return 1 - (1 - ONE_CYCLE_START) * _half_cosine(step / warmup_steps)
    warmth = min(1.0, (step + 1) / (warmup_steps + 1))
    if spec.kind in ("cosine", "one_cycle"):
        return warmth * _half_cosine(max(0, step - warmup_steps) / (total_steps - warmup_steps))
    epoch = step // steps_per_epoch
    if spec.kind == "exponential":
        return warmth * spec.decay**epoch
    if spec.kind == "step":
        return warmth * spec.decay ** (epoch // spec.step_epochs)
    return warmth


def _half_cosine(done: float) -> float:
    """From 1 at 0 down to 0 at 1."""
    return (1 + math.cos(math.pi * done)) / 2
