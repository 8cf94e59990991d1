"""What the prediction of photo categories is made of. Plain Python without torch, so that a flow may read a recipe."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from models.frames import PackSpec


@dataclass(frozen=True)
class AugmentSpec:
    """What a training photo goes through, drawn anew for each photo and epoch.

    ``min_area``, ``max_aspect``: a random part of the frame of at least that area, its aspect changed by at most that
    factor; ``turn_deg``: a turn of at most that angle; ``brightness``, ``contrast``, ``saturation``: changed by a
    factor in [1 - x, 1 + x]; ``hue``: turned by at most that part of the circle; ``kernels``: how the part is
    resampled, one drawn for each photo.
    """

    min_area: float = 0.35
    max_aspect: float = 4 / 3
    flips: tuple[Literal["horizontal", "vertical"], ...] = ("horizontal",)
    turn_deg: float = 0.0
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.0
    kernels: tuple[Literal["triangle", "nearest", "cubic", "lanczos"], ...] = ("triangle",)


@dataclass(frozen=True)
class CategoryEvaluationSpec:
    """Intervals resample photos."""

    bootstrap_replicates: int = 2000
    bootstrap_seed: int = 7
    response_photos: int = 64  # of test that are also tried perturbed


@dataclass(frozen=True)
class CategorySpec:
    """One label a photo, of those that the train split has; ``network`` names an entry of ``models.categories``."""

    needs_labels: ClassVar[bool] = True
    shown: ClassVar[tuple[str, ...]] = ()  # no field changes what a network is shown of its inputs

    network: str
    input_px: int
    kind: Literal["categories"] = "categories"
    width: float = 1.0  # of every stage, relative to the published network
    augment: AugmentSpec = AugmentSpec()
    label_smoothing: float = 0.0
    evaluation: CategoryEvaluationSpec = CategoryEvaluationSpec()
    shuffled_labels: bool = False  # a control: every photo learns a label that was drawn by chance

    def claims(self, pack: PackSpec) -> dict[str, bool]:
        """What must hold, and for a pack of that kind, as sentences."""
        return {
            f"system.input_px must lie in [16, {pack.frame_width}] px": 16 <= self.input_px <= pack.frame_width,
            "system.width must be positive": self.width > 0,
            "system.label_smoothing must lie in [0, 1)": 0 <= self.label_smoothing < 1,
            "system.evaluation.bootstrap_replicates must be at least 2": self.evaluation.bootstrap_replicates >= 2,
            "system.evaluation.response_photos must be at least 1": self.evaluation.response_photos >= 1,
            **_augment_claims(self.augment),
        }


def _augment_claims(augment: AugmentSpec) -> dict[str, bool]:
    return {
        "system.augment.min_area must lie in (0, 1]": 0 < augment.min_area <= 1,
        "system.augment.max_aspect must be at least 1": augment.max_aspect >= 1,
        "system.augment.turn_deg must lie in [0, 180]": 0 <= augment.turn_deg <= 180,
        "system.augment.kernels must name at least one": bool(augment.kernels),
        **{
            f"system.augment.{name} must lie in [0, 1]": 0 <= getattr(augment, name) <= 1
            for name in ("brightness", "contrast", "saturation", "hue")
        },
    }
