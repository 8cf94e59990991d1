"""Averages of weights: the formula, the statistics of normalisation, and that borrowing them leaves no trace."""

import pytest
import torch
from torch import nn

from models.averaging import Averaged


def network() -> nn.Module:
    """A line and a normalisation, so that there are weights, running statistics and an integer."""
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def moved(model: nn.Module, by: float) -> dict[str, torch.Tensor]:
    """Move everything that the model holds; a copy of it."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(int(by) if not tensor.is_floating_point() else by)
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_the_average_follows_its_formula() -> None:
    """a <- d a + (1 - d) w with d = min(decay, (1 + n) / (10 + n)), of weights and statistics; counters are copied."""
    model, decay = network(), 0.3
    average = Averaged(model, decay)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for step in range(6):
        current = moved(model, 1.5)
        share = 1 - min(decay, (1 + step) / (10 + step))
        for name, tensor in current.items():
            mixed = (1 - share) * expected[name] + share * tensor
            expected[name] = mixed if tensor.is_floating_point() else tensor
        average.update(model, step)
    assert average.tensors().keys() == model.state_dict().keys()
    for name, tensor in average.tensors().items():
        torch.testing.assert_close(tensor, expected[name])


def test_a_block_borrows_the_average() -> None:
    """Inside, the network has the averaged weights; afterwards each has its own again, also after an error."""
    model = network()
    average = Averaged(model, 0.5)
    own = moved(model, 2.0)
    before = {name: tensor.clone() for name, tensor in average.tensors().items()}
    with pytest.raises(KeyError), average.apply_to(model):
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        raise KeyError
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in average.tensors().items())


def test_an_average_goes_on_where_it_was() -> None:
    """What ``tensors`` returned and ``load`` took gives the same averages from there on."""
    model = network()
    one, other = Averaged(model, 0.9), Averaged(model, 0.9)
    for step in range(4):
        moved(model, 0.7)
        one.update(model, step)
        if step == 2:
            other.load({name: tensor.clone() for name, tensor in one.tensors().items()})
        elif step == 3:
            other.update(model, step)
    assert all(torch.equal(value, other.tensors()[name]) for name, value in one.tensors().items())
