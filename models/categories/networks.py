"""Networks for one label a photo, by name: a trunk, then one linear layer.

Their parts are ``trunk`` and ``head``, so that freeze plans and rate factors can name them. At width 1 the tensors and
outputs are those of torchvision's networks of the same names (``models.pretrained`` renames the files).
Source of MobileNetV2: Sandler et al., CVPR 2018 (arXiv 1801.04381); torchvision's implementation.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torchvision.models.mobilenetv2 import MobileNetV2

from models.backbones import ResidualTrunk
from models.errors import ConfigError
from models.heads import Float32Linear

WIDTHS = (64, 128, 256, 512)
LEAST_CHANNELS = 8  # what a tensor core takes; narrower stages save nothing


class MobileTrunk(nn.Module):
    """The convolutions of MobileNetV2: image [B, 3, H, W] -> features [B, ``features``], averaged over the picture."""

    def __init__(self, width: float) -> None:
        super().__init__()
        network = MobileNetV2(num_classes=1, width_mult=width)
        self.layers, self.features = network.features, network.last_channel

    def forward(self, image_B3HW: Tensor) -> Tensor:
        features_BD: Tensor = self.layers(image_B3HW).mean((2, 3))
        return features_BD


class CategoryNet(nn.Module):
    """Image [B, 3, H, W] -> {"label": logits [B, K]}."""

    def __init__(self, trunk: ResidualTrunk | MobileTrunk, classes: int, dropout: float) -> None:
        super().__init__()
        self.trunk = trunk
        self.dropout = nn.Dropout(dropout)
        self.head = Float32Linear(trunk.features, classes)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"label": self.head(self.dropout(self.trunk(image)))}


def _resnet(depths: tuple[int, ...], block: str) -> Callable[[int, float], CategoryNet]:
    def build(classes: int, width: float) -> CategoryNet:
        widths = [max(LEAST_CHANNELS, round(each * width / 8) * 8) for each in WIDTHS]
        return CategoryNet(ResidualTrunk(3, depths, widths, "7x7-pool", block), classes, dropout=0.0)  # type: ignore[arg-type]

    return build


def _mobilenet_v2(classes: int, width: float) -> CategoryNet:
    network = CategoryNet(MobileTrunk(width), classes, dropout=0.2)
    nn.init.normal_(network.head.weight, 0, 0.01)
    nn.init.zeros_(network.head.bias)
    return network


NETWORKS: dict[str, Callable[[int, float], CategoryNet]] = {
    "resnet18": _resnet((2, 2, 2, 2), "basic"),
    "resnet34": _resnet((3, 4, 6, 3), "basic"),
    "resnet50": _resnet((3, 4, 6, 3), "bottleneck"),
    "mobilenet_v2": _mobilenet_v2,
}


def build_network(name: str, classes: int, width: float) -> CategoryNet:
    """The network with fresh weights; ``ConfigError`` lists the known ones."""
    if name not in NETWORKS:
        raise ConfigError(f"unknown network {name!r}: choose one of {', '.join(NETWORKS)}", key="system.network")
    return NETWORKS[name](classes, width)
