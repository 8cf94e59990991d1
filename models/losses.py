"""Losses, and the check that a network's last layer suits them.

Shapes: B batch; outputs are x1, x2, y1, y2 and the crop logit.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.errors import ConfigError
from models.recipes import LossSpec


class CropLoss(NamedTuple):
    """The loss of each sample [B]: the weighted total and its two terms before weighting."""

    total_B: Tensor
    rectangle_B: Tensor
    crop_B: Tensor


def crop_loss(outputs_B5: Tensor, rectangle_B4: Tensor, is_crop_B: Tensor, spec: LossSpec) -> CropLoss:
    """Weighted sum of the squared error (mean over the four edges) and the cross-entropy of the crop decision.

    Source: the code of "Dissecting Image Crops" (ICCV 2021), weights 3.0 and 1.0.
    """
    rectangle_B = (outputs_B5[:, :4] - rectangle_B4).square().mean(1)
    crop_B = functional.binary_cross_entropy_with_logits(outputs_B5[:, 4], is_crop_B, reduction="none")
    return CropLoss(spec.rectangle_weight * rectangle_B + spec.crop_weight * crop_B, rectangle_B, crop_B)


LOGIT_LOSSES = frozenset({"crop_rectangle"})  # losses that apply the sigmoid or softmax themselves
_SQUASHING = ("Softmax", "LogSoftmax", "Sigmoid", "LogSigmoid")
_RESHAPING = ("View", "UnsafeView", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "T", "Permute", "Clone", "Alias")


def refuse_squashed_outputs(model: nn.Module, sample_BCHW: Tensor, loss_name: str) -> None:
    """Raise ``ConfigError`` if the network ends in a softmax or sigmoid though the loss applies one itself.

    Looks at what computed the outputs, so it finds a layer and a plain function alike, also behind a reshape.
    """
    if loss_name not in LOGIT_LOSSES:
        return
    was_training = model.training
    with torch.enable_grad():
        node = model.eval()(sample_BCHW).grad_fn
    model.train(was_training)
    while node is not None and _operation(node) in _RESHAPING:
        node = node.next_functions[0][0]
    if node is not None and _operation(node) in _SQUASHING:
        raise ConfigError(
            f"{type(model).__name__} ends in {_operation(node).lower()}, but the loss {loss_name!r} wants logits:"
            " remove the last activation",
            model=type(model).__name__,
            loss=loss_name,
        )


def _operation(node: torch.autograd.graph.Node) -> str:
    """The operation whose gradient ``node`` computes: "SoftmaxBackward0" -> "Softmax"."""
    return node.name().split("Backward")[0].lstrip("_")
