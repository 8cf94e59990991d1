"""A network that squashes its outputs is not trained under a loss that squashes them too."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.errors import ConfigError
from models.linting import refuse_squashed_outputs
from models.systems import Batch, Tensors

Loss = Callable[[Tensor, Tensor], Tensor]


class Joined(nn.Module):
    """One linear layer and what comes after it, as the output "label", beside an innocent one."""

    def __init__(self, last: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(6, 3), last

    def forward(self, image: Tensor) -> Tensors:
        features = self.layer(image)
        return {"place": features.sigmoid(), "label": self.last(features)}


class Judged:
    """A system with one loss of "label"; "place" is compared as it is."""

    def __init__(self, loss: Loss) -> None:
        self.loss = loss

    def losses(self, outputs: Tensors, targets: Tensors) -> Tensors:
        place = (outputs["place"] - 0.5).square().mean(1)
        return {"total": place + 0.5 * self.loss(outputs["label"], targets["label"])}


def cross_entropy(label: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(label, target.argmax(1), reduction="none", label_smoothing=0.1)


def binary(label: Tensor, target: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(label, target, reduction="none").mean(1)


def of_one_column(label: Tensor, target: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(label[:, 0], target[:, 0], reduction="none")


def by_hand(label: Tensor, target: Tensor) -> Tensor:
    return label.logsumexp(1) - (label * target).sum(1)


def squared(label: Tensor, target: Tensor) -> Tensor:
    return (label - target).square().mean(1)


def likelihood(label: Tensor, target: Tensor) -> Tensor:
    return functional.nll_loss((label + 1e-9).log(), target.argmax(1), reduction="none")


SCALE = nn.Parameter(torch.ones(3))
LOGIT_LOSSES = [cross_entropy, binary, of_one_column, by_hand]


def shares(features: Tensor) -> Tensor:
    powers = (features - features.amax(1, keepdim=True)).exp()
    return powers / powers.sum(1, keepdim=True)


def shares_of_a_sum(features: Tensor) -> Tensor:
    powers = features.exp()
    return (powers / (powers.sum(1) + 1e-9).unsqueeze(1)).clamp(1e-6, 1.0)


SQUASHED = {
    "by hand": shares,
    "by hand, with care": shares_of_a_sum,
    "softmax": nn.Softmax(1),
    "log_softmax": nn.LogSoftmax(1),
    "sigmoid": nn.Sigmoid(),
    "function": torch.sigmoid,
    "reshaped": lambda features: features.view(-1, 3, 1).softmax(1).squeeze(2),
    "clamped": lambda features: features.softmax(1).clamp(1e-6, 1 - 1e-6),
    "scaled": lambda features: 1 - 0.9 * torch.sigmoid(features) / 2,
    "stacked": lambda features: torch.stack([torch.sigmoid(each) for each in features.unbind(1)], 1),
    "dropped": lambda features: functional.dropout(features.softmax(1), 0.5, training=True),
    "selected": lambda features: torch.sigmoid(features)[:, [0, 1, 2]],
}
RAW: dict[str, Callable[[Tensor], Tensor]] = {
    "nothing": nn.Identity(),
    "relu": nn.ReLU(),
    "tanh": torch.tanh,
    "divided": lambda features: features / (1 + features.exp().sum(1, keepdim=True)),
    "gated": lambda features: features * torch.sigmoid(features),
    "learnt on": nn.Sequential(nn.Sigmoid(), nn.Linear(3, 3)),
    "scaled by what is learnt": lambda features: torch.sigmoid(features) * SCALE,
    "half squashed": lambda features: torch.cat([features[:, :1], torch.sigmoid(features[:, 1:])], 1),
}


def lint(last: Callable[[Tensor], Tensor], loss: Loss) -> None:
    """Lint a network that ends in ``last`` under ``loss``."""
    batch = Batch({"image": torch.zeros(2, 6)}, {"label": torch.eye(3)[:2]})
    system: Any = Judged(loss)
    refuse_squashed_outputs(Joined(last), system, batch)


@pytest.mark.parametrize("loss", LOGIT_LOSSES)
@pytest.mark.parametrize("last", SQUASHED.values(), ids=SQUASHED)
def test_squashed_outputs_are_refused(last: Callable[[Tensor], Tensor], loss: Loss) -> None:
    """Any softmax or sigmoid at the end, as a layer or a function, under any loss that applies one itself."""
    with pytest.raises(ConfigError, match=r"output 'label' of Joined ends in .*: remove the last activation"):
        lint(last, loss)


@pytest.mark.parametrize("loss", [*LOGIT_LOSSES, squared, likelihood])
@pytest.mark.parametrize("last", RAW.values(), ids=RAW)
def test_raw_outputs_pass(last: Callable[[Tensor], Tensor], loss: Loss) -> None:
    """Logits are what these losses want; another activation is nobody's business."""
    lint(last, loss)


@pytest.mark.parametrize("loss", [squared, likelihood])
@pytest.mark.parametrize("last", SQUASHED.values(), ids=SQUASHED)
def test_a_loss_that_wants_probabilities_gets_them(last: Callable[[Tensor], Tensor], loss: Loss) -> None:
    """A squared error, or a likelihood of probabilities, applies no activation of its own."""
    lint(last, loss)


def test_the_network_stays_as_it_was() -> None:
    """Linting leaves neither gradients nor another mode."""
    model, system = Joined(nn.Identity()), Judged(cross_entropy)
    batch = Batch({"image": torch.zeros(2, 6)}, {"label": torch.eye(3)[:2]})
    refuse_squashed_outputs(model.train(), system, batch)  # type: ignore[arg-type]
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
