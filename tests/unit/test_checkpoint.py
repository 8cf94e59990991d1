"""A checkpoint gives back everything, belongs to one run only, and is whole or not there."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models import disk
from models.averaging import Averaged
from models.checkpoint import (
    STATE,
    WEIGHTS,
    Checkpoints,
    Progress,
    RunIdentity,
    TrainingState,
    best_weights,
    identity_of,
    read_index,
)
from models.errors import CheckpointDamaged, CheckpointMismatch, DiskFull, TrainingDiverged
from models.optimisers import make_optimiser
from models.specs import OptimiserSpec

IDENTITY = RunIdentity("abc", "tiny", 0, "def", "012", ("345",), ("cat", "dog"))
ADAMW = OptimiserSpec("adamw", lr=0.1, weight_decay=0.1)


def make_state(seed: int = 0, spec: OptimiserSpec = ADAMW, *, averages: bool = True) -> TrainingState:
    """A small network with a normalisation, its optimiser and its average."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    return TrainingState(model, make_optimiser(model, spec), Averaged(model, 0.5) if averages else None)


def step(state: TrainingState, number: int) -> None:
    """One training step on data that are a function of its number."""
    image = torch.randn(8, 3, generator=torch.Generator().manual_seed(number))
    state.optimiser.zero_grad()
    state.model(image).square().mean().backward()
    state.optimiser.step()
    if state.average is not None:
        state.average.update(state.model, number)


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    """Whether all tensors are equal."""
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)


def save_epochs(checkpoints: Checkpoints, val_losses: list[float | None], state: TrainingState | None = None) -> None:
    """Save after each of some epochs; None is a stop within one."""
    state, epoch = state or make_state(), 0
    for number, val_loss in enumerate(val_losses, 1):
        step(state, number)
        epoch += val_loss is not None
        checkpoints.save(state, Progress(step=number, epoch=epoch, best_epoch=epoch), val_loss)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_training_goes_on_bit_for_bit(tmp_path: Path, name: Any) -> None:
    """Three steps, saved, loaded into a fresh network, three more: the same bits as six steps at once."""
    spec = OptimiserSpec(name, lr=0.01, weight_decay=0.1)
    state, progress = make_state(spec=spec), Progress(step=3, loss_sum=0.1, photos_seen=24, recent_losses=[0.1, 1 / 3])
    for number in range(3):
        step(state, number)
    Checkpoints(tmp_path, IDENTITY).save(state, progress, None)
    resumed = make_state(seed=9, spec=spec)
    assert Checkpoints(tmp_path, IDENTITY).load_last(resumed) == progress
    for number in range(3, 6):
        step(state, number)
        step(resumed, number)
    assert same(resumed.model.state_dict(), state.model.state_dict())
    assert resumed.average
    assert state.average
    assert same(resumed.average.tensors(), state.average.tensors())


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_training_goes_on_with_channels_last(tmp_path: Path, name: str) -> None:
    """Slots come back in the memory order of their weights, so that a fused step is that of a run without a stop."""

    def make() -> TrainingState:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).to(memory_format=torch.channels_last)
        keywords: dict[str, Any] = {"momentum": 0.9} if name == "sgd" else {}
        made = torch.optim.SGD if name == "sgd" else torch.optim.AdamW
        return TrainingState(model, made(model.parameters(), lr=0.01, fused=True, **keywords))

    def take_step(state: TrainingState) -> None:
        image = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        state.optimiser.zero_grad()
        state.model(image.contiguous(memory_format=torch.channels_last)).square().mean().backward()
        state.optimiser.step()

    state, resumed = make(), make()
    take_step(state)
    Checkpoints(tmp_path, IDENTITY).save(state, Progress(step=1), None)
    Checkpoints(tmp_path, IDENTITY).load_last(resumed)
    weight, slot = resumed.model[2].weight, "momentum_buffer" if name == "sgd" else "exp_avg"
    assert resumed.optimiser.state[weight][slot].stride() == weight.stride() != weight.contiguous().stride()
    take_step(state), take_step(resumed)
    assert same(resumed.model.state_dict(), state.model.state_dict())


def test_the_averaged_weights_are_judged(tmp_path: Path) -> None:
    """``load_best`` gives the average where there is one, and the weights where there is none."""
    for averages in (True, False):
        state, judged = make_state(averages=averages), make_state(seed=9).model
        save_epochs(Checkpoints(tmp_path / str(averages), IDENTITY), [1.0], state)
        Checkpoints(tmp_path / str(averages), IDENTITY).load_best(judged)
        expected = state.average.tensors() if state.average else state.model.state_dict()
        assert same(judged.state_dict(), dict(expected))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"recipe_digest": "other"}, "another recipe"),
        ({"seed": 1}, "seed"),
        ({"pack_digest": "other"}, "another pack"),
        ({"labels_sha256": None}, "other labels"),
        ({"start_sha256s": ()}, "another start_from"),
        ({"classes": ("cat", "cow")}, "classes"),
    ],
)
def test_another_run_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    """A checkpoint is neither gone on from nor judged under another identity; the message names what differs."""
    save_epochs(Checkpoints(tmp_path, IDENTITY), [1.0])
    other = Checkpoints(tmp_path, replace(IDENTITY, **change))
    with pytest.raises(CheckpointMismatch, match=words):
        other.load_last(make_state())
    with pytest.raises(CheckpointMismatch, match="give the run a folder of its own"):
        other.load_best(make_state().model)
    assert identity_of(tmp_path) == IDENTITY


