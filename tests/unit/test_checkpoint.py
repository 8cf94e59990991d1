"""A checkpoint gives back everything, belongs to one run only, and is whole at every moment."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from models.checkpoint import Checkpoints, Progress, RunIdentity
from models.errors import CheckpointMismatch
from models.loop import learning_rate, make_optimiser
from models.recipes import OptimiserSpec

IDENTITY = RunIdentity("abc", "tiny", 0, "def")
SPEC = OptimiserSpec("adamw", lr=0.1, schedule="constant", weight_decay=0.1)


def make_run(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A small network with a normalisation, and its optimiser."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    return model, make_optimiser(model, SPEC)


def step(model: nn.Module, optimiser: torch.optim.Optimizer, number: int) -> None:
    """One training step on data that are a function of its number."""
    image = torch.randn(8, 3, generator=torch.Generator().manual_seed(number))
    optimiser.zero_grad()
    model(image).square().mean().backward()
    optimiser.step()


def test_training_goes_on_bit_for_bit(tmp_path):
    """Three steps, saved, loaded into a fresh network, three more: the same bits as six steps at once."""
    model, optimiser = make_run()
    for number in range(3):
        step(model, optimiser, number)
    Checkpoints(tmp_path, IDENTITY).save(model, optimiser, Progress(step=3, loss_sum=0.1, photos_seen=24), is_best=True)
    resumed, its_optimiser = make_run(seed=9)
    progress = Checkpoints(tmp_path, IDENTITY).load_last(resumed, its_optimiser)
    assert progress == Progress(step=3, loss_sum=0.1, photos_seen=24)
    for number in range(3, 6):
        step(model, optimiser, number)
        step(resumed, its_optimiser, number)
    ours, theirs = resumed.state_dict(), model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    "change", [{"recipe_digest": "other"}, {"seed": 1}, {"pack_digest": "other"}], ids=["recipe", "seed", "pack"]
)
def test_another_run_is_refused(tmp_path, change):
    """A checkpoint of another recipe, seed or pack is refused by name, whether to go on or to evaluate."""
    model, optimiser = make_run()
    Checkpoints(tmp_path, IDENTITY).save(model, optimiser, Progress(step=1), is_best=True)
    other = Checkpoints(tmp_path, replace(IDENTITY, **change))
    with pytest.raises(CheckpointMismatch, match=next(iter(change))):
        other.load_last(model, optimiser)
    with pytest.raises(CheckpointMismatch, match=next(iter(change))):
        other.load_best(model)


def test_last_and_best_are_kept_and_nothing_else(tmp_path):
    """The best one survives later ones, older ones go, and what a killed try left behind goes with them."""
    model, optimiser = make_run()
    checkpoints = Checkpoints(tmp_path, IDENTITY)
    checkpoints.save(model, optimiser, Progress(step=1), is_best=True)
    (tmp_path / "checkpoint" / ".step-000009-4711").mkdir()
    for number in (2, 3):
        step(model, optimiser, number)
        checkpoints.save(model, optimiser, Progress(step=number), is_best=False)
    names = sorted(path.name for path in (tmp_path / "checkpoint").iterdir())
    assert names == ["index.json", "step-000001", "step-000003"]
    assert checkpoints.load_best(model).step == 1
    assert checkpoints.load_last(model, optimiser).step == 3


def test_nothing_to_load(tmp_path):
    """A fresh run has no last checkpoint; to evaluate it is refused with what to do."""
    model, optimiser = make_run()
    assert Checkpoints(tmp_path, IDENTITY).load_last(model, optimiser) is None
    with pytest.raises(CheckpointMismatch, match="train this run"):
        Checkpoints(tmp_path, IDENTITY).load_best(model)


def test_the_rate_is_a_function_of_the_step():
    """The paper's schedule reaches 1.19e-3 in its 25th epoch; one-cycle rises from 4 % to the peak and falls to 0."""
    paper = OptimiserSpec("adam", lr=5e-3, schedule="exponential", decay=0.942)
    assert learning_rate(paper, step=249, steps_per_epoch=10, total_steps=250) == pytest.approx(1.19e-3, rel=0.01)
    cycle = OptimiserSpec("adam", lr=1.0, schedule="one_cycle", warmup_fraction=0.25)
    rates = [learning_rate(cycle, number, 10, 100) for number in (0, 25, 100)]
    assert rates == pytest.approx([0.04, 1.0, 0.0], abs=1e-6)
