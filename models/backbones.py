"""The residual trunk that the networks share.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016 (arXiv 1512.03385), table 1. With widths
(64, 128, 256, 512) and the 7x7 stem, depths (2, 2, 2, 2) and (3, 4, 6, 3) of basic blocks are ResNet-18 and 34 without
their last layer, (3, 4, 6, 3) of bottleneck blocks ResNet-50, as in torchvision (which strides in the 3x3 convolution).
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

BLOCKS: dict[str, type[BasicBlock | Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}


class ResidualTrunk(nn.Module):
    """Image [B, channels, H, W] -> features [B, ``features``], averaged over the picture.

    ``depths``, ``widths``: blocks and channels of each stage; a bottleneck block puts out four times its width.
    """

    def __init__(
        self,
        channels: int,
        depths: Sequence[int],
        widths: Sequence[int],
        stem: Literal["7x7-pool", "3x3"],
        block: Literal["basic", "bottleneck"] = "basic",
    ) -> None:
        super().__init__()
        self.stem = _stem(channels, widths[0], stem)
        stages, inputs = [], widths[0]
        for number, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            stages.append(_stage(BLOCKS[block], inputs, width, depth, stride=1 if number == 0 else 2))
            inputs = width * BLOCKS[block].expansion
        self.features = inputs
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


def _stage(block: type[BasicBlock | Bottleneck], inputs: int, width: int, depth: int, stride: int) -> nn.Sequential:
    """``depth`` blocks; the first changes resolution and channels, through a 1x1 convolution beside it if it must."""
    outputs, shortcut = width * block.expansion, None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
    first = block(inputs, width, stride, shortcut)
    return nn.Sequential(first, *(block(outputs, width) for _ in range(depth - 1)))


def _initialise(module: nn.Module) -> None:
    """He initialisation of convolutions, over their outputs."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
