"""A complete training configuration, as frozen dataclasses. Plain Python without torch, so that a flow may read it.

``recipes.py`` fills these in; ``systems.py`` says what a system (crop detection, categories, ...) has to offer.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from models.categories.spec import CategorySpec
from models.crops.spec import CropSpec
from models.errors import ConfigError
from models.frames import PackSpec

SystemSpec = CropSpec | CategorySpec


@dataclass(frozen=True)
class OptimiserSpec:
    """``rate_factors``: (prefix of parameter names, factor of the learning rate); the first prefix that fits counts."""

    name: Literal["sgd", "adam", "adamw", "rmsprop"]
    lr: float
    weight_decay: float = 0.0  # spares biases and normalisation
    momentum: float = 0.9  # of SGD and RMSprop
    max_gradient_norm: float | None = None
    rate_factors: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class ScheduleSpec:
    """The learning rate as a function of the step, after a linear warm-up over ``warmup_fraction`` of all steps.

    "step" multiplies by ``decay`` every ``step_epochs`` epochs, "exponential" every epoch; "cosine" falls to 0;
    "one_cycle" rises along a cosine over the warm-up instead and then falls to 0 along another.
    """

    kind: Literal["constant", "step", "exponential", "cosine", "one_cycle"] = "constant"
    warmup_fraction: float = 0.0
    decay: float = 1.0
    step_epochs: int = 1


@dataclass(frozen=True)
class Freeze:
    """Parameters whose names begin with ``prefix`` do not learn in the first ``until_epoch`` epochs; None: never."""

    prefix: str
    until_epoch: int | None = None


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when val_loss has not fallen by ``min_delta`` for ``patience_epochs`` epochs."""

    patience_epochs: int
    min_delta: float = 0.0


@dataclass(frozen=True)
class GuardSpec:
    """What ends a run that no longer learns: outputs that stop varying, a loss that leaps.

    ``spike_factor``: a batch's loss beyond this multiple of the running median of the last 64 is skipped, and five
    skipped in a row end the run; None skips nothing. A loss that is no number ends a run at once.
    """

    constant_outputs_after_epoch: int = 3
    spike_factor: float | None = None


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run computes, except the photos, their labels and the run's seed."""

    name: str
    title: str
    system: SystemSpec
    pack: PackSpec
    optimiser: OptimiserSpec
    batch_size: int
    epochs: int
    schedule: ScheduleSpec = ScheduleSpec()
    accumulate: int = 1  # parts in which a batch goes through the network, one optimiser step for all
    ema_decay: float | None = None  # of an average of the weights, per step; it is what is judged
    frozen: tuple[Freeze, ...] = ()
    early_stopping: EarlyStopping | None = None
    guards: GuardSpec = GuardSpec()
    keep_best: int = 1  # checkpoints of the best epochs that stay
    precision: Literal["float32", "bfloat16"] = "float32"  # bfloat16 autocast, on CUDA only
    channels_last: bool = False
    compile: bool = False
    seeds: tuple[int, ...] = (0, 1, 2)  # the seeds of a full comparison; one run takes one of them

    def __post_init__(self) -> None:
        _check(self)

    def as_dict(self) -> dict[str, Any]:
        """Nested mapping of JSON values."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    @property
    def digest(self) -> str:
        """SHA-256 over every value of the recipe."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def _check(recipe: Recipe) -> None:
    """Raise ``ConfigError`` for values that no run could use."""
    pack, schedule = recipe.pack, recipe.schedule
    claims = {
        "batch_size / accumulate must be at least 2 (batch normalisation)": (
            recipe.accumulate >= 1 and recipe.batch_size >= 2 * recipe.accumulate
        ),
        "epochs must be at least 1": recipe.epochs >= 1,
        "keep_best must be at least 1": recipe.keep_best >= 1,
        "ema_decay must lie in (0, 1), or be null": recipe.ema_decay is None or 0 < recipe.ema_decay < 1,
        "pack.pad_beyond must be at least 1, or null": (pack.pad_beyond or 1) >= 1,
        "pack.detail_height and pack.detail_width must both be set, or both be null": (
            (pack.detail_height is None) == (pack.detail_width is None)
        ),
        "optimiser.lr must be positive": recipe.optimiser.lr > 0,
        "schedule.warmup_fraction must lie in [0, 1)": 0 <= schedule.warmup_fraction < 1,
        "schedule.step_epochs must be at least 1": schedule.step_epochs >= 1,
        **recipe.system.claims(pack.frame_width, pack.detail_width),
    }
    for claim, holds in claims.items():
        if not holds:
            raise ConfigError(f"recipe {recipe.name!r}: {claim}", recipe=recipe.name)
