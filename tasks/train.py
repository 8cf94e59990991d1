"""Train a recipe on a pack, in a process of its own. The run's id is its cache key, so another try resumes the run."""

import json
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from storage import manifest
from storage.layout import Layout, layout
from storage.records import FileRef, ManifestRef, PackRef, Record
from tasks import caching
from tasks.errors import ConfigError
from tasks.fitting import run_fit
from tasks.pack import check_allowed

LOG = logging.getLogger(__name__)
SHOW_EVERY_S = 5.0  # of the live artifact, within an epoch
Starts = Sequence[FileRef]


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
        "start_from": [str(where.root / file.path) for file in start_from],
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


def start_over_if_finished(run_dir: Path) -> None:
    """Remove what a training left that ended, and whose weights are gone or damaged; one that did not end goes on."""
    card = run_dir / "train.json"
    if card.exists():
        shutil.rmtree(run_dir / "checkpoint", ignore_errors=True)
        (run_dir / "metrics.jsonl").unlink(missing_ok=True)
        card.unlink()


def trained(where: Layout, run_dir: Path) -> TrainedRun:
    """The finished run in ``run_dir``."""
    return TrainedRun(
        run_id=run_dir.name,
        card=manifest.file_ref(where, run_dir / "train.json"),
        weights=manifest.file_ref(where, best_weights(run_dir / "checkpoint")),
    )


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
    check_allowed(where, where.pack(pack.digest))
    run_id = run_id_of(pack, recipe, seed, labels, start_from)
    run_dir = where.run(run_id)
    run_dir.mkdir(parents=True, exist_ok=True)
    if is_whole(run_dir):  # only the note that it is there was lost
        return trained(where, run_dir)
    start_over_if_finished(run_dir)
    follow = follower(recipe["name"], run_id)
    run_fit("train", run_dir, fit_request(where, run_id, pack, recipe, seed, labels, start_from), follow)
    return trained(where, run_dir)
