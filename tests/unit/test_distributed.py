"""What processes that train together tell each other; the other processes are stood in for by their sums."""

import torch
from torch import Tensor, nn

from models.distributed import World


class Three(World):
    """The first of three processes whose gradients and statistics are all alike."""

    def sum(self, tensor: Tensor) -> Tensor:
        """Three times what one has."""
        return tensor.mul_(3)


def test_statistics_of_a_frozen_part_stay_to_the_bit() -> None:
    """Summed over three processes and divided again they would be rounded; so would a constant of the network. What
    learns is a mean, and its gradients are sums."""
    model = nn.Sequential(nn.BatchNorm1d(64), nn.BatchNorm1d(64))
    model.register_buffer("constant", torch.rand(64, generator=torch.Generator().manual_seed(1)))
    with torch.no_grad():
        for norm in model:
            norm.running_mean.uniform_(0, 1, generator=torch.Generator().manual_seed(2))
    model.train()
    model[0].eval()
    model[0].requires_grad_(requires_grad=False)
    model[1](torch.randn(8, 64)).square().sum().backward()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradient = model[1].weight.grad.clone()
    Three(size=3).sum_gradients(model)
    after = model.state_dict()
    for name in ("constant", "0.running_mean", "0.running_var"):
        assert torch.equal(before[name], after[name]), name
    assert torch.allclose(before["1.running_mean"], after["1.running_mean"])
    assert torch.equal(model[1].weight.grad, 3 * gradient)
    assert model[0].weight.grad is None
