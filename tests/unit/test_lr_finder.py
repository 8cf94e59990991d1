"""The search for a learning rate: what it tries, what it suggests, and that it leaves no trace."""

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from models.lr_finder import Sweep, find_lr, longest_fall, smoothed, suggestions, sweep_batches
from models.specs import Freeze, OptimiserSpec

Tiny = Callable[..., Any]


def sweep(run: Any, must_stop: Callable[[], bool] = lambda: False) -> Sweep:
    """Look for a rate for the run's network."""
    found = run.system.recipe, run.system, run.model, run.stores["train"]
    return find_lr(*found, seed=run.seed, must_stop=must_stop)


def everything_around(model: torch.nn.Module) -> dict[str, Any]:
    """Bits of weights, statistics and gradients; modes; what learns; the state of every generator."""
    tensors = {f"value of {name}": value.clone() for name, value in model.state_dict().items()}
    tensors |= {f"gradient of {name}": p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {
        **{name: value.numpy().tobytes() for name, value in tensors.items()},
        **{f"learns {name}": p.requires_grad for name, p in model.named_parameters()},
        **{f"mode of {name}": module.training for name, module in model.named_modules()},
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": np.random.get_state()[1].tobytes(),
        "python": random.getstate(),
    }


def prepared(run: Any) -> Any:
    """A network in a state that training would not leave: some parts in eval mode, some frozen, some with gradients."""
    run.model.train()
    run.model.trunk.eval()
    run.model.neck[0].weight.requires_grad_(False)
    run.model.head.weight.grad = torch.ones_like(run.model.head.weight)
    torch.rand(3), np.random.rand(3), random.random()
    return run


def test_a_search_leaves_everything_as_it_was(tiny: Tiny) -> None:
    """Weights, batch-norm statistics, gradients, modes, generators: bit for bit, though the weights went far."""
    seen = []
    system = {"dropout": 0.2, "loss_factor": lambda epoch, keys: seen.append(epoch) or np.ones(len(keys))}
    changes = {"optimiser": OptimiserSpec("adam", 0.1, max_gradient_norm=1.0), "frozen": (Freeze("neck"),)}
    run = prepared(tiny(changes=changes, **system))
    before = everything_around(run.model)
    found = sweep(run)
    assert len(seen) > 30, "or it hardly ran"
    assert found.losses[-1] != found.losses[0]
    after = everything_around(run.model)
    assert {name for name in before if before[name] != after[name]} == set()


def test_a_search_that_is_stopped_leaves_everything_as_it_was(tiny: Tiny) -> None:
    """Also on the way out through an exception."""
    run = prepared(tiny(dropout=0.2))
    before, asked = everything_around(run.model), iter([False] * 40 + [True])
    with pytest.raises(Exception, match="stopped at step 40"):
        sweep(run, lambda: next(asked))
    assert everything_around(run.model) == before


def test_training_after_a_search_is_training_without_one(tiny: Tiny) -> None:
    """The run ends with the same bits."""
    plain, searched = tiny("plain", dropout=0.2), tiny("searched", dropout=0.2)
    sweep(searched)
    plain.train(), searched.train()
    for one, other in zip(plain.model.parameters(), searched.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_rates_rise_from_1e_7_towards_10(tiny: Tiny) -> None:
    """Each is the same multiple of the one before; the sweep ends where the loss is four times its best."""
    found = sweep(tiny(changes={"optimiser": OptimiserSpec("sgd", 0.1)}))
    assert found.lrs[0] == 1e-7
    ratios = np.diff(np.log(found.lrs))
    assert ratios == pytest.approx(math.log(1e8) / 99)
    assert len(found.lrs) == len(found.losses) < 100
    assert max(found.losses[:-1]) <= 4 * min(found.losses) < found.losses[-1]
    assert set(found.suggestions.values()) <= set(found.lrs) | {lr / 10 for lr in found.lrs}


def test_a_loss_that_is_no_number_ends_the_sweep(tiny: Tiny) -> None:
    """It is the expected end, not an error."""
    run = tiny(loss_factor=lambda epoch, keys: np.full(len(keys), np.inf if epoch > 5 else 1.0))
    assert len(sweep(run).losses) == 18


def test_a_sweep_begins_with_the_batches_of_training(tiny: Tiny) -> None:
    """100 batches, over as many epochs as that takes."""
    run = tiny()
    planned = sweep_batches(run.system.recipe, run.stores["train"].keys, run.seed)
    assert [epoch for epoch, _ in planned] == [number // 3 for number in range(100)]
    assert sorted(np.concatenate([rows_B for epoch, rows_B in planned if epoch == 7])) == list(range(22))


def test_smoothing_is_a_weighted_mean_of_the_past() -> None:
    """Weights 0.98^k, normalised: a constant stays what it is."""
    assert smoothed([2.0] * 5) == pytest.approx([2.0] * 5)
    weights = 0.98 ** np.arange(2, -1, -1)
    assert smoothed([1.0, 5.0, 3.0])[-1] == pytest.approx(np.average([1, 5, 3], weights=weights))


def test_suggestions_of_a_known_curve() -> None:
    """A loss that falls by a logistic step at 1e-3 and explodes beyond 0.3."""
    lrs = np.geomspace(1e-7, 10, 161)
    losses = 2 - np.tanh(np.log10(lrs) + 3) + np.maximum(0, np.log10(lrs / 0.3)) * 5
    found = suggestions(lrs.tolist(), losses.tolist())
    assert found["steepest"] == pytest.approx(1e-3, rel=0.01)
    assert found["minimum"] == pytest.approx(0.03, rel=0.2)
    assert found["valley"] == pytest.approx(math.sqrt(lrs[10] * 0.3), rel=0.2), "the middle of the only fall"


def test_a_loss_that_never_falls_suggests_nothing() -> None:
    """Nor does a sweep that ended at once."""
    nothing = {"minimum": None, "steepest": None, "valley": None}
    assert suggestions(np.geomspace(1e-7, 10, 50).tolist(), np.geomspace(1, 9, 50).tolist()) == nothing
    assert suggestions([], []) == nothing
    assert suggestions([0.1], [1.0]) == nothing


def test_the_longest_fall_may_have_bumps() -> None:
    """It is a subsequence: noise on the way down does not end it."""
    assert longest_fall([5.0, 6.0, 5.5, 4.0, 4.5, 3.0, 2.0, 9.0, 1.5, 8.0]) == (1, 8)
    assert longest_fall([1.0, 2.0, 3.0]) == (0, 0)
