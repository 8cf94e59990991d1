"""How crops are drawn, what constant answers score, and the networks."""

from itertools import chain

import numpy as np
import pytest
import torch
from torchvision.models import resnet18, resnet34

from models.crops.law import (
    CELLS,
    CROP_DRAWS,
    EDGES,
    cell_distance,
    draw_rectangles,
    patch_labels,
    pinned_edge,
    trivial_answers,
)
from models.crops.networks import CropNet, Embedding
from models.crops.spec import CropLaw
from models.metrics import rectangle_iou, size_factor
from models.recipes import RECIPES

LAW = CropLaw()
WHOLE = np.array([0.0, 1.0, 0.0, 1.0])
OWN = np.arange(CELLS)


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
    assert touches[pinned_edge(rectangles[is_crop]), np.arange(len(x1))].all()
    assert rectangles.min() >= 0
    assert rectangles.max() <= 1


def test_pinned_edges_have_names():
    """Left, right, top and bottom are x1 = 0, x2 = 1, y1 = 0 and y2 = 1."""
    crops = np.array([[0, 0.6, 0.2, 0.8], [0.4, 1, 0.2, 0.8], [0.2, 0.8, 0, 0.6], [0.2, 0.8, 0.4, 1]])
    assert [EDGES[edge] for edge in pinned_edge(crops)] == ["left", "right", "top", "bottom"]


def test_crops_keep_the_aspect_and_size_law(drawn):
    """Both axes shrink by the same factor, which is uniform between the law's bounds."""
    rectangles, is_crop = drawn
    x1, x2, y1, y2 = rectangles[is_crop].T
    assert np.allclose(x2 - x1, y2 - y1)
    quantiles = np.quantile(x2 - x1, [0, 0.25, 0.5, 0.75, 1])
    assert quantiles == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9], abs=0.005)


def test_cells_of_hand_made_crops():
    """Cells are numbered row by row; the upper right quarter of a frame holds four cells, each seen by four patches."""
    assert patch_labels(WHOLE[None])[0].tolist() == list(range(16))
    quarter = patch_labels(np.array([[0.5, 1.0, 0.0, 0.5]]))[0].reshape(4, 4)
    assert quarter.tolist() == [[2, 2, 3, 3], [2, 2, 3, 3], [6, 6, 7, 7], [6, 6, 7, 7]]
    assert cell_distance(np.array([0, 0, 5]), np.array([3, 15, 5])) == pytest.approx([3, 3 * 2**0.5, 0])


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


def test_trivial_cells_score_the_published_baselines(drawn):
    """The best single cell is right in 8.4 % of patches, the patch's own in 69.1 % (38.2 % of crops), as measured."""
    rectangles, is_crop = drawn
    labels, trivial = patch_labels(rectangles), trivial_answers(LAW)
    assert (labels == trivial.cell).mean() == pytest.approx(0.084, abs=0.002)
    assert (labels == OWN).mean() == pytest.approx(0.691, abs=0.004)
    assert (labels[is_crop] == OWN).mean() == pytest.approx(0.382, abs=0.004)
    assert ((labels != OWN).any(1) & is_crop).sum() / is_crop.sum() == pytest.approx(0.893, abs=0.004)
    assert cell_distance(labels[~is_crop][:9], np.full(16, trivial.central_cell)).mean() == pytest.approx(
        1.59, abs=0.01
    )
    assert trivial.cell_shares == pytest.approx(np.bincount(labels.ravel()) / labels.size, abs=0.003)


@pytest.fixture(scope="module")
def joint():
    """The paper's network in evaluation mode, with statistics of batch normalisation that are not all alike."""
    torch.manual_seed(0)
    net = CropNet(RECIPES["crops_joint"]().system).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    return net


@pytest.mark.parametrize(("half", "channels", "known"), [("thumbnail", 5, resnet34), ("patches", 3, resnet18)])
def test_the_full_trunks_are_resnets(joint, half, channels, known):
    """With the weights of torchvision's ResNet-34 and ResNet-18, the halves give those networks' embeddings."""
    part = getattr(joint, half)
    theirs = known(num_classes=64).eval()
    theirs.conv1 = torch.nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    ours = chain(part.trunk.state_dict().values(), part.embed.state_dict().values())
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours, strict=True)))
    image = torch.rand(1, channels, 96, 96)
    with torch.no_grad():
        assert torch.allclose(Embedding.forward(part, image), theirs(image), atol=1e-5)


def test_the_joint_network_has_the_papers_size(joint):
    """11.21 M parameters for patches, 21.32 M for the thumbnail, 0.69 M to join them; 33.2 M in all."""
    count = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in joint.named_children()}
    assert count == pytest.approx({"patches": 11.21, "thumbnail": 21.32, "head": 0.69}, abs=0.005)
    assert sum(count.values()) == pytest.approx(33.2, abs=0.05)
    assert joint.head[0].in_features == 1088


def test_one_pass_equals_sixteen(joint):
    """In evaluation mode the flattened pass over all patches gives what sixteen passes, patch by patch, give."""
    patches, thumbnail = torch.rand(2, 16, 3, 64, 64), torch.rand(2, 5, 64, 96)
    with torch.no_grad():
        outputs = joint(thumbnail=thumbnail, patches=patches)
        shown = joint.shown_patches(patches)
        each = [Embedding.forward(joint.patches, shown[:, number]) for number in range(16)]
        location = torch.stack([joint.patches.locate(embedding) for embedding in each], dim=1)
        answer = joint.head(torch.cat([*each, joint.thumbnail(joint.shown_thumbnail(thumbnail))], dim=1))
    assert torch.allclose(outputs["location"], location, atol=1e-5)
    assert torch.allclose(outputs["rectangle"], answer[:, :4], atol=1e-5)
    assert torch.allclose(outputs["crop"], answer[:, 4], atol=1e-5)


def test_the_halves_are_parts_of_the_joint_network():
    """Weights of both halves bear the same names and shapes as in the joint network; only the head's input differs."""
    joint, *halves = (
        {name: value.shape for name, value in CropNet(RECIPES[f"crops_{which}_narrow"]().system).state_dict().items()}
        for which in ("joint", "thumbnail", "patches")
    )
    both = halves[0] | halves[1]
    assert {name for name in joint if both.get(name) != joint[name]} == {"head.0.weight"}
