"""The loss of a crop network, and the refusal of a last layer that does not suit it."""

import math

import pytest
import torch
from torch import nn

from models.errors import ConfigError
from models.losses import crop_loss, refuse_squashed_outputs
from models.recipes import LossSpec

SPEC = LossSpec()


def test_terms_and_weights():
    """3.0 times the mean square over four edges, plus 1.0 times the cross-entropy of the logit."""
    outputs = torch.tensor([[0.1, 0.8, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0, 50.0]])
    loss = crop_loss(outputs, torch.tensor([[0.0, 1.0, 0.0, 1.0]] * 2), torch.tensor([1.0, 1.0]), SPEC)
    assert loss.rectangle_B.tolist() == pytest.approx([(0.01 + 0.04) / 4, 0.0])
    assert loss.crop_B.tolist() == pytest.approx([math.log(2), 0.0], abs=1e-6)
    assert loss.total_B.tolist() == pytest.approx([3 * 0.0125 + math.log(2), 0.0], abs=1e-6)


def test_large_logits_stay_finite():
    """A confident mistake costs much, not infinity."""
    loss = crop_loss(torch.tensor([[0.0, 1.0, 0.0, 1.0, 1e4]]), torch.zeros(1, 4), torch.zeros(1), SPEC)
    assert math.isfinite(loss.total_B.item())


class Reshaped(nn.Module):
    """A sigmoid as a plain function, hidden behind a reshape."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.linear(image)).unsqueeze(1).flatten(1)


@pytest.mark.parametrize(
    "model", [nn.Sequential(nn.Linear(4, 5), nn.Softmax(1)), nn.Sequential(nn.Linear(4, 5), nn.Sigmoid()), Reshaped()]
)
def test_a_squashed_output_is_refused(model):
    """A softmax or sigmoid at the end, as a layer or as a function, is refused under a loss that wants logits."""
    with pytest.raises(ConfigError, match="wants logits"):
        refuse_squashed_outputs(model, torch.zeros(1, 4), "crop_rectangle")


def test_logits_are_accepted():
    """A sigmoid inside the network is no matter, nor is one at the end under another loss."""
    inside = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 5))
    refuse_squashed_outputs(inside, torch.zeros(1, 4), "crop_rectangle")
    refuse_squashed_outputs(nn.Sequential(nn.Linear(4, 5), nn.Sigmoid()), torch.zeros(1, 4), "mean_square")
