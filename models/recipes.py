"""Complete training configurations: a recipe is a function that returns a frozen ``Recipe``.

Variants derive with ``dataclasses.replace``. This module is plain Python: it imports no torch, so a flow may read it.
Source of ``crops_thumbnail``: "Dissecting Image Crops", Van Hoorick and Vondrick, ICCV 2021 (arXiv 2011.11831) and the
authors' published code: network, crop law, loss weights, optimiser and schedule.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from models.errors import ConfigError
from models.frames import LATER, PackSpec


@dataclass(frozen=True)
class CropLaw:
    """How crops are drawn: with ``crop_probability``, of linear size U(min, max), pinned to one of the four edges."""

    crop_probability: float = 0.5
    min_size_factor: float = 0.5
    max_size_factor: float = 0.9


@dataclass(frozen=True)
class ScaleMatching:
    """Crops and whole frames alike pass through an intermediate width, then get noise: see ``models.transforms``."""

    min_intermediate_px: int
    max_intermediate_px: int
    max_noise_std: float = 0.02  # of the full range; the standard deviation itself is drawn from U(0, max)


@dataclass(frozen=True)
class ModelSpec:
    """A network by name and size. ``depths`` and ``widths`` are per stage; ``stem`` is the first convolution."""

    name: str
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    stem: Literal["7x7-pool", "3x3"]
    input_height: int
    input_width: int
    embedding: int = 64
    hidden: tuple[int, ...] = (512, 256)


@dataclass(frozen=True)
class OptimiserSpec:
    """``schedule``: "exponential" multiplies lr by ``decay`` each epoch; "one_cycle" warms up, then anneals to 0."""

    name: Literal["adam", "adamw", "sgd"]
    lr: float
    schedule: Literal["constant", "exponential", "cosine", "one_cycle"]
    decay: float = 1.0
    warmup_fraction: float = 0.25
    weight_decay: float = 0.0
    momentum: float = 0.9  # of SGD
    max_gradient_norm: float | None = None


@dataclass(frozen=True)
class LossSpec:
    """Weights of the loss terms: mean squared error of the rectangle, cross-entropy of the crop decision."""

    name: str = "crop_rectangle"
    rectangle_weight: float = 3.0
    crop_weight: float = 1.0


@dataclass(frozen=True)
class EvaluationSpec:
    """Each photo is seen once whole and ``crops_per_photo`` times cropped; intervals resample photos."""

    crops_per_photo: int = 4
    seed: int = 1754
    bootstrap_replicates: int = 2000
    bootstrap_seed: int = 7


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run computes, except the photos and the run's seed."""

    name: str
    title: str
    model: ModelSpec
    pack: PackSpec
    crop_law: CropLaw
    scale_matching: ScaleMatching
    optimiser: OptimiserSpec
    loss: LossSpec
    evaluation: EvaluationSpec
    batch_size: int
    epochs: int
    flip_horizontally: bool = False
    seeds: tuple[int, ...] = (0, 1, 2)  # the seeds of a full comparison; one run takes one of them
    precision: Literal["float32", "bfloat16"] = "float32"  # bfloat16 only on CUDA
    channels_last: bool = False
    constant_outputs_after_epoch: int = 3

    def __post_init__(self) -> None:
        _check(self)

    def as_dict(self) -> dict[str, Any]:
        """Nested mapping of JSON values."""
        return json.loads(json.dumps(_plain(self)))  # type: ignore[no-any-return]

    @property
    def least_scale(self) -> float:
        """The smallest reduction that occurs: the narrowest crop to the widest intermediate width."""
        return self.pack.frame_width * self.crop_law.min_size_factor / self.scale_matching.max_intermediate_px

    @property
    def digest(self) -> str:
        """SHA-256 over every value of the recipe."""
        return hashlib.sha256(json.dumps(_plain(self), sort_keys=True).encode()).hexdigest()


def crops_thumbnail() -> Recipe:
    """The thumbnail half of the paper's network, whole: ResNet-34 on RGB and two coordinate channels."""
    return Recipe(
        name="crops_thumbnail",
        title="Crop detection from the thumbnail (ResNet-34)",
        model=ModelSpec("crop_thumbnail", (3, 4, 6, 3), (64, 128, 256, 512), "7x7-pool", 149, 224),
        pack=PackSpec(frame_height=384, frame_width=576),
        crop_law=CropLaw(),
        # 288 px is the narrowest crop of a 576 px frame: no sample is ever enlarged.
        scale_matching=ScaleMatching(min_intermediate_px=224, max_intermediate_px=288),
        optimiser=OptimiserSpec("adam", lr=5e-3, schedule="exponential", decay=0.942),
        loss=LossSpec(),
        evaluation=EvaluationSpec(),
        batch_size=64,
        epochs=25,
        precision="bfloat16",
        channels_last=True,
    )


