"""Every optimiser and every schedule against its closed form; who gets which rate and which decay."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from models.optimisers import make_optimiser, parameter_groups, rate_factor, set_rates
from models.specs import OptimiserSpec, ScheduleSpec

LR, DECAY, MOMENTUM = 0.1, 0.01, 0.8
GRADIENTS = np.array([[[0.5, -2.0], [1.0, 0.0]], [[1.0, 1.0], [-3.0, 0.25]], [[0.1, 0.2], [0.3, 0.4]]])


def sgd(weight, gradient, slot):
    """Momentum in the form of Sutskever et al. (2013) as torch has it: the rate is outside of the velocity."""
    gradient = gradient + DECAY * weight
    slot["v"] = MOMENTUM * slot["v"] + gradient if "v" in slot else gradient
    return weight - LR * slot["v"]


def rmsprop(weight, gradient, slot):
    """Tieleman and Hinton's running mean square with alpha 0.99, and momentum."""
    gradient = gradient + DECAY * weight
    slot["s"] = 0.99 * slot.get("s", 0) + 0.01 * gradient**2
    slot["v"] = MOMENTUM * slot.get("v", 0) + gradient / (np.sqrt(slot["s"]) + 1e-8)
    return weight - LR * slot["v"]


def adam_step(gradient, slot):
    """Kingma and Ba, algorithm 1."""
    slot["t"] = slot.get("t", 0) + 1
    slot["m"] = 0.9 * slot.get("m", 0) + 0.1 * gradient
    slot["v"] = 0.999 * slot.get("v", 0) + 0.001 * gradient**2
    first, second = slot["m"] / (1 - 0.9 ** slot["t"]), slot["v"] / (1 - 0.999 ** slot["t"])
    return LR * first / (np.sqrt(second) + 1e-8)


def adam(weight, gradient, slot):
    """Decay as part of the gradient."""
    return weight - adam_step(gradient + DECAY * weight, slot)


def adamw(weight, gradient, slot):
    """Loshchilov and Hutter, algorithm 2: decay beside the gradient."""
    return weight * (1 - LR * DECAY) - adam_step(gradient, slot)


@pytest.mark.parametrize("rule", [sgd, adam, adamw, rmsprop])
def test_an_optimiser_takes_the_steps_of_its_paper(rule) -> None:
    """Three steps with decay and momentum agree with the closed form."""
    model, expected, slot = nn.Linear(2, 2, bias=False).double(), np.array([[1.0, -1.0], [0.5, 2.0]]), {}
    with torch.no_grad():
        model.weight.copy_(torch.as_tensor(expected))
    optimiser = make_optimiser(model, OptimiserSpec(rule.__name__, LR, weight_decay=DECAY, momentum=MOMENTUM))
    set_rates(optimiser, LR)
    for gradient in GRADIENTS:
        expected = rule(expected, gradient, slot)
        model.weight.grad = torch.as_tensor(gradient)
        optimiser.step()
    np.testing.assert_allclose(model.weight.detach().numpy(), expected, rtol=1e-9)


def test_rates_go_by_the_first_prefix_and_decay_spares_biases_and_normalisation() -> None:
    """Each parameter stands in exactly one group."""
    model = nn.Sequential()
    model.add_module("trunk", nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    model.add_module("head", nn.Linear(2, 1))
    spec = OptimiserSpec("sgd", LR, DECAY, rate_factors=(("trunk.0", 0.1), ("trunk", 0.5)))
    names = {parameter: name for name, parameter in model.named_parameters()}
    optimiser = make_optimiser(model, spec)
    set_rates(optimiser, 2.0)
    found = {
        names[p]: (group["lr"], group["weight_decay"]) for group in optimiser.param_groups for p in group["params"]
    }
    assert found == {
        "trunk.0.weight": (0.2, DECAY), "trunk.0.bias": (0.2, 0.0),
        "trunk.1.weight": (1.0, 0.0), "trunk.1.bias": (1.0, 0.0),
        "head.weight": (2.0, DECAY), "head.bias": (2.0, 0.0),
    }  # fmt: skip
    assert sum(len(group["params"]) for group in parameter_groups(model, spec)) == len(names)


def factors(spec: ScheduleSpec) -> list[float]:
    """The factors of a run of 10 epochs of 4 steps."""
    return [rate_factor(spec, step, 4, 40) for step in range(40)]


def test_schedules_without_warm_up_follow_their_formulas() -> None:
    """constant, step, exponential, cosine; one_cycle without a rise is cosine."""
    assert factors(ScheduleSpec("constant")) == [1.0] * 40
    assert factors(ScheduleSpec("exponential", decay=0.9)) == [0.9 ** (step // 4) for step in range(40)]
    assert factors(ScheduleSpec("step", decay=0.1, step_epochs=3)) == [0.1 ** (step // 12) for step in range(40)]
    cosine = [(1 + math.cos(math.pi * step / 40)) / 2 for step in range(40)]
    assert factors(ScheduleSpec("cosine")) == pytest.approx(cosine)
    assert factors(ScheduleSpec("one_cycle")) == pytest.approx(cosine)


@pytest.mark.parametrize("kind", ["constant", "step", "exponential", "cosine"])
def test_warm_up_is_a_straight_line_before_the_schedule(kind: str) -> None:
    """Ten steps of equal height, then the full rate; what falls by epochs falls as it would have."""
    spec = ScheduleSpec(kind, warmup_fraction=0.25, decay=0.5, step_epochs=4)
    plain = factors(ScheduleSpec(kind, decay=0.5, step_epochs=4)) if kind != "cosine" else [1.0] * 10
    warm = factors(spec)
    assert warm[:10] == pytest.approx([plain[step] * (step + 1) / 11 for step in range(10)])
    if kind == "cosine":
        plain += [(1 + math.cos(math.pi * step / 30)) / 2 for step in range(30)]
    assert warm[10:] == pytest.approx(plain[10:])


def test_one_cycle_rises_from_a_25th_and_falls_to_nothing() -> None:
    """Both halves are cosines; the peak is the recipe's rate."""
    found = factors(ScheduleSpec("one_cycle", warmup_fraction=0.25))
    rise = [0.04 + 0.96 * (1 - math.cos(math.pi * step / 10)) / 2 for step in range(10)]
    fall = [(1 + math.cos(math.pi * step / 30)) / 2 for step in range(30)]
    assert found == pytest.approx(rise + fall)
    assert (found[0], found[10]) == pytest.approx((0.04, 1.0))
