"""What crop detection is made of: the crop law, the sizes of both networks, the loss, the samples of an evaluation.

Plain Python without torch, so that a flow may read a recipe.
Source: Van Hoorick and Vondrick, "Dissecting Image Crops", ICCV 2021 (arXiv 2011.11831), and the authors' code.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from models.frames import PackSpec

# By which filter a sample is first reduced, by protocol; the first is what it is without a choice.
KERNELS = {
    "matched": ("triangle", "gaussian"),
    "official": ("bilinear", "nearest", "cubic", "lanczos", "area"),
}
Kernel = Literal["triangle", "gaussian", "bilinear", "nearest", "cubic", "lanczos", "area"]

GRID = 4  # patches along a side: the paper's 16 cells
LEAST_PX = 8  # of a side that a network sees


@dataclass(frozen=True)
class CropLaw:
    """How crops are drawn: with ``crop_probability``, of linear size U(min, max), pinned to one of the four edges."""

    crop_probability: float = 0.5
    min_size_factor: float = 0.5
    max_size_factor: float = 0.9


@dataclass(frozen=True)
class TrunkSpec:
    """A residual trunk of basic blocks: ``depths`` and ``widths`` per stage; ``stem`` is the first convolution."""

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    stem: Literal["7x7-pool", "3x3"]
    embedding: int = 64


@dataclass(frozen=True)
class ScaleLaw:
    """To how many pixels of width a sample is brought before the network sees it, and the noise that it then gets.

    "matched": crops and whole frames alike are reduced, never enlarged, by filters that blur both alike, so that
    sharpness does not tell the size factor (``models.resampling``). "official": the published protocol, one bilinear
    resize of either class, enlarged where it must be.
    """

    min_px: int
    max_px: int
    protocol: Literal["matched", "official"] = "matched"
    max_noise_std: float = 0.02  # of the full range; the standard deviation itself is drawn from U(0, max)


@dataclass(frozen=True)
class ThumbnailSpec:
    """The half that sees the whole sample, reduced to ``height`` x ``width``, with two coordinate channels."""

    trunk: TrunkSpec
    height: int
    width: int
    scale: ScaleLaw


@dataclass(frozen=True)
class PatchSpec:
    """The half that sees 16 square windows of ``patch_px``, one in each cell of a 4 x 4 grid over the sample.

    A window lies around its cell's centre, moved by whole pixels in [-jitter, jitter) on each axis; the jitter moves
    no label. ``scale``: the width in pixels of the whole sample that the windows are cut from.
    """

    trunk: TrunkSpec
    patch_px: int
    scale: ScaleLaw
    jitter_px: int = 8


@dataclass(frozen=True)
class CropLossSpec:
    """Weights: mean squared error of the rectangle, cross-entropy of the crop decision, and of each patch's place."""

    rectangle_weight: float = 3.0
    crop_weight: float = 1.0
    location_weight: float = 0.15


@dataclass(frozen=True)
class CropEvaluationSpec:
    """Each photo is seen once whole and ``crops_per_photo`` times cropped; intervals resample photos."""

    crops_per_photo: int = 4
    seed: int = 1754
    bootstrap_replicates: int = 2000
    bootstrap_seed: int = 7
    response_photos: int = 64  # of test that are also tried perturbed


