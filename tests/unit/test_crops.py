"""How crops are drawn, what constant answers score, and the network's size."""

import numpy as np
import pytest
import torch
from torchvision.models import resnet34

from models.crops import CROP_DRAWS, CropThumbnailNet, draw_rectangles, trivial_answers
from models.metrics import rectangle_iou, size_factor
from models.recipes import RECIPES, CropLaw

LAW = CropLaw()
WHOLE = np.array([0.0, 1.0, 0.0, 1.0])


@pytest.fixture(scope="module")
def drawn():
    """200,000 samples of the paper's law: rectangles and which are crops."""
    return draw_rectangles(np.random.default_rng(3).random((200_000, CROP_DRAWS)), LAW)


def test_half_of_the_samples_are_crops(drawn):
    """A sample is a crop with the law's probability; the others are the whole frame."""
    rectangles, is_crop = drawn
    assert is_crop.mean() == pytest.approx(0.5, abs=0.005)
    assert (rectangles[~is_crop] == WHOLE).all()


def test_every_crop_touches_a_border(drawn):
    """Each crop touches at least one border, each border equally often, and lies inside the frame."""
    rectangles, is_crop = drawn
    x1, x2, y1, y2 = rectangles[is_crop].T
    touches = np.stack([x1 == 0, np.isclose(x2, 1), y1 == 0, np.isclose(y2, 1)])
    assert touches.any(axis=0).all()
    assert touches.mean(axis=1) == pytest.approx(0.25, abs=0.01)
    assert rectangles.min() >= 0
    assert rectangles.max() <= 1


def test_crops_keep_the_aspect_and_size_law(drawn):
    """Both axes shrink by the same factor, which is uniform between the law's bounds."""
    rectangles, is_crop = drawn
    x1, x2, y1, y2 = rectangles[is_crop].T
    assert np.allclose(x2 - x1, y2 - y1)
    quantiles = np.quantile(x2 - x1, [0, 0.25, 0.5, 0.75, 1])
    assert quantiles == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9], abs=0.005)


def test_trivial_answers_score_the_published_baselines(drawn):
    """Constants chosen by ``trivial_answers`` score what the reference measured: 0.550, 0.751, 0.100, 0.150, 0.119."""
    rectangles, is_crop = drawn
    crops, trivial = rectangles[is_crop], trivial_answers(LAW)
    margin = trivial.margin
    assert margin == pytest.approx(0.09, abs=0.011)
    assert rectangle_iou(crops, np.array([margin, 1 - margin] * 2)).mean() == pytest.approx(0.550, abs=0.003)
    assert rectangle_iou(crops, WHOLE).mean() == pytest.approx(0.503, abs=0.003)
    assert rectangle_iou(rectangles, WHOLE).mean() == pytest.approx(0.751, abs=0.003)
    assert np.abs(size_factor(crops) - trivial.size_factor_crops).mean() == pytest.approx(0.100, abs=0.002)
    assert np.abs(size_factor(rectangles) - trivial.size_factor_half).mean() == pytest.approx(0.150, abs=0.002)
    assert np.abs(crops - np.array(trivial.edges)).mean() == pytest.approx(0.119, abs=0.002)


def test_the_full_trunk_is_resnet34():
    """With the weights of torchvision's ResNet-34, the trunk of ``crops_thumbnail`` gives that network's features."""
    net = CropThumbnailNet(RECIPES["crops_thumbnail"]().model).eval()
    theirs = resnet34(num_classes=64).eval()
    theirs.conv1 = torch.nn.Conv2d(5, 64, 7, stride=2, padding=3, bias=False)
    ours = [*net.trunk.state_dict().values(), *net.embed.state_dict().values()]
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours, strict=True)))
    image = torch.rand(1, 5, 149, 224)
    with torch.no_grad():
        assert torch.allclose(net.embed(net.trunk(image)), theirs(image), atol=1e-5)
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in theirs.parameters()) + 165_893
