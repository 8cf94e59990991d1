"""Parts of a network that do not learn, or not yet, named by the prefix of their parameters' names.

A frozen part is as if it were a constant: its parameters get no gradient (so neither momentum nor weight decay moves
them), and its batch normalisation uses the running statistics and leaves them alone. The optimiser holds all parameters
from the start and makes a parameter's state at its first gradient: a part that thaws begins like one that is new, and a
resumed run finds the state of exactly those parts that have learnt.
Source: Howard and Ruder, ULMFiT (arXiv 1801.06146, 3.3, gradual unfreezing).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from models.errors import ConfigError
from models.specs import Freeze, Recipe


def start_epoch(model: nn.Module, frozen: Sequence[Freeze], epoch: int) -> None:
    """Put the network into training mode, less what is frozen in ``epoch`` (the first is 0).

    A part with ``until_epoch`` n learns nothing in the first n epochs. Raises ``ConfigError`` if nothing would learn.
    """
    prefixes = tuple(each.prefix for each in frozen if each.until_epoch is None or epoch < each.until_epoch)
    model.train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(prefixes))
    for name, module in model.named_modules():
        if hasattr(module, "running_mean") and f"{name}.".startswith(prefixes):
            module.eval()
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"nothing learns in epoch {epoch + 1}: frozen covers the whole network", key="frozen")


def is_for_good(part: Freeze, recipe: Recipe) -> bool:
    """Whether the recipe ends before the part learns."""
    return part.until_epoch is None or part.until_epoch >= recipe.epochs


def never_learnt(model: nn.Module, recipe: Recipe) -> dict[str, Tensor]:
    """A copy of each parameter that the recipe freezes for good."""
    prefixes = tuple(each.prefix for each in recipe.frozen if is_for_good(each, recipe))
    return {name: value.detach().clone() for name, value in model.named_parameters() if name.startswith(prefixes)}


def refuse_frozen_chance(model: nn.Module, recipe: Recipe, first: Mapping[str, Tensor]) -> None:
    """Raise ``ConfigError`` if what is frozen for good is still as it was drawn (``first``): nothing was loaded."""
    for each in recipe.frozen:
        parts = {name: value for name, value in model.named_parameters() if name.startswith(each.prefix)}
        is_chance = is_for_good(each, recipe) and all(torch.equal(value, first[name]) for name, value in parts.items())
        if parts and is_chance:
            message = (
                f"recipe {recipe.name!r} freezes {each.prefix!r} for good, but no weights were given for it:"
                " name runs or files of weights in start_from"
            )
            raise ConfigError(message, key="start_from", prefix=each.prefix)


def refuse_unknown_prefixes(model: nn.Module, recipe: Recipe) -> None:
    """Raise ``ConfigError`` for a prefix in the recipe that no parameter's name begins with."""
    names = [name for name, _ in model.named_parameters()]
    prefixes = {"frozen": [each.prefix for each in recipe.frozen]}
    prefixes["optimiser.rate_factors"] = [prefix for prefix, _ in recipe.optimiser.rate_factors]
    for key, known in prefixes.items():
        for prefix in known:
            if not any(name.startswith(prefix) for name in names):
                parts = ", ".join(sorted({name.split(".")[0] for name in names}))
                message = f"{key} names {prefix!r}, but no parameter begins so: the network's parts are {parts}"
                raise ConfigError(message, key=key, prefix=prefix)