def test_an_untrained_run_has_no_checkpoint(tmp_path: Path) -> None:
    """Nothing to go on from is no error; nothing to judge is one, also when a run stopped within its first epoch."""
    checkpoints = Checkpoints(tmp_path, IDENTITY)
    assert checkpoints.load_last(make_state()) is None
    save_epochs(checkpoints, [None])
    with pytest.raises(CheckpointMismatch, match="train this run first"):
        checkpoints.load_best(make_state().model)


def test_the_last_two_and_the_best_stay(tmp_path: Path) -> None:
    """Of equals the earlier epoch is best; what is neither among the best nor the last two is removed."""
    checkpoints = Checkpoints(tmp_path, IDENTITY, keep_best=2)
    save_epochs(checkpoints, [0.5, 0.3, 0.9, 0.3, 0.8, None, 0.7])
    assert [entry.name[-1] for entry in read_index(checkpoints.folder)] == ["2", "4", "6", "7"]
    assert {path.name[-1] for path in checkpoints.folder.iterdir() if path.is_dir()} == {"2", "4", "6", "7"}
    assert checkpoints.load_best(make_state().model).step == 2
    assert best_weights(tmp_path).parent.name == json.loads((checkpoints.folder / "index.json").read_text())["best"]


def cut_off(path: Path) -> None:
    """Take the last byte away."""
    os.truncate(path, path.stat().st_size - 1)


def change(path: Path) -> None:
    """Change a byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", [WEIGHTS, "learning.safetensors", "optimiser.safetensors", STATE])
@pytest.mark.parametrize("damage", [cut_off, change, Path.unlink])
def test_a_damaged_checkpoint_is_never_loaded(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    """A run goes on from the last whole checkpoint and replaces the damaged one; without a whole one it is refused."""
    state = make_state()
    checkpoints = Checkpoints(tmp_path, IDENTITY)
    save_epochs(checkpoints, [0.5, 0.4], state)
    expected = {key: value.clone() for key, value in state.model.state_dict().items()}
    [first, second] = [checkpoints.folder / entry.name for entry in read_index(checkpoints.folder)]
    damage(second / name)
    with pytest.raises(CheckpointDamaged, match="train again"):
        checkpoints.load_best(state.model)

    resumed, again = make_state(seed=9), Checkpoints(tmp_path, IDENTITY)
    progress = again.load_last(resumed)
    assert progress
    assert progress.step == 1
    step(resumed, 2)
    again.save(resumed, Progress(step=2, epoch=2, best_epoch=2), 0.4)
    assert same(resumed.model.state_dict(), expected)
    assert Checkpoints(tmp_path, IDENTITY).load_last(make_state()) == Progress(step=2, epoch=2, best_epoch=2)

    for folder in (first, second):
        damage(folder / name)
    with pytest.raises(CheckpointDamaged, match="train again"):
        Checkpoints(tmp_path, IDENTITY).load_last(make_state())


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("writes", range(8))
def test_a_full_disk_leaves_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, writes: int
) -> None:
    """Whichever file of a checkpoint finds the disk full, what was saved before is whole, and nothing else is left."""
    checkpoints, state = Checkpoints(tmp_path, IDENTITY), make_state()
    save_epochs(checkpoints, [0.5], state)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    left = [writes]

    def sync(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(disk.os, "fsync", sync)
    step(state, 2)
    with pytest.raises(DiskFull, match="free some and run again"):
        checkpoints.save(state, Progress(step=2, epoch=2), 0.4)
    monkeypatch.undo()
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert all(after[path] == before[path] for path in before if path.name != "index.json")
    assert writes > 4 or after == before
    progress = Checkpoints(tmp_path, IDENTITY).load_last(make_state())
    assert progress
    assert progress.step == (1 if writes < 7 else 2)


def test_only_the_writer_saves(tmp_path: Path) -> None:
    """Of several processes one writes; the others read what it wrote."""
    save_epochs(Checkpoints(tmp_path, IDENTITY, is_writer=False), [1.0])
    assert not (tmp_path / "checkpoint").exists()
    save_epochs(Checkpoints(tmp_path, IDENTITY), [1.0])
    assert Checkpoints(tmp_path, IDENTITY, is_writer=False).load_last(make_state())


def test_what_was_just_saved_is_not_saved_again(tmp_path: Path) -> None:
    """A stop right after an epoch's end changes nothing."""
    checkpoints = Checkpoints(tmp_path, IDENTITY)
    save_epochs(checkpoints, [1.0])
    before = read_index(checkpoints.folder)
    checkpoints.save(make_state(), Progress(step=1, epoch=1), None)
    assert read_index(checkpoints.folder) == before


@pytest.mark.parametrize("is_writer", [True, False])
@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", ["0.weight", "1.running_var"])
def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path, is_writer: bool, broken: float, name: str) -> None:
    """A gradient may ruin them under a finite loss: every process says so, and the last whole checkpoint stays."""
    state, checkpoints = make_state(), Checkpoints(tmp_path, IDENTITY, is_writer=is_writer)
    save_epochs(checkpoints, [1.0], state)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with torch.no_grad():
        state.model.state_dict()[name].flatten()[0] = broken
    with pytest.raises(TrainingDiverged, match=rf"no numbers before step 2 \({name}\): lower the learning rate"):
        checkpoints.save(state, Progress(step=2, epoch=1), None)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
