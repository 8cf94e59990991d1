"""The networks of crop detection: the thumbnail half, the patch half, and what joins them.

Shapes: B batch, P = 16 patches, p patch, D embedding, K = 16 cells. The parts bear the same names in every network,
so that the runs of both halves can start the joint one.
Source: Van Hoorick and Vondrick, "Dissecting Image Crops", ICCV 2021 (arXiv 2011.11831), and the authors' code.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from models.backbones import ResidualTrunk
from models.crops.law import CELLS, WHOLE
from models.crops.spec import CropSpec, TrunkSpec
from models.heads import Float32Linear


class Embedding(nn.Module):
    """Image [M, channels, h, w] -> embedding [M, D]: a residual trunk and a linear layer."""

    def __init__(self, channels: int, spec: TrunkSpec) -> None:
        super().__init__()
        self.trunk = ResidualTrunk(channels, spec.depths, spec.widths, spec.stem)
        self.embed = nn.Linear(spec.widths[-1], spec.embedding)

    def forward(self, image_MCHW: Tensor) -> Tensor:
        embedding_MD: Tensor = self.embed(self.trunk(image_MCHW))
        return embedding_MD


class PatchEmbedding(Embedding):
    """Patches [B, 16, 3, p, p] -> embeddings [B, 16, D], by one network in one pass; ``locate`` tells the cell of each.

    All patches of all photos go through batch normalisation together, so that its statistics tell no patch's place.
    """

    def __init__(self, spec: TrunkSpec) -> None:
        super().__init__(3, spec)
        self.locate = Float32Linear(spec.embedding, CELLS)

    def forward(self, patches_BPCpp: Tensor) -> Tensor:
        return super().forward(patches_BPCpp.flatten(0, 1)).unflatten(0, patches_BPCpp.shape[:2])


class CropNet(nn.Module):
    """``thumbnail`` [B, 5, h, w] and ``patches`` [B, 16, 3, p, p], or one of them, to the answers of crop detection.

    ``rectangle`` [B, 4] (x1, x2, y1, y2), linear; ``crop`` [B], a logit; with patches also ``location`` [B, 16, 16],
    the logits of each patch's cell.
    """

    def __init__(self, spec: CropSpec) -> None:
        super().__init__()
        self.mean_colour = spec.mean_colour
        self.thumbnail = Embedding(5, spec.thumbnail.trunk) if spec.thumbnail else None
        self.patches = PatchEmbedding(spec.patches.trunk) if spec.patches else None
        features = spec.thumbnail.trunk.embedding if spec.thumbnail else 0
        features += CELLS * spec.patches.trunk.embedding if spec.patches else 0
        self.head = _head((features, *spec.hidden))

    def forward(self, thumbnail: Tensor | None = None, patches: Tensor | None = None) -> dict[str, Tensor]:
        outputs, embeddings = {}, []
        if self.patches is not None and patches is not None:
            embedding_BPD = self.patches(self.shown_patches(patches))
            embeddings.append(embedding_BPD.flatten(1))
            outputs["location"] = self.patches.locate(embedding_BPD)
        if self.thumbnail is not None and thumbnail is not None:
            embeddings.append(self.thumbnail(self.shown_thumbnail(thumbnail)))
        answer_B5 = self.head(torch.cat(embeddings, dim=1))
        return {"rectangle": answer_B5[:, :4], "crop": answer_B5[:, 4], **outputs}

    def shown_patches(self, patches_BPCpp: Tensor) -> Tensor:
        """The patches as their trunk sees them: less the mean colour of all sixteen, if the spec removes it."""
        if self.mean_colour == "kept":
            return patches_BPCpp
        return patches_BPCpp - patches_BPCpp.mean((1, 3, 4), keepdim=True)

    def shown_thumbnail(self, thumbnail_B5hw: Tensor) -> Tensor:
        """The thumbnail as its trunk sees it: less its mean colour, if the spec removes it; places stay."""
        if self.mean_colour == "kept":
            return thumbnail_B5hw
        colour_B3hw, place_B2hw = thumbnail_B5hw.split((3, 2), 1)
        return torch.cat([colour_B3hw - colour_B3hw.mean((2, 3), keepdim=True), place_B2hw], 1)


def _head(sizes: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with ReLU between them, of those sizes, and a last one for the rectangle and the crop logit."""
    layers = [(nn.Linear(a, b), nn.ReLU(inplace=True)) for a, b in pairwise(sizes)]
    last = Float32Linear(sizes[-1], 5)
    # The rectangle starts at the whole frame, not at zero: otherwise the first epochs only move four biases.
    with torch.no_grad():
        last.bias.copy_(torch.tensor([*WHOLE, 0.0]))
    return nn.Sequential(*(part for layer in layers for part in layer), last)
