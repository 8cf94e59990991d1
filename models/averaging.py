"""An average of the weights over the steps of a run: what is validated, kept as best, and judged.

Source: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging" (SIAM J. Control Optim. 30, 1992),
with the exponential weights and the warm-up min(decay, (1 + n) / (10 + n)) of TensorFlow's ``ExponentialMovingAverage``
(argument ``num_updates``), without which a short run's average would consist of its first weights.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Averaged:
    """The exponential average of a network's weights and, like them, of its running statistics; integers are copied.

    It counts no steps: how far the warm-up has come is told with each update, so there is nothing else to save.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights as they are after step number ``step`` (the first is 0)."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        own, current = self._tensors, model.state_dict()
        fractions = [name for name, tensor in own.items() if tensor.is_floating_point()]
        counters = [name for name, tensor in own.items() if not tensor.is_floating_point()]
        torch._foreach_lerp_([own[name] for name in fractions], [current[name] for name in fractions], share)
        if counters:
            torch._foreach_copy_([own[name] for name in counters], [current[name] for name in counters])

    def tensors(self) -> dict[str, Tensor]:
        """The average, named like the network's own state."""
        return dict(self._tensors)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from these, which ``tensors`` once returned."""
        for name, tensor in self._tensors.items():
            tensor.copy_(tensors[name])

    @contextmanager
    def apply_to(self, model: nn.Module) -> Iterator[None]:
        """While the block runs, the network has the averaged weights; afterwards its own, bit for bit."""
        own = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        try:
            _copy_into(model, self._tensors)
            yield
        finally:
            _copy_into(model, own)


@torch.no_grad()
def _copy_into(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Overwrite the network's weights in place, so that an optimiser keeps hold of them."""
    for name, tensor in model.state_dict().items():
        tensor.copy_(tensors[name])
