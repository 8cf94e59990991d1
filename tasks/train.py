"""Train a recipe on a pack, in a process of its own. The run's id is its cache key, so another try resumes the run."""

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
from prefect import task
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from models.learnt import LEARNT, file_beside
from storage import manifest, removals
from storage.layout import Layout, drafting, layout, write_bytes
from storage.records import FileRef, ManifestRef, PackRef, Record
from tasks import caching
from tasks.errors import ConfigError, RemovedPhoto
from tasks.fitting import run_fit

LOG = logging.getLogger(__name__)
SHOW_EVERY_S = 5.0  # of the live artifact, within an epoch
COLUMNS = ["source", "photo_id", "owner_id"]  # of a pack's rows, by which removals are looked up
LEFT_FILES = ("metrics.jsonl", "train.json", "evaluation.json", "predictions.parquet", "scores.parquet")


class Start(Record):
    """What a run starts from: weights, and which photos they have learnt, where that is known."""

    weights: FileRef
    learnt: FileRef | None


Starts = Sequence[Start]


class TrainedRun(Record):
    """A finished training: ``card`` is its train.json, ``weights`` the best checkpoint's."""

    run_id: str
    card: FileRef
    weights: FileRef


def run_id_of(
    pack: PackRef, recipe: dict[str, Any], seed: int, labels: ManifestRef | None = None, start_from: Starts = ()
) -> str:
    """The id of a run: a digest of what goes into it and of the code that makes it."""
    inputs = {"pack": pack, "recipe": recipe, "seed": seed, "labels": labels, "start_from": start_from}
    return caching.digest("train", inputs)[:16]


def fit_request(
    where: Layout, run_id: str, pack: PackRef, recipe: dict[str, Any], seed: int, labels: ManifestRef | None,
    start_from: Starts,
) -> dict[str, Any]:  # fmt: skip
    """What RUN.json says of a run, whatever is done with it (``models/fit.py``)."""
    return {
        "run_id": run_id,
        "pack_dir": str(where.pack(pack.digest)),
        "recipe": recipe,
        "seed": seed,
        "labels": None if labels is None else str(manifest.path(where, labels)),
        "start_from": [str(where.root / start.weights.path) for start in start_from],
    }


def best_weights(checkpoints: Path) -> Path:
    """The weights of the epoch that did best on val; ``models/checkpoint.py`` describes the folder.

    Raises ConfigError if the run has none, or nobody can tell which they are.
    """
    try:
        best = json.loads((checkpoints / "index.json").read_bytes())["best"]
        weights: Path = checkpoints / best / "weights.safetensors"
        if weights.is_file() and weights.parent.parent == checkpoints:
            return weights
        what = "names no weights that are there"
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"cannot be read ({type(error).__name__})"
    raise ConfigError(
        f"the run {checkpoints.parent.name!r} cannot be used: its {str(checkpoints / 'index.json')!r} {what}; "
        "train again"
    )


def start_of(where: Layout, weights: FileRef) -> Start:
    """The weights of a run with what it has learnt: both decide what becomes of a run that starts from them."""
    learnt = (where.root / weights.path).parent.parent / LEARNT
    return Start(weights=weights, learnt=manifest.file_ref(where, learnt) if learnt.is_file() else None)


def keep_weights(where: Layout, file: Path) -> FileRef:
    """A file of weights from elsewhere as one below the root, named by its bytes, with what lies by it of what it has
    learnt. Raises ConfigError if it cannot be read.
    """
    try:
        file = file.expanduser()
        account = file_beside(file)
        learnt = manifest.sha256_file(account) if account.is_file() else "unknown"
        with drafting(where.partial) as part:
            shutil.copyfile(file, part)
            kept = where.weights(learnt, manifest.sha256_file(part), file.suffix)
            kept.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, kept)
        if learnt != "unknown":
            write_bytes(kept.parent.parent / LEARNT, account.read_bytes())
    except (OSError, RuntimeError, ValueError) as error:  # an unknown ~user and a zero byte among them
        raise ConfigError(f"there are no weights to be read at {str(file)!r} ({error}): correct start_from") from error
    return manifest.file_ref(where, kept)