def crops_thumbnail_narrow() -> Recipe:
    """A quarter of the width, a third of the depth, a smaller thumbnail: learns from 350 photos on two CPU cores.

    With so few photos the decision is learnt long before the rectangle; ten times the paper's weight on the rectangle
    keeps its gradient alive (size-factor error on crops 0.083 instead of 0.115 where the constant answer has 0.108).
    """
    return replace(
        crops_thumbnail(),
        name="crops_thumbnail_narrow",
        title="Crop detection from the thumbnail (narrow: quarter-width ResNet-10, 72x48)",
        model=ModelSpec("crop_thumbnail", (1, 1, 1, 1), (16, 32, 64, 128), "3x3", 48, 72),
        pack=PackSpec(frame_height=128, frame_width=192),
        scale_matching=ScaleMatching(min_intermediate_px=72, max_intermediate_px=96),
        optimiser=OptimiserSpec("adamw", lr=4e-3, schedule="one_cycle", weight_decay=0.02),
        loss=LossSpec(rectangle_weight=30.0),
        batch_size=32,
        epochs=40,
        flip_horizontally=True,
        precision="float32",
        channels_last=False,
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "crops_thumbnail": crops_thumbnail,
    "crops_thumbnail_narrow": crops_thumbnail_narrow,
}


def resolve(name: str) -> Recipe:
    """The recipe of that name; ``ConfigError`` (a ``ValueError``) lists the known ones."""
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}: choose one of {', '.join(sorted(RECIPES))}", recipe=name)
    return RECIPES[name]()


def from_dict(values: Mapping[str, Any]) -> Recipe:
    """The recipe that ``Recipe.as_dict`` described; ``ConfigError`` names an unknown, missing or impossible value."""
    return _build(Recipe, values, "recipe")  # type: ignore[no-any-return]


def _plain(recipe: Recipe) -> dict[str, Any]:
    """Nested mapping of the recipe's values, without later fields that say nothing."""
    return asdict(
        recipe, dict_factory=lambda items: {name: value for name, value in items if LATER.get(name, ...) != value}
    )


def _build(kind: type[Any], values: Any, path: str) -> Any:
    """An instance of the dataclass ``kind`` from JSON values; ``path`` is how messages call the place."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{path} must be a mapping, not {values!r}", key=path)
    hints = get_type_hints(kind)
    if unknown := sorted(set(values) - set(hints)):
        raise ConfigError(f"{path} has no {unknown[0]!r}: its keys are {', '.join(hints)}", key=f"{path}.{unknown[0]}")
    if missing := [field.name for field in fields(kind) if field.name not in {*values, *LATER}]:
        raise ConfigError(f"{path} lacks {missing[0]!r}: a recipe is complete", key=f"{path}.{missing[0]}")
    return kind(**{name: _value(hints[name], values[name], f"{path}.{name}") for name in values})


def _value(hint: Any, value: Any, path: str) -> Any:
    """``value`` as the type ``hint`` says; ``ConfigError`` where it is none."""
    if is_dataclass(hint):
        return _build(hint, value, path)  # type: ignore[arg-type]
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        return tuple(_value(get_args(hint)[0], item, path) for item in value)
    if get_origin(hint) is Literal:
        allowed = get_args(hint)
    else:
        kinds = get_args(hint) or (hint,)
        kinds = (*kinds, int) if float in kinds else kinds
        if isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool)):
            return value
        raise ConfigError(f"{path} cannot be {value!r}: expected {getattr(hint, '__name__', hint)}", key=path)
    if value not in allowed:
        raise ConfigError(f"{path} cannot be {value!r}: choose one of {', '.join(map(repr, allowed))}", key=path)
    return value


def _check(recipe: Recipe) -> None:
    """Raise ``ConfigError`` for values that no run could use."""
    law, matching, model = recipe.crop_law, recipe.scale_matching, recipe.model
    widest_px = int(recipe.pack.frame_width * law.min_size_factor)
    claims = {
        "batch_size must be at least 2 (batch normalisation)": recipe.batch_size >= 2,
        "epochs must be at least 1": recipe.epochs >= 1,
        "pack.pad_beyond must be at least 1, or null": (recipe.pack.pad_beyond or 1) >= 1,
        "crop_law.crop_probability must lie in [0, 1]": 0 <= law.crop_probability <= 1,
        "crop_law must have 0 < min_size_factor <= max_size_factor < 1": (
            0 < law.min_size_factor <= law.max_size_factor < 1
        ),
        "model.depths and model.widths must have one value per stage": len(model.depths) == len(model.widths) > 0,
        f"scale_matching must have {model.input_width} <= min <= max <= {widest_px} px: nothing may be enlarged": (
            model.input_width <= matching.min_intermediate_px <= matching.max_intermediate_px <= widest_px
        ),
        "evaluation.crops_per_photo must be at least 1": recipe.evaluation.crops_per_photo >= 1,
        "optimiser.lr must be positive": recipe.optimiser.lr > 0,
    }
    for claim, holds in claims.items():
        if not holds:
            raise ConfigError(f"recipe {recipe.name!r}: {claim}", recipe=recipe.name)
