"""From a recipe to its system and a network that is ready to train, and one forward pass as the recipe wants it."""

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.categories.spec import CategorySpec
from models.checkpoint import best_weights
from models.errors import ConfigError
from models.linting import refuse_squashed_outputs
from models.loader import PhotoBatch
from models.pretrained import load_weights
from models.randomness import photo_keys
from models.specs import Recipe
from models.systems import Batch, System, Tensors


def system_of(recipe: Recipe, classes: Sequence[str] = ()) -> System:
    """The recipe's system; ``classes``: the labels of train, sorted, where the system learns labels."""
    if isinstance(recipe.system, CategorySpec):
        from models.categories.system import CategorySystem

        return CategorySystem(recipe, classes)
    from models.crops.system import CropSystem

    return CropSystem(recipe)


def build_model(system: System, seed: int, device: torch.device) -> nn.Module:
    """The system's network with the weights of ``seed``; ``ConfigError`` if an output that wants logits is squashed."""
    recipe = system.recipe
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = system.build()
    refuse_squashed_outputs(model, system, blank_batch(system))
    order = torch.channels_last if recipe.channels_last and device.type == "cuda" else torch.contiguous_format
    model = model.to(device, memory_format=order)  # type: ignore[call-overload]
    if recipe.compile:
        model.compile(dynamic=False)  # in place: the names of the weights stay
    return model


def blank_batch(system: System) -> Batch:
    """What the system draws from two black photos, on the CPU."""
    pack = system.recipe.pack
    names = list(getattr(system, "classes", ())) or [None]
    detail = pack.detail_height and torch.zeros(2, 3, pack.detail_height, pack.detail_width or 0, dtype=torch.uint8)
    photos = PhotoBatch(
        rows_B=np.arange(2),
        keys_B=photo_keys(["blank/0", "blank/1"]),
        frame_BCHW=torch.zeros(2, 3, pack.frame_height, pack.frame_width, dtype=torch.uint8),
        detail_BCHW=detail,
        labels=[names[0], names[-1]],
    )
    return system.draw(photos, seed=0, epoch=0)


def forward(model: nn.Module, inputs: Tensors, recipe: Recipe) -> Tensors:
    """Outputs in float32; on CUDA in the recipe's precision and memory order inside."""
    device = next(iter(inputs.values())).device
    if recipe.channels_last and device.type == "cuda":
        inputs = {name: _channels_last(value) for name, value in inputs.items()}
    with _precision(recipe, device):
        outputs: Tensors = model(**inputs)
    return {name: value.float() for name, value in outputs.items()}


def start_from(model: nn.Module, files: Sequence[Path]) -> list[dict[str, Any]]:
    """Load whatever agrees with ``model`` in name and shape from each file, in their order; an account of each.

    A folder is that of a run: its best weights. The account is that of ``pretrained.load_weights``. Raises
    ``ConfigError`` for a file that cannot be read or gives nothing, ``CheckpointMismatch`` for an untrained run.
    """
    return [load_weights(model, start_file(path)) for path in files]


def start_file(path: Path) -> Path:
    """The file of weights that is meant by a path: itself, or the best weights of the run in that folder.

    Raises ``ConfigError`` if it is not there.
    """
    file = best_weights(path) if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"there is no file of weights at {file}: correct start_from", path=str(file))
    return file


def refuse_shown_otherwise(path: Path, recipe: Recipe) -> None:
    """Raise ``ConfigError`` if the run whose weights lie at ``path`` was shown other inputs than ``recipe`` shows.

    Runs of older versions do not say what they were shown, and were shown something else. Of weights that lie in no run
    nobody knows.
    """
    card = start_file(path).resolve().parent.parent.parent / "train.json"
    try:
        theirs = json.loads(card.read_bytes())["recipe"]["system"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    for name in recipe.system.shown:
        mine, other = getattr(recipe.system, name), theirs.get(name, "not known")
        if theirs.get("kind") == recipe.system.kind and other != mine:
            message = (
                f"{path} was trained with {name} {other!r}, not {mine!r}: train it anew, or start from another run"
            )
            raise ConfigError(message, key="start_from", start=str(path))


def memory_figures(device: torch.device) -> dict[str, int]:
    """On CUDA the most memory that this process has held at once, in bytes; elsewhere nothing."""
    return {"peak_memory_bytes": torch.cuda.max_memory_allocated(device)} if device.type == "cuda" else {}


def _channels_last(value: Tensor) -> Tensor:
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value


def _precision(recipe: Recipe, device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 autocast on CUDA if the recipe wants it; elsewhere nothing."""
    if device.type == "cuda" and recipe.precision == "bfloat16":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()
