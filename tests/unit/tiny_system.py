"""A system that has nothing to do with photos of anything, to show that the engine needs to know nothing about them."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.categories.spec import CategorySpec
from models.checkpoint import Checkpoints, Progress, RunIdentity, TrainingState, read_index
from models.distributed import World
from models.errors import Stopped
from models.frames import PackSpec
from models.loader import FrameStore, PhotoBatch, Split
from models.loop import train
from models.randomness import uniform_draws
from models.recipes import resolve
from models.specs import GuardSpec, OptimiserSpec, Recipe, ScheduleSpec
from models.systems import Arrays, Batch, Samples, Tensors
from models.tracking import RunLog

SIDE_PX = 16


class TinyNet(nn.Module):
    """Two convolutions and a line: how bright a frame is, and which of its channels is the brightest."""

    def __init__(self, batch_norm: bool, dropout: float) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6) if batch_norm else nn.Identity())
        self.neck = nn.Sequential(nn.Conv2d(6, 6, 3, 2, 1), nn.BatchNorm2d(6) if batch_norm else nn.Identity())
        self.drop, self.head = nn.Dropout(dropout), nn.Linear(6, 4)

    def forward(self, image: Tensor) -> Tensors:
        features_BCHW = self.neck(self.trunk(image).relu()).relu()
        answer_B4 = self.head(self.drop(features_BCHW.mean((2, 3))))
        return {"brightness": answer_B4[:, 0], "channel": answer_B4[:, 1:]}


@dataclass
class TinySystem:
    """``loss_factor``: of (epoch, keys), what the losses of those photos are multiplied with."""

    recipe: Recipe
    batch_norm: bool = True
    dropout: float = 0.0
    loss_factor: Callable[[int, np.ndarray], np.ndarray] = field(default=lambda epoch, keys: np.ones(len(keys)))

    def build(self) -> nn.Module:
        return TinyNet(self.batch_norm, self.dropout)

    def example(self, photos: int) -> Tensors:
        return {"image": torch.zeros(photos, 3, SIDE_PX, SIDE_PX)}

    def draw(self, photos: PhotoBatch, seed: int, epoch: int) -> Batch:
        chance_B = uniform_draws("noise", seed, epoch, photos.keys_B, 1)[:, 0]
        noise_B = torch.as_tensor(chance_B * 0.1, dtype=torch.float32)
        factor_B = torch.as_tensor(self.loss_factor(epoch, photos.keys_B), dtype=torch.float32)
        image_BCHW, targets = photos.frame_BCHW / 255, truth(photos.frame_BCHW.numpy())
        inputs = {"image": image_BCHW + noise_B.view(-1, 1, 1, 1)}
        return Batch(inputs, {name: torch.as_tensor(value) for name, value in targets.items()} | {"factor": factor_B})

    def samples(self, split: Split) -> Samples:
        """Each photo as it is, which counts three quarters, and mirrored."""
        photo_N, sample_N = np.tile(np.arange(len(split)), 2), np.repeat([0, 1], len(split))
        targets = truth(split.frames[photo_N].transpose(0, 3, 1, 2)) | {"factor": np.ones(len(photo_N))}
        return Samples(photo_N, sample_N, np.where(sample_N == 0, 0.75, 0.25), targets)

    def draw_fixed(self, photos: PhotoBatch, samples: Samples, rows_B: np.ndarray) -> Batch:
        targets = {name: torch.as_tensor(values[rows_B]) for name, values in samples.targets.items()}
        image_BCHW = photos.frame_BCHW / 255
        is_mirrored_B = torch.as_tensor(samples.sample_N[rows_B] == 1).view(-1, 1, 1, 1)
        return Batch({"image": torch.where(is_mirrored_B, image_BCHW.flip(3), image_BCHW)}, targets)

    def losses(self, outputs: Tensors, targets: Tensors) -> Tensors:
        brightness_B = (outputs["brightness"] - targets["brightness"].float()).square()
        channel_B = functional.cross_entropy(outputs["channel"], targets["channel"], reduction="none")
        total_B = (brightness_B + channel_B) * targets["factor"]
        return {"total": total_B, "brightness": brightness_B, "channel": channel_B}

    def figures(self, outputs: Arrays, samples: Samples) -> dict[str, float]:
        return {"accuracy": float((outputs["channel"].argmax(1) == samples.targets["channel"]).mean())}


def truth(frame_BCHW: np.ndarray) -> dict[str, np.ndarray]:
    """What there is to learn of the frames."""
    mean_BC = frame_BCHW.mean((2, 3))
    return {"brightness": (mean_BC.mean(1) / 255).astype(np.float32), "channel": mean_BC.argmax(1)}


def tiny_split(name: str, photos: int) -> Split:
    """Frames of one colour with noise, always the same."""
    rng = np.random.default_rng(len(name))
    frames = rng.uniform(40, 200, (photos, 1, 1, 3)) + rng.normal(0, 20, (photos, SIDE_PX, SIDE_PX, 3))
    names = [f"{name}-{n}" for n in range(photos)]
    return Split(name, frames.clip(0, 255).astype(np.uint8), None, ["tiny"] * photos, names, [None] * photos)


def tiny_recipe(**changes: Any) -> Recipe:
    """22 photos make 3 batches of nearly equal size; 4 epochs."""
    base = replace(
        resolve("categories_narrow"),
        name="tiny",
        system=CategorySpec("none", SIDE_PX),
        pack=PackSpec(SIDE_PX, SIDE_PX),
        optimiser=OptimiserSpec("sgd", lr=0.05),
        schedule=ScheduleSpec(),
        guards=GuardSpec(),
        batch_size=8,
        epochs=4,
    )
    return replace(base, **changes)


@dataclass
class Run:
    """A run folder, with what training in it left behind. Calling ``train`` again goes on."""

    folder: Path
    system: TinySystem
    seed: int = 3

    def __post_init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            self.model = self.system.build()
        counts = {"train": 22, "val": 6}
        self.stores = {name: FrameStore(tiny_split(name, n), torch.device("cpu")) for name, n in counts.items()}

    def checkpoints(self) -> Checkpoints:
        return Checkpoints(self.folder, RunIdentity(self.system.recipe.digest, "tiny", self.seed, "pack"))

    def train(self, must_stop: Callable[[], bool] = lambda: False) -> Progress:
        self.folder.mkdir(exist_ok=True)
        log = RunLog(self.folder / "metrics.jsonl")
        recipe, pieces = self.system.recipe, (self.stores, self.checkpoints(), log)
        return train(recipe, self.system, self.model, *pieces, seed=self.seed, world=World(), must_stop=must_stop)

    def train_step_by_step(self) -> Progress:
        """Stopped after every single step and amid each validation, and begun again with fresh objects and generators.

        A try that did not come further than the one before, as its validation was stopped, is followed by a longer one.
        """
        asked, last = 1, ""
        for _ in range(100):
            self.__post_init__()
            torch.manual_seed(999)
            try:
                return self.train(partial(next, iter([False] * asked + [True])))
            except Stopped:
                entries = read_index(self.folder / "checkpoint")
                asked, last = asked + 1 if entries[-1].name == last else 1, entries[-1].name
        raise AssertionError("it never ends")

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        lines = map(json.loads, (self.folder / "metrics.jsonl").read_text().splitlines())
        return [line for line in lines if line["event"] == kind]

    def tensors(self, state: TrainingState) -> dict[str, Tensor]:
        """Everything that the last checkpoint holds, put into ``state`` first."""
        self.checkpoints().load_last(state)
        slots = state.optimiser.state_dict()["state"]
        found = {f"{number}.{name}": value for number, slot in slots.items() for name, value in slot.items()}
        found |= state.model.state_dict()
        return found | ({f"average.{k}": v for k, v in state.average.tensors().items()} if state.average else {})


def make_run(folder: Path, changes: dict[str, Any] | None, system: dict[str, Any]) -> Run:
    """A run in ``folder``: ``changes`` are of the recipe, ``system`` of the system."""
    return Run(folder, TinySystem(tiny_recipe(**(changes or {})), **system))
