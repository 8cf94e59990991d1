"""The residual trunk that the networks share.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016 (arXiv 1512.03385), table 1. With depths
(3, 4, 6, 3), widths (64, 128, 256, 512) and the 7x7 stem it is ResNet-34 without its last layer, as in torchvision.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock


class ResidualTrunk(nn.Module):
    """Image [B, channels, H, W] -> features [B, widths[-1]], averaged over the picture."""

    def __init__(
        self, channels: int, depths: Sequence[int], widths: Sequence[int], stem: Literal["7x7-pool", "3x3"]
    ) -> None:
        super().__init__()
        self.stem = _stem(channels, widths[0], stem)
        stages, inputs = [], widths[0]
        for number, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            stages.append(_stage(inputs, width, depth, stride=1 if number == 0 else 2))
            inputs = width
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.apply(_initialise)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        features_BD: Tensor = self.pool(self.stages(self.stem(image_BCHW))).flatten(1)
        return features_BD


def _stem(channels: int, width: int, kind: str) -> nn.Sequential:
    """The first convolution: "7x7-pool" leaves a quarter of the resolution (photographs), "3x3" half (thumbnails)."""
    size = 7 if kind == "7x7-pool" else 3
    convolution = nn.Conv2d(channels, width, size, stride=2, padding=size // 2, bias=False)
    layers = [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, *([nn.MaxPool2d(3, stride=2, padding=1)] if kind == "7x7-pool" else []))


def _stage(inputs: int, width: int, depth: int, stride: int) -> nn.Sequential:
    """``depth`` basic blocks; the first changes resolution and width, through a 1x1 convolution beside it."""
    shortcut = None
    if stride != 1 or inputs != width:
        shortcut = nn.Sequential(nn.Conv2d(inputs, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))
    first = BasicBlock(inputs, width, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(width, width) for _ in range(depth - 1)))


def _initialise(module: nn.Module) -> None:
    """He initialisation of convolutions, over their outputs."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