@dataclass(frozen=True)
class CropSpec:
    """Crop detection from the thumbnail, from patches, or from both together (the joint network).

    ``kernels``: by which of them a training sample is first reduced, one drawn for each, whole or cropped; none: by the
    protocol's own. Under "matched" they are those that blur both classes alike; under "official" the five that the
    authors meant to draw from (their code always took the bilinear one). ``brightness``, ``contrast``, ``saturation``:
    a training photo's are changed by a factor in [1 - x, 1 + x], the same for both halves. The samples of an evaluation
    have the first kernel and their own colours. ``mean_colour``: what the network is shown of a sample's; under one
    law of scenes it scatters more over crops than over whole photos, and tells them apart without any lens.
    """

    needs_labels: ClassVar[bool] = False
    shown: ClassVar[tuple[str, ...]] = ("mean_colour",)  # fields that say what a network is shown of its inputs

    thumbnail: ThumbnailSpec | None
    patches: PatchSpec | None
    kind: Literal["crops"] = "crops"
    hidden: tuple[int, ...] = (512, 256)  # of the head; () is a linear one
    mean_colour: Literal["removed", "kept"] = "removed"
    crop_law: CropLaw = CropLaw()
    loss: CropLossSpec = CropLossSpec()
    evaluation: CropEvaluationSpec = field(default_factory=CropEvaluationSpec)
    flips: tuple[Literal["horizontal", "vertical"], ...] = ()  # of the frame, before it is cropped
    kernels: tuple[Kernel, ...] = ()
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    shuffled_labels: bool = False  # a control: every photo is told the truth about another sample

    def claims(self, pack: PackSpec) -> dict[str, bool]:
        """What must hold, and for a pack of that kind, as sentences."""
        law, frame_width, detail_width = self.crop_law, pack.frame_width, pack.detail_width
        found = {
            "pack.pad_beyond must be null: a margin that is white all round tells whole photos from crops": (
                pack.pad_beyond is None
            ),
            "system needs a thumbnail, patches or both": bool(self.thumbnail or self.patches),
            "system.crop_law.crop_probability must lie in [0, 1]": 0 <= law.crop_probability <= 1,
            "system.crop_law must have 0 < min_size_factor <= max_size_factor < 1": (
                0 < law.min_size_factor <= law.max_size_factor < 1
            ),
            "system.hidden must be widths of at least 1": min(self.hidden, default=1) >= 1,
            **{
                f"system.{name} must lie in [0, 1]": 0 <= getattr(self, name) <= 1
                for name in ("brightness", "contrast", "saturation")
            },
            **_kernel_claims(self.kernels, [half.scale for half in (self.thumbnail, self.patches) if half]),
            **_loss_claims(self.loss, bool(self.patches)),
            **_evaluation_claims(self.evaluation),
        }
        if self.thumbnail:
            least = self.thumbnail.width
            sides = least, self.thumbnail.height
            found[f"system.thumbnail.height and width must be at least {LEAST_PX} px"] = min(sides) >= LEAST_PX
            found |= _scale_claims("thumbnail", self.thumbnail.scale, least, int(frame_width * law.min_size_factor))
            found |= _trunk_claims("thumbnail", self.thumbnail.trunk)
        if self.patches:
            found["pack.detail_width must be set: patches are cut from the large frames"] = detail_width is not None
            found[f"system.patches.patch_px must be at least {LEAST_PX}"] = self.patches.patch_px >= LEAST_PX
            found["system.patches.jitter_px must be at least 0"] = self.patches.jitter_px >= 0
            least = GRID * (self.patches.jitter_px + 1)
            widest = int((detail_width or 0) * law.min_size_factor)
            found |= _scale_claims("patches", self.patches.scale, least, widest)
            found |= _trunk_claims("patches", self.patches.trunk)
        return found


def _kernel_claims(kernels: tuple[Kernel, ...], scales: list[ScaleLaw]) -> dict[str, bool]:
    return {
        f"system.kernels must be of {', '.join(known)} under {protocol!r}": set(kernels) <= set(known)
        for protocol, known in KERNELS.items()
        if any(scale.protocol == protocol for scale in scales)
    }


def _loss_claims(loss: CropLossSpec, has_patches: bool) -> dict[str, bool]:
    weights = [loss.rectangle_weight, loss.crop_weight, *([loss.location_weight] if has_patches else [])]
    return {
        "system.loss must have weights of at least 0": min(*weights, loss.location_weight) >= 0,
        "system.loss must have a weight above 0 for something that the network tells": max(weights) > 0,
    }


def _evaluation_claims(evaluation: CropEvaluationSpec) -> dict[str, bool]:
    return {
        "system.evaluation.crops_per_photo must be at least 1": evaluation.crops_per_photo >= 1,
        "system.evaluation.bootstrap_replicates must be at least 2": evaluation.bootstrap_replicates >= 2,
        "system.evaluation.response_photos must be at least 1": evaluation.response_photos >= 1,
    }


def _scale_claims(half: str, scale: ScaleLaw, least_px: int, widest_px: int) -> dict[str, bool]:
    """Scales in order, and nothing enlarged where that is promised."""
    is_matched = scale.protocol == "matched"
    limit = f" <= {widest_px} px: nothing may be enlarged" if is_matched else " px"
    in_order = least_px <= scale.min_px <= scale.max_px
    return {
        f"system.{half}.scale must have {least_px} <= min <= max{limit}": (
            in_order and (not is_matched or scale.max_px <= widest_px)
        ),
        f"system.{half}.scale.max_noise_std must lie in [0, 1]": 0 <= scale.max_noise_std <= 1,
    }


def _trunk_claims(half: str, trunk: TrunkSpec) -> dict[str, bool]:
    return {
        f"system.{half}.trunk must have a depth and a width for each stage": (
            len(trunk.depths) == len(trunk.widths) > 0
        ),
        f"system.{half}.trunk must have depths, widths and an embedding of at least 1": (
            min([*trunk.depths, *trunk.widths, trunk.embedding]) >= 1
        ),
    }
