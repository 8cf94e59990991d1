"""What a run needs to go on exactly where it was: tensors as safetensors, the rest as JSON.

    <run>/checkpoint/index.json                 which there are, oldest first; replaced as the last act of saving
    <run>/checkpoint/learnt.parquet             which photos the weights have learnt, see learnt.py
    <run>/checkpoint/epoch-0003-step-0000120/
        weights.safetensors      what is judged: the averaged weights if the recipe averages them, or else the weights
        learning.safetensors     the weights being learnt, if the others are averages
        optimiser.safetensors
        state.json               identity, progress, the rest of the optimiser, the SHA-256 of each file above

The index holds the SHA-256 of each state.json, so a file that is cut off or changed is found before it is loaded. Kept
are the last two (a run goes on from the last whole one, with the same result) and those of the best epochs. An epoch is
saved when its steps are done and again once it is validated, so that no stop and no crash of a validation loses it. No
generator is saved: order, crops and noise are functions of (seed, epoch, photo), the learning rate of the step.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from models import disk
from models.averaging import Averaged
from models.errors import CheckpointDamaged, CheckpointMismatch, TrainingDiverged
from models.optimisers import match_memory_order

WEIGHTS, LEARNING, OPTIMISER, STATE = (
    "weights.safetensors", "learning.safetensors", "optimiser.safetensors", "state.json",
)  # fmt: skip


KINDS = {  # what differs, where two digests would say nothing
    "recipe_digest": "another recipe", "pack_digest": "another pack",
    "labels_sha256": "other labels", "start_sha256s": "another start_from", "classes": "other classes",
}  # fmt: skip


@dataclass(frozen=True)
class RunIdentity:
    """What a checkpoint belongs to; training goes on only under the very same."""

    recipe_digest: str
    recipe_name: str
    seed: int
    pack_digest: str
    labels_sha256: str | None = None
    start_sha256s: tuple[str, ...] = ()  # of the files that the weights started from
    classes: tuple[str, ...] = ()  # labels of train, in the order of the outputs


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
    stopped_early: str | None = None  # the reason
    skipped_steps: int = 0  # batches whose loss leapt
    skipped_in_row: int = 0
    recent_losses: list[float] = field(default_factory=list)  # at most 64, for the guard against leaps


@dataclass(frozen=True)
class TrainingState:
    """The live objects that a checkpoint is made of, and put back into."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    average: Averaged | None = None


@dataclass(frozen=True)
class Kept:
    """An entry of the index; ``val_loss`` is None for one that was made before its epoch was validated."""

    name: str
    state_sha256: str
    val_loss: float | None


