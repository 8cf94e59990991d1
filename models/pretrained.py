"""Weights that a run starts from, out of files that somebody has: nothing is ever downloaded.

A file is one of ours (safetensors: a checkpoint's weights) or one of torchvision's for its ResNets and MobileNetV2
(``.pth``, read with ``weights_only``; or the same as safetensors). Tensors are taken where name and shape agree, a
head only as a whole; so the last layer of a file with another number of classes is left out, and so are the halves that
a network lacks.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from models.backbones import ResidualTrunk
from models.disk import sha256_of
from models.errors import ConfigError

log = logging.getLogger(__name__)

HEAD = "head."  # of every network; taken whole or not at all
WRAPPERS = ("state_dict", "model", "model_state_dict")  # under which training scripts keep the weights in a .pth file
NAMED = 5  # tensors left out that a message names
SHOWN = 120  # characters of what a reader of files complained of
_PREFIX = re.compile(r"^(module|_orig_mod)\.")  # of DistributedDataParallel and torch.compile
_RESNET = (
    (re.compile(r"^conv1\."), "stem.0."),
    (re.compile(r"^bn1\."), "stem.1."),
    (re.compile(r"^layer(\d)\."), lambda found: f"stages.{int(found[1]) - 1}."),
)
_MOBILENET = ((re.compile(r"^features\."), "trunk.layers."),)
_LAST_LAYER = re.compile(r"^(fc|classifier\.1)\.")


def load_weights(model: nn.Module, path: Path) -> dict[str, Any]:
    """Put the tensors of ``path`` that fit by name and shape into ``model``; say which file, and what was left out.

    Returns file (its name), sha256, tensors (how many were taken), of (how many the model has) and left_out (names in
    the file). ``ConfigError`` if the file cannot be read, nothing of it fits, or what fits is NaN or infinite.
    """
    wanted, taken, left_out = model.state_dict(), {}, []
    for name, tensor in read_weights(path).items():
        fitting = [each for each in _places(model, name) if each in wanted and wanted[each].shape == tensor.shape]
        taken |= dict.fromkeys(fitting, tensor)
        left_out += [] if fitting else [name]
    if not all(name in taken for name in wanted if name.startswith(HEAD)):
        # Upper layers of a head whose first one is another would read features that they have never seen.
        left_out += [name for name in taken if name.startswith(HEAD)]
        taken = {name: tensor for name, tensor in taken.items() if not name.startswith(HEAD)}
    if not any(tensor.ndim > 1 for tensor in taken.values()):  # counters of batch normalisation fit everywhere
        message = f"{path} holds no tensor that fits {type(model).__name__}: give weights of the same network"
        raise ConfigError(message, path=str(path))
    if broken := [name for name, tensor in taken.items() if not torch.isfinite(tensor).all()]:
        message = f"{path} holds values that are no numbers, in {_some(broken)}: start from an earlier state of it"
        raise ConfigError(message, path=str(path))
    model.load_state_dict(taken, strict=False)
    if left_out:
        log.warning(
            "%s: %d of %d tensors taken, left out: %s", path.name, len(taken), len(wanted), _some(sorted(left_out))
        )
    return {
        "file": path.name,
        "sha256": sha256_of(path),
        "tensors": len(taken),
        "of": len(wanted),
        "left_out": sorted(left_out),
    }


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` or ``.pth`` file by name, on the CPU; ``ConfigError`` says what is wrong."""
    if not path.is_file():
        message = f"there is no file of weights at {path}: correct start_from, or fetch the file yourself"
        raise ConfigError(message, path=str(path))
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except Exception as error:
        reason = " ".join(str(error).split())[:SHOWN]
        message = (
            f"{path} cannot be read as weights ({type(error).__name__}: {reason}):"
            " give a .safetensors file, or a .pth file that holds a state_dict and nothing else"
        )
        raise ConfigError(message, path=str(path)) from error
    weights = {_PREFIX.sub("", name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not weights:
        raise ConfigError(f"{path} holds no tensors: give the state_dict of a network", path=str(path))
    return weights


def _read_pickle(path: Path) -> Mapping[str, Any]:
    """A ``.pth`` file's mapping of names to tensors, taken out of what training scripts wrap it in."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    return content if isinstance(content, Mapping) else {}


def _places(model: nn.Module, name: str) -> Iterator[str]:
    """Where a tensor of that name belongs in ``model``: its own name, or those that a file of torchvision stands for.

    A ResNet's convolutions fit every residual trunk of the model.
    """
    yield name
    yield _LAST_LAYER.sub("head.", name)
    yield _renamed(name, _MOBILENET)
    within = _renamed(name, _RESNET)
    yield from (f"{trunk}.{within}" for trunk, part in model.named_modules() if isinstance(part, ResidualTrunk))


def _renamed(name: str, rules: Sequence[tuple[re.Pattern[str], Any]]) -> str:
    for pattern, replacement in rules:
        name = pattern.sub(replacement, name)
    return name


def _some(names: Sequence[str]) -> str:
    """The first few names, and how many more."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
