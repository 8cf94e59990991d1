"""The job "predict": what a trained network says of photos about which nothing is known.

RUN.json's ``trained`` names the folder of the run that learnt; ``pack_dir`` holds one split, ``photos``. The answers go
into ``run_dir``/answers.parquet, one row a photo.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import torch
from torch import nn

from models import disk
from models.checkpoint import Checkpoints, RunIdentity, identity_of
from models.errors import CheckpointMismatch, ConfigError
from models.jobs import Request, choose_device, open_stores
from models.loader import open_pack
from models.networks import build_model, system_of
from models.predictions import predict
from models.systems import System

PHOTOS = "photos"  # the only split of a pack that is to be predicted


def predict_job(request: Request, must_stop: Callable[[], bool]) -> None:
    """Answer for every photo of the pack; leaves answers.parquet. Raises ``Stopped`` once ``must_stop`` says so."""
    device = choose_device(request.device)
    system, model, trained = load_trained(request, device)
    splits = open_pack(request.pack_dir, request.recipe.pack, [PHOTOS]).splits
    split, store = splits[PHOTOS], open_stores(request, splits, device)[PHOTOS]
    samples = system.as_given(split)
    outputs = predict(model, system, store, samples, request.recipe, must_stop)
    rows = system.answers(outputs, samples, split, decisions_of(trained))
    with disk.noticing_a_full_disk(request.run_dir):
        pq.write_table(rows, request.run_dir / ".answers", compression="zstd")
    (request.run_dir / ".answers").replace(request.run_dir / "answers.parquet")


def load_trained(request: Request, device: torch.device) -> tuple[System, nn.Module, Path]:
    """The system and the network of the run that ``request.trained`` names, with its best weights, and its folder.

    Raises ``CheckpointMismatch`` if that run was one of another recipe, or is not trained.
    """
    if request.trained is None:
        raise ConfigError(f"job {request.job!r} needs 'trained': the folder of the run that learnt", key="trained")
    identity: RunIdentity = identity_of(request.trained)
    if identity.recipe_digest != request.recipe.digest:
        message = (
            f"{request.trained} was trained by another {identity.recipe_name!r}: take the recipe of its train.json, or"
            " train it anew if an older version did"
        )
        raise CheckpointMismatch(message, path=str(request.trained))
    system = system_of(request.recipe, identity.classes)
    model = build_model(system, request.seed, device)
    Checkpoints(request.trained, identity).load_best(model)
    return system, model.eval(), request.trained


def decisions_of(trained: Path) -> dict[str, float]:
    """What the run's evaluation chose on val; nothing if it was not evaluated."""
    try:
        return dict(json.loads((trained / "evaluation.json").read_bytes())["decisions"])
    except FileNotFoundError:
        return {}
