"""Train a recipe on a pack, in a process of its own. The run's id is its cache key, so another try resumes the run."""

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from storage import manifest
from storage.layout import Layout, layout
from storage.records import FileRef, ManifestRef, PackRef, Record
from tasks import caching
from tasks.fitting import run_fit
from tasks.pack import check_allowed

LOG = logging.getLogger(__name__)
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
    """The weights of the epoch that did best on val; ``models/checkpoint.py`` describes the folder."""
    best = str(json.loads((checkpoints / "index.json").read_text())["best"])
    return checkpoints / best / "weights.safetensors"


def start_over_if_finished(run_dir: Path) -> None:
    """Remove what a finished training left: that it is asked for again means that some of it is gone or damaged."""
    card = run_dir / "train.json"
    if card.exists():
        shutil.rmtree(run_dir / "checkpoint", ignore_errors=True)
        (run_dir / "metrics.jsonl").unlink(missing_ok=True)
        card.unlink()


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
    start_over_if_finished(run_dir)
    artifact = create_progress_artifact(
        0.0, key=f"training-{recipe['name']}".replace("_", "-"), description=f"{recipe['name']}, run {run_id}"
    )

    def follow(event: dict[str, Any]) -> None:
        if event["event"] == "epoch":
            LOG.info(
                "epoch %d of %d: loss %.4f, val %.4f", event["epoch"], event["epochs"], event["loss"], event["val_loss"]
            )
            update_progress_artifact(artifact, progress=100.0 * event["epoch"] / event["epochs"])  # type: ignore[arg-type]

    run_fit("train", run_dir, fit_request(where, run_id, pack, recipe, seed, labels, start_from), follow)
    return TrainedRun(
        run_id=run_id,
        card=manifest.file_ref(where, run_dir / "train.json"),
        weights=manifest.file_ref(where, best_weights(run_dir / "checkpoint")),
    )
