"""Last layers, which answer in float32 whatever the rest of a network computes in.

bfloat16 has 8 bits of precision: a probability near 1, or a side of a rectangle, would be known to 1 / 256 only.
"""

import torch
from torch import Tensor, nn


class Float32Linear(nn.Linear):
    """A linear layer in float32 also under autocast; its tensors bear the names of ``nn.Linear``."""

    def forward(self, features: Tensor) -> Tensor:
        device = features.device.type
        if not torch.is_autocast_enabled(device):  # so that an exported graph holds nothing of it
            return super().forward(features)
        with torch.autocast(device, enabled=False):
            return super().forward(features.float())
