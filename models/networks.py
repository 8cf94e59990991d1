"""Networks by name: from a recipe to a network that is ready to train, and one forward pass as the recipe wants it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from models.crops import CropThumbnailNet
from models.errors import ConfigError
from models.losses import refuse_squashed_outputs
from models.recipes import ModelSpec, Recipe

MODELS: dict[str, Callable[[ModelSpec], nn.Module]] = {"crop_thumbnail": CropThumbnailNet}
INPUT_CHANNELS = 5  # red, green, blue, y, x


def build_model(recipe: Recipe, seed: int, device: torch.device) -> nn.Module:
    """The recipe's network with the weights of ``seed``; ``ConfigError`` if its last layer squashes logits."""
    if recipe.model.name not in MODELS:
        raise ConfigError(f"unknown network {recipe.model.name!r}: choose one of {', '.join(MODELS)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MODELS[recipe.model.name](recipe.model)
    probe = torch.zeros(1, INPUT_CHANNELS, recipe.model.input_height, recipe.model.input_width)
    refuse_squashed_outputs(model, probe, recipe.loss.name)
    order = torch.channels_last if recipe.channels_last and device.type == "cuda" else torch.contiguous_format
    return model.to(device, memory_format=order)  # type: ignore[call-overload,no-any-return]


def forward(model: nn.Module, image_BCHW: Tensor, recipe: Recipe) -> Tensor:
    """Outputs in float32; on CUDA in the recipe's precision and memory order inside."""
    if recipe.channels_last and image_BCHW.is_cuda:
        image_BCHW = image_BCHW.contiguous(memory_format=torch.channels_last)
    with _precision(recipe, image_BCHW.device):
        outputs_B5: Tensor = model(image_BCHW)
    return outputs_B5.float()


def _precision(recipe: Recipe, device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 autocast on CUDA if the recipe wants it; elsewhere nothing."""
    if device.type == "cuda" and recipe.precision == "bfloat16":
        return torch.autocast("cuda", dtype=torch.bfloat16)
    return nullcontext()
