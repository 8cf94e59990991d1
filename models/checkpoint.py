"""What a run needs to go on exactly where it was: weights and optimiser as safetensors, the rest as JSON.

    <run>/checkpoint/index.json     {"last": "step-000120", "best": "step-000100"}: replaced atomically, so always whole
    <run>/checkpoint/step-000120/   weights.safetensors, optimiser.safetensors, state.json

No generator is saved: order, crops and noise are functions of (seed, epoch, photo), the learning rate of the step.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.errors import CheckpointMismatch


@dataclass(frozen=True)
class RunIdentity:
    """What a checkpoint belongs to; training goes on only under the very same."""

    recipe_digest: str
    recipe_name: str
    seed: int
    pack_digest: str


@dataclass
class Progress:
    """Where a run is. ``step`` counts all optimiser steps, ``step_in_epoch`` those of the epoch that is under way."""

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    loss_sum: float = 0.0  # over the photos of this epoch so far
    photos_seen: int = 0  # in this epoch
    best_val_loss: float | None = None
    best_epoch: int | None = None
    seconds: float = 0.0  # of training, over all tries
    history: list[dict[str, float]] = field(default_factory=list)  # one entry per finished epoch


class Checkpoints:
    """The checkpoints of one run folder: the last one and the best one, nothing else."""

    def __init__(self, run_dir: Path, identity: RunIdentity) -> None:
        self.folder, self.identity = run_dir / "checkpoint", identity

    def save(self, model: nn.Module, optimiser: torch.optim.Optimizer, progress: Progress, *, is_best: bool) -> None:
        """Write a checkpoint as "last" (and as "best"); remove what is neither."""
        name, index = f"step-{progress.step:06d}", self._index()
        if name in index.values():  # a stop right after an epoch's end: nothing has changed since
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        fresh = self.folder / f".{name}-{os.getpid()}"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        tensors, groups = _split_optimiser(optimiser.state_dict())
        save_file({key: value.contiguous() for key, value in model.state_dict().items()}, fresh / "weights.safetensors")
        save_file(tensors, fresh / "optimiser.safetensors")
        state = {"identity": asdict(self.identity), "progress": asdict(progress), "optimiser": groups}
        (fresh / "state.json").write_text(json.dumps(state))
        shutil.rmtree(self.folder / name, ignore_errors=True)  # of a try that died before it was named
        fresh.rename(self.folder / name)
        self._point({**index, "last": name, **({"best": name} if is_best else {})})

    def load_last(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> Progress | None:
        """Put the last checkpoint into model and optimiser and return where it was; None if there is none.

        Raises ``CheckpointMismatch`` if it belongs to another recipe, seed or pack.
        """
        if (folder := self._named("last")) is None:
            return None
        state = self._state(folder)
        model.load_state_dict(load_file(folder / "weights.safetensors"))
        optimiser.load_state_dict(_join_optimiser(load_file(folder / "optimiser.safetensors"), state["optimiser"]))
        return Progress(**state["progress"])

    def load_best(self, model: nn.Module) -> Progress:
        """Put the weights of the best epoch into ``model``; raises ``CheckpointMismatch`` if there are none."""
        if (folder := self._named("best")) is None:
            message = f"{self.folder} holds no finished epoch: train this run before it is evaluated"
            raise CheckpointMismatch(message, path=str(self.folder))
        state = self._state(folder)
        model.load_state_dict(load_file(folder / "weights.safetensors"))
        return Progress(**state["progress"])

    def _named(self, role: str) -> Path | None:
        name = self._index().get(role)
        return None if name is None else self.folder / name

    def _index(self) -> dict[str, str]:
        path = self.folder / "index.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def _point(self, index: dict[str, str]) -> None:
        """Make ``index`` the current one, then remove the checkpoints that it no longer names."""
        fresh = self.folder / f".index-{os.getpid()}"
        fresh.write_text(json.dumps(index))
        fresh.replace(self.folder / "index.json")
        for path in self.folder.iterdir():
            if path.is_dir() and path.name not in index.values():
                shutil.rmtree(path, ignore_errors=True)

    def _state(self, folder: Path) -> dict[str, Any]:
        """The checkpoint's JSON, after its identity was compared with this run's."""
        state: dict[str, Any] = json.loads((folder / "state.json").read_text())
        expected = asdict(self.identity)
        for key, found in state["identity"].items():
            if found != expected[key]:
                message = (
                    f"{folder} was made with {key} {found!r}, this run has {expected[key]!r}:"
                    " give the run a folder of its own, or remove the checkpoint"
                )
                raise CheckpointMismatch(message, path=str(folder), key=key, found=found, expected=expected[key])
        return state


def _split_optimiser(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimiser's tensors by "parameter.name", and the rest, which JSON can hold."""
    items = [(f"{number}.{name}", value) for number, slot in state["state"].items() for name, value in slot.items()]
    tensors = {key: value.contiguous() for key, value in items if isinstance(value, Tensor)}
    plain = {key: value for key, value in items if not isinstance(value, Tensor)}
    return tensors, {"groups": state["param_groups"], "plain": plain}


def _join_optimiser(tensors: dict[str, Tensor], rest: dict[str, Any]) -> dict[str, Any]:
    """The inverse of ``_split_optimiser``."""
    slots: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **rest["plain"]}.items():
        number, name = key.split(".", 1)
        slots.setdefault(int(number), {})[name] = value
    return {"state": slots, "param_groups": rest["groups"]}