class Checkpoints:
    """The checkpoints of one run folder, and the files that lie ``beside`` them, by name: they hold for all.

    Of several processes, only the one with ``is_writer`` saves.
    """

    def __init__(
        self,
        run_dir: Path,
        identity: RunIdentity,
        keep_best: int = 1,
        *,
        is_writer: bool = True,
        beside: Mapping[str, bytes] | None = None,
    ) -> None:
        self.folder, self.identity = run_dir / "checkpoint", identity
        self.keep_best, self.is_writer, self.beside = keep_best, is_writer, beside or {}
        self._current: str | None = None  # what was saved or loaded last

    def save(self, state: TrainingState, progress: Progress, val_loss: float | None) -> None:
        """Write a checkpoint, ``val_loss`` being that of the epoch that has just ended (None: it is not validated).

        Raises ``DiskFull``, and ``TrainingDiverged`` (in every process) for weights that are no numbers; what was saved
        before then stays as it was.
        """
        name = f"epoch-{progress.epoch:04d}-step-{progress.step:07d}"
        if name == self._current:  # a stop right after a save: nothing has changed since
            return
        _refuse_broken(state.model, progress.step)
        if not self.is_writer:
            return
        draft = self.folder / f".draft-{name}-{os.getpid()}"
        try:
            with disk.noticing_a_full_disk(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir()
            state_sha256 = self._write(draft, state, progress)
            for file, content in self.beside.items():
                if not (path := self.folder / file).is_file() or path.read_bytes() != content:
                    disk.replace(path, content)
            shutil.rmtree(self.folder / name, ignore_errors=True)  # of a try that died before it was named
            draft.rename(self.folder / name)
            disk.sync_folder(self.folder)
            self._point(Kept(name, state_sha256, val_loss))
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        self._current = name

    def load_last(self, state: TrainingState) -> Progress | None:
        """Put the last whole checkpoint into ``state`` and return where it was; None if there is none.

        Raises ``CheckpointMismatch`` if it belongs to another run, ``CheckpointDamaged`` if none is whole.
        """
        index = read_index(self.folder)
        for entry in reversed(index):
            try:
                files = read_whole(self.folder, entry)
            except CheckpointDamaged:
                if entry is index[0]:
                    raise
                continue
            about = self._checked(entry.name, files)
            self._fill(state, files, about)
            self._current = entry.name
            return Progress(**about["progress"])
        return None

    def load_best(self, model: nn.Module) -> Progress:
        """Put the weights of the best epoch into ``model``, averaged if the recipe averages; where the run was then.

        Raises ``CheckpointMismatch`` if there is none or it is another run's, ``CheckpointDamaged``.
        """
        entry = best_entry(self.folder)
        files = read_whole(self.folder, entry)
        about = self._checked(entry.name, files)
        model.load_state_dict(load(files[WEIGHTS]))
        return Progress(**about["progress"])

    def _write(self, folder: Path, state: TrainingState, progress: Progress) -> str:
        """Write the files of a checkpoint; the SHA-256 of state.json, which holds those of the others."""
        weights = dict(state.model.state_dict())
        slots, rest = _split_optimiser(state.optimiser.state_dict())
        tensors = {WEIGHTS: weights, OPTIMISER: slots}
        if state.average is not None:
            tensors |= {WEIGHTS: {**weights, **state.average.tensors()}, LEARNING: weights}
        digests = {}
        for name, part in tensors.items():
            content = save({key: value.detach().contiguous() for key, value in part.items()})
            disk.write(folder / name, content)
            digests[name] = hashlib.sha256(content).hexdigest()
        about = {"identity": asdict(self.identity), "progress": asdict(progress), "optimiser": rest, "files": digests}
        content = json.dumps(about).encode()
        disk.write(folder / STATE, content)
        disk.sync_folder(folder)
        return hashlib.sha256(content).hexdigest()

    def _point(self, newest: Kept) -> None:
        """Add ``newest`` to the index, drop those that need not stay, then remove what it no longer names."""
        entries = read_index(self.folder)
        if self._current is not None:  # later ones were found damaged
            names = [entry.name for entry in entries]
            entries = entries[: names.index(self._current) + 1] if self._current in names else entries
        entries = [entry for entry in entries if entry.name != newest.name] + [newest]
        best = _best_first(entries)[: self.keep_best]
        kept = [entry for entry in entries if entry in entries[-2:] or entry in best]
        content = {"last": newest.name, "best": best[0].name if best else None, "kept": [asdict(each) for each in kept]}
        disk.replace(self.folder / "index.json", json.dumps(content, indent=1).encode())
        for path in self.folder.iterdir():
            if path.is_dir() and path.name not in {entry.name for entry in kept}:
                shutil.rmtree(path, ignore_errors=True)

    def _fill(self, state: TrainingState, files: Mapping[str, bytes], about: Mapping[str, Any]) -> None:
        """Put what the files hold into the live objects."""
        state.model.load_state_dict(load(files[LEARNING if state.average is not None else WEIGHTS]))
        state.optimiser.load_state_dict(_join_optimiser(load(files[OPTIMISER]), about["optimiser"]))
        match_memory_order(state.optimiser)  # files know none
        if state.average is not None:
            state.average.load(load(files[WEIGHTS]))

    def _checked(self, name: str, files: Mapping[str, bytes]) -> dict[str, Any]:
        """The checkpoint's JSON, after its identity was compared with this run's."""
        about: dict[str, Any] = json.loads(files[STATE])
        expected = json.loads(json.dumps(asdict(self.identity)))
        for key, found in about["identity"].items():
            if found != expected[key]:
                what = f"{KINDS[key]} than this run's" if key in KINDS else f"{key} {found!r}, not {expected[key]!r}"
                message = (
                    f"{self.folder / name} was made with {what}:"
                    " give the run a folder of its own, or remove the checkpoint"
                )
                facts = {"path": str(self.folder), "key": key, "found": found, "expected": expected[key]}
                raise CheckpointMismatch(message, **facts)
        return about


def _refuse_broken(model: nn.Module, step: int) -> None:
    """Raise ``TrainingDiverged`` if a weight is no number: the last loss may not tell, for it came before the step."""
    values = {name: value for name, value in model.state_dict().items() if value.is_floating_point()}
    if torch.stack([torch.isfinite(value).all() for value in values.values()]).all():  # one wait for a GPU, not many
        return
    name = next(name for name, value in values.items() if not torch.isfinite(value).all())
    message = (
        f"the weights became no numbers before step {step} ({name}): lower the learning rate, or set"
        " optimiser.max_gradient_norm"
    )
    raise TrainingDiverged(message, step=step, weights=name)


def identity_of(run_dir: Path) -> RunIdentity:
    """Whose the best checkpoint of a run folder is; raises as ``Checkpoints.load_best`` does."""
    folder = run_dir / "checkpoint"
    entry = best_entry(folder)
    found = json.loads(read_whole(folder, entry, (STATE,))[STATE])["identity"]
    lists = {key: tuple(found[key]) for key in ("start_sha256s", "classes")}
    return RunIdentity(**{**found, **lists})


def best_weights(run_dir: Path) -> Path:
    """The file that holds the weights of a run's best epoch; raises ``CheckpointMismatch`` if there is none."""
    folder = run_dir / "checkpoint"
    return folder / best_entry(folder).name / WEIGHTS


def best_entry(folder: Path) -> Kept:
    """The entry of the lowest val_loss; raises ``CheckpointMismatch`` if no epoch was finished."""
    if not (entries := _best_first(read_index(folder))):
        message = f"{folder} holds no finished epoch: train this run first"
        raise CheckpointMismatch(message, path=str(folder))
    return entries[0]


def read_index(folder: Path) -> list[Kept]:
    """The checkpoints of a run, oldest first, none if it has not saved yet; raises ``CheckpointDamaged``."""
    path = folder / "index.json"
    if not path.exists():
        return []
    try:
        return [Kept(**entry) for entry in json.loads(path.read_bytes())["kept"]]
    except (ValueError, KeyError, TypeError) as error:
        message = f"{path} is damaged ({error}): remove {folder} and train again"
        raise CheckpointDamaged(message, path=str(path)) from error


def read_whole(folder: Path, entry: Kept, only: Sequence[str] | None = None) -> dict[str, bytes]:
    """The files of a checkpoint (or ``only`` those), each compared with its digest; raises ``CheckpointDamaged``."""
    place = folder / entry.name
    try:
        found = {STATE: _read(place / STATE, entry.state_sha256)}
        digests = json.loads(found[STATE])["files"]
        wanted = digests if only is None else [name for name in digests if name in only]
        return found | {name: _read(place / name, digests[name]) for name in wanted}
    except (OSError, ValueError) as error:
        message = f"the checkpoint {place} is damaged ({error}): remove {folder} and train again"
        raise CheckpointDamaged(message, path=str(place)) from error


def _read(path: Path, sha256: str) -> bytes:
    """The file's content; ``ValueError`` if its digest is another."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{path.name} is cut off or was changed")
    return content


def _best_first(entries: Sequence[Kept]) -> list[Kept]:
    """Those of finished epochs by their loss on val; of equals the earlier one first."""
    return sorted((entry for entry in entries if entry.val_loss is not None), key=lambda entry: entry.val_loss or 0.0)


def _split_optimiser(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimiser's tensors by "parameter.name", and the rest, which JSON can hold."""
    items = [(f"{number}.{name}", value) for number, slot in state["state"].items() for name, value in slot.items()]
    tensors = {key: value for key, value in items if isinstance(value, Tensor)}
    plain = {key: value for key, value in items if not isinstance(value, Tensor)}
    return tensors, {"groups": state["param_groups"], "plain": plain}


def _join_optimiser(tensors: dict[str, Tensor], rest: dict[str, Any]) -> dict[str, Any]:
    """The inverse of ``_split_optimiser``."""
    slots: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **rest["plain"]}.items():
        number, name = key.split(".", 1)
        slots.setdefault(int(number), {})[name] = value
    return {"state": slots, "param_groups": rest["groups"]}
