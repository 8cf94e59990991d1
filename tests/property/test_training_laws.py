"""Laws of training: what a batch is split into, in which order photos come, and how the rate moves never matter."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from models.distributed import World
from models.guards import reason_to_stop
from models.loop import add_gradients, epoch_batches, split_batch
from models.optimisers import rate_factor
from models.recipes import resolve
from models.specs import EarlyStopping, ScheduleSpec
from models.systems import Batch


class Line(nn.Module):
    """One weight per input."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 2)

    def forward(self, x):
        return {"y": self.line(x).tanh()}


class Squares:
    """A system that is nothing but its loss."""

    def losses(self, outputs, targets):
        return {"total": (outputs["y"] - targets["y"]).square().sum(1)}


def gradients(model: nn.Module, batches: list[Batch], photos: int) -> list[torch.Tensor]:
    """Of the mean loss, after the batch went through in those parts; the loss itself is the last."""
    model.zero_grad()
    reading = add_gradients(resolve("categories_narrow"), Squares(), model, batches, len(batches), photos, World())
    return [*(parameter.grad.clone() for parameter in model.parameters()), torch.tensor(reading.get())]


@given(photos=st.integers(2, 40), accumulate=st.integers(1, 12), seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_the_gradient_does_not_depend_on_the_parts(photos: int, accumulate: int, seed: int) -> None:
    """Whatever the sizes of batch and parts, gradient and loss are those of the mean over the batch within 1e-6."""
    rng = torch.Generator().manual_seed(seed)
    x, y = torch.randn(photos, 3, generator=rng), torch.randn(photos, 2, generator=rng)
    parts = [Batch({"x": x[part]}, {"y": y[part]}) for part in split_batch(np.arange(photos), accumulate)]
    model = Line()
    whole = copy.deepcopy(model)
    loss = Squares().losses(whole(x), {"y": y})["total"].mean()
    torch.autograd.backward(loss)
    expected = [*(parameter.grad for parameter in whole.parameters()), loss.detach()]
    for found, wanted in zip(gradients(model, parts, photos), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


@given(photos=st.integers(1, 200), batch_size=st.integers(2, 64), seed=st.integers(0, 99), epoch=st.integers(0, 99))
@settings(deadline=None)
def test_an_epoch_is_a_permutation_that_no_row_order_changes(photos, batch_size, seed, epoch) -> None:
    """Every photo comes once; the order is that of the keys' hashes, wherever a photo lies in the pack."""
    keys = np.random.default_rng(photos).integers(0, 2**63, photos).astype(np.uint64)
    batches = epoch_batches(keys, seed, epoch, batch_size)
    order = np.concatenate(batches)
    assert sorted(order) == list(range(photos))
    assert max(map(len, batches)) - min(map(len, batches)) <= 1
    turned = np.concatenate(epoch_batches(keys[::-1], seed, epoch, batch_size))
    assert (keys[::-1][turned] == keys[order]).all()


@example(kind="cosine", warmup=0.9, steps_per_epoch=1, epochs=1)
@given(
    kind=st.sampled_from(["constant", "step", "exponential", "cosine", "one_cycle"]),
    warmup=st.floats(0, 0.9),
    steps_per_epoch=st.integers(1, 20),
    epochs=st.integers(1, 20),
)
def test_a_rate_rises_once_and_then_falls(kind, warmup, steps_per_epoch, epochs) -> None:
    """Factors lie in (0, 1]; within an epoch's plateau nothing rises after the warm-up."""
    spec, total = ScheduleSpec(kind, warmup, decay=0.7, step_epochs=2), steps_per_epoch * epochs
    found = [rate_factor(spec, step, steps_per_epoch, total) for step in range(total)]
    assert all(0 < factor <= 1 for factor in found)
    after = found[round(warmup * total) :]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(after))


@given(losses=st.lists(st.floats(0, 10), min_size=1, max_size=30), patience=st.integers(1, 5))
def test_a_run_stops_early_exactly_when_its_last_epochs_brought_nothing(losses, patience) -> None:
    """If, and only if, none of the last ``patience`` epochs is better than the best of those before."""
    is_idle = len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])
    assert bool(reason_to_stop(losses, EarlyStopping(patience))) == is_idle


@pytest.mark.parametrize("accumulate", [1, 2, 5])
def test_the_parts_of_a_batch_are_the_batch(accumulate: int) -> None:
    """In its order."""
    for photos in range(2, 30):
        parts = split_batch(np.arange(photos), accumulate)
        assert np.concatenate(parts).tolist() == list(range(photos))
        assert min(map(len, parts)) >= 2