def is_whole(run_dir: Path) -> bool:
    """Whether a training ended in ``run_dir``, and its best checkpoint has the bytes that were written."""
    try:
        json.loads((run_dir / "train.json").read_bytes())
        index = json.loads((run_dir / "checkpoint" / "index.json").read_bytes())
        folder = best_weights(run_dir / "checkpoint").parent
        (entry,) = [entry for entry in index["kept"] if entry["name"] == folder.name]
        state = folder / "state.json"
        digests = json.loads(state.read_bytes())["files"] | {state.name: entry["state_sha256"]}
        return all(manifest.sha256_file(folder / name) == sha256 for name, sha256 in digests.items())
    except (OSError, ValueError, KeyError, TypeError):  # ConfigError among them
        return False


def start_over(run_dir: Path) -> None:
    """Remove what a training left, and what it was judged to be: another may come out."""
    shutil.rmtree(run_dir / "checkpoint", ignore_errors=True)
    for name in LEFT_FILES:
        (run_dir / name).unlink(missing_ok=True)


def trained(where: Layout, run_dir: Path) -> TrainedRun:
    """The finished run in ``run_dir``."""
    return TrainedRun(
        run_id=run_dir.name,
        card=manifest.file_ref(where, run_dir / "train.json"),
        weights=manifest.file_ref(where, best_weights(run_dir / "checkpoint")),
    )


def photos_of(pack_dir: Path) -> pa.Table:
    """Whose photos a pack holds; no rows where there is none."""
    tables = [manifest.read_file(rows).select(COLUMNS) for rows in sorted(pack_dir.glob("*.parquet"))]
    return pa.concat_tables(tables) if tables else pa.table({name: pa.array([], pa.string()) for name in COLUMNS})


def refuse_removed(where: Layout, run_dir: Path, photos: pa.Table, has_just_ended: bool = False) -> None:
    """Raise RemovedPhoto, and keep nothing of a run that was under way, if one of its ``photos`` was removed meanwhile.

    Their pack need not be there any more. What was trained to its end before a removal stays.
    """
    try:
        removals.refuse(where, photos, f"the pack of the run {run_dir.name!r}")
    except RemovedPhoto:
        if has_just_ended or not (run_dir / "train.json").exists():
            start_over(run_dir)
        raise


def follower(recipe_name: str, run_id: str) -> Callable[[dict[str, Any]], None]:
    """What puts the events of a training into the log and into a live artifact, which it makes."""
    artifact: Any = create_progress_artifact(
        0.0, key=f"training-{recipe_name}".replace("_", "-"), description=f"{recipe_name}, run {run_id}"
    )
    shown_at = time.monotonic()

    def follow(event: dict[str, Any]) -> None:
        nonlocal shown_at
        if event["event"] == "epoch":
            LOG.info(
                "epoch %d of %d: loss %.4f, val %.4f", event["epoch"], event["epochs"], event["loss"], event["val_loss"]
            )
            update_progress_artifact(artifact, progress=100.0 * event["epoch"] / event["epochs"])
        elif event["event"] == "progress" and time.monotonic() - shown_at >= SHOW_EVERY_S:
            shown_at = time.monotonic()
            update_progress_artifact(artifact, progress=min(100.0, 100.0 * event["step"] / max(1, event["steps"])))

    return follow


@task(**caching.stage("train", retries=0))
def train(
    pack: PackRef, recipe: dict[str, Any], seed: int, labels: ManifestRef | None = None, start_from: Starts = ()
) -> TrainedRun:
    """Train ``recipe`` (as plain data) on ``pack``; progress goes into the log and a live artifact.

    ``labels``: of the photos, where the recipe's system learns them. ``start_from``: weights of other runs to start
    from, wherever name and shape agree.
    """
    where = layout()
    folder = where.pack(pack.digest)
    photos = photos_of(folder)
    run_id = run_id_of(pack, recipe, seed, labels, start_from)
    run_dir = where.run(run_id)
    refuse_removed(where, run_dir, photos)
    run_dir.mkdir(parents=True, exist_ok=True)
    if is_whole(run_dir):  # only the note that it is there was lost
        return trained(where, run_dir)
    if (run_dir / "train.json").exists():  # it ended, and its weights are gone or damaged; what did not end goes on
        start_over(run_dir)
    with suppress(FileNotFoundError):  # the training will say so
        shutil.copyfile(folder / "pack.json", run_dir / "pack.json")  # how the photos were turned; the pack may go
    follow = follower(recipe["name"], run_id)
    try:
        run_fit("train", run_dir, fit_request(where, run_id, pack, recipe, seed, labels, start_from), follow)
    finally:  # one that fails or is stopped leaves a checkpoint
        refuse_removed(where, run_dir, photos, has_just_ended=True)
    return trained(where, run_dir)
