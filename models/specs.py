"""A complete training configuration, as frozen dataclasses. Plain Python without torch, so that a flow may read it.

``recipes.py`` fills these in; ``systems.py`` says what a system (crop detection, categories, ...) has to offer.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from models.categories.spec import CategorySpec
from models.crops.spec import CropSpec
from models.errors import ConfigError
from models.frames import PackSpec

SystemSpec = CropSpec | CategorySpec
LARGEST = 2**63 - 1  # whole number


@dataclass(frozen=True)
class OptimiserSpec:
    """``rate_factors``: (prefix of parameter names, factor of the learning rate); the first prefix that fits counts.

    A factor of 0 stops learning but not the statistics of normalisation; ``Recipe.frozen`` stops both.
    """

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
    """Raise ``ConfigError`` for values that no run could use; numbers that are not finite first: they compare oddly."""
    pack = recipe.pack
    claims = {f"{path} must be a finite number": False for path in _not_finite(recipe.as_dict())}
    claims = claims or {
        **_running_claims(recipe),
        **_pack_claims(pack),
        **_optimiser_claims(recipe.optimiser),
        **_schedule_claims(recipe.schedule),
        **recipe.system.claims(pack),
    }
    for claim, holds in claims.items():
        if not holds:
            raise ConfigError(f"recipe {recipe.name!r}: {claim}", recipe=recipe.name)


def _not_finite(value: Any, path: str = "") -> list[str]:
    """Where in nested JSON values infinite numbers are, or such that are none, or that no machine counts to."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return [found for key, each in items for found in _not_finite(each, f"{path}.{key}" if path else str(key))]
    if isinstance(value, int):
        return [path] if abs(value) > LARGEST else []
    return [path] if isinstance(value, float) and not math.isfinite(value) else []


def _running_claims(recipe: Recipe) -> dict[str, bool]:
    stopping, spike_factor = recipe.early_stopping, recipe.guards.spike_factor
    return {
        "batch_size / accumulate must be at least 2 (batch normalisation)": (
            recipe.accumulate >= 1 and recipe.batch_size >= 2 * recipe.accumulate
        ),
        "epochs must be at least 1": recipe.epochs >= 1,
        "keep_best must be at least 1": recipe.keep_best >= 1,
        "ema_decay must lie in (0, 1), or be null": recipe.ema_decay is None or 0 < recipe.ema_decay < 1,
        "frozen.until_epoch must be at least 1, or null": all(
            each.until_epoch is None or each.until_epoch >= 1 for each in recipe.frozen
        ),
        "early_stopping.patience_epochs must be at least 1": stopping is None or stopping.patience_epochs >= 1,
        "early_stopping.min_delta must be at least 0": stopping is None or stopping.min_delta >= 0,
        "guards.constant_outputs_after_epoch must be at least 0": recipe.guards.constant_outputs_after_epoch >= 0,
        "guards.spike_factor must be above 1, or null": spike_factor is None or spike_factor > 1,
        "seeds must name at least one, and none below 0": min(recipe.seeds, default=-1) >= 0,
    }


def _pack_claims(pack: PackSpec) -> dict[str, bool]:
    least_px = 8
    detail_px = [side for side in (pack.detail_height, pack.detail_width) if side is not None]
    return {
        "pack.pad_beyond must be at least 1, or null": pack.pad_beyond is None or pack.pad_beyond >= 1,
        "pack.detail_height and pack.detail_width must both be set, or both be null": (
            (pack.detail_height is None) == (pack.detail_width is None)
        ),
        f"pack.frame_height and pack.frame_width must be at least {least_px} px": (
            min(pack.frame_height, pack.frame_width) >= least_px
        ),
        f"pack.detail_height and pack.detail_width must be at least {least_px} px, or null": (
            min(detail_px, default=least_px) >= least_px
        ),
    }


def _optimiser_claims(optimiser: OptimiserSpec) -> dict[str, bool]:
    most = optimiser.max_gradient_norm
    return {
        "optimiser.lr must be positive": optimiser.lr > 0,
        "optimiser.weight_decay must be at least 0": optimiser.weight_decay >= 0,
        "optimiser.momentum must lie in [0, 1)": 0 <= optimiser.momentum < 1,
        "optimiser.max_gradient_norm must be positive, or null": most is None or most > 0,
        "optimiser.rate_factors must be at least 0": all(factor >= 0 for _, factor in optimiser.rate_factors),
    }


def _schedule_claims(schedule: ScheduleSpec) -> dict[str, bool]:
    return {
        "schedule.warmup_fraction must lie in [0, 1)": 0 <= schedule.warmup_fraction < 1,
        "schedule.decay must lie in (0, 1]": 0 < schedule.decay <= 1,
        "schedule.step_epochs must be at least 1": schedule.step_epochs >= 1,
    }
