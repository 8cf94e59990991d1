"""Train a recipe on a published snapshot: pack -> train -> evaluate -> report.

Run: ``prefect deployment run 'train-model/crops-thumbnail'``, or ``train_model(snapshot="crops")`` from Python.
"""

import socket
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows import artifacts
from flows.exclusive import only_one
from flows.progress import one, training
from models import recipes
from models.specs import Recipe
from storage import catalog, manifest, removals
from storage.layout import layout
from storage.records import SCHEMAS, FileRef, ManifestRef, PackRef, Record, RunRef
from tasks.errors import ConfigError
from tasks.evaluate import EvaluatedRun, evaluate, figures
from tasks.pack import check_enough, pack
from tasks.publish import count, published
from tasks.report import report_run
from tasks.train import best_weights, keep_weights, run_id_of, start_of, train

WEIGHTS = (".safetensors", ".pth")  # endings of files of weights; no id of a run has a dot
RUNNER: Any = ThreadPoolTaskRunner(max_workers=1)  # Any: Prefect types its own runners as none of its runners


class Ready(Record):
    """A snapshot on its way into a training: its joined rows, its title, and how its rules turned the photos."""

    joined: ManifestRef
    title: str
    rotate: str | None  # None: an older version, which does not say


@flow(name="train-model", flow_run_name="train {recipe} on {snapshot}", task_runner=RUNNER)
def train_model(
    snapshot: str, recipe: str = "crops_thumbnail", seed: int = 0, start_from: list[str] | None = None
) -> RunRef:
    """Train ``recipe`` on ``snapshot`` (``name`` or ``name@version``), evaluate it on the test photos, and report.

    ``start_from``: ids of runs whose weights to start from, wherever name and shape agree, or files of weights
    (.safetensors, or a .pth with a state_dict), which are copied below the data root.
    """
    layout().check_writable()
    resolved = resolve(recipe)
    for start in start_from or []:
        start_weights(start)  # what cannot be had is said before anybody waits
    ready = prepare(snapshot, resolved)
    with only_one(f"training-{socket.gethostname()}"):
        starts = [start_weights(start) for start in start_from or []]  # who held it may have collected those as garbage
        packed = one("pack", pack.submit(select(ready.joined), **asdict(resolved.pack), rotate=ready.rotate))
        evaluated = train_and_evaluate(ready, packed, resolved, seed, starts)
    page = report(ready, packed, resolved, evaluated)
    where = layout()
    uri = str(where.run(evaluated.run_id))
    result = RunRef(run_id=evaluated.run_id, uri=uri, figures=figures(evaluated.evaluation))
    artifacts.show_run(f"{snapshot.partition('@')[0]}-{recipe}", result, packed, where.root / page.path)
    return result


def prepare(snapshot: str, recipe: Recipe) -> Ready:
    """The rows of ``snapshot``; raises TooFewPhotos, or ConfigError if it lacks the labels that are to be learnt."""
    where = layout()
    name, version = catalog.resolve(where, snapshot)
    table = published(where, name, version)
    title = f"version {version} of the dataset {name!r}"
    check_enough(count(table)[0], title)
    if recipe.system.needs_labels and not table.filter(table["verdict"])["label"].drop_null():
        raise ConfigError(
            f"{title} has no labels, and the recipe {recipe.name!r} learns them: label its queries or tags"
        )
    rules: Any = catalog.card(where, name, version).get("rules", {})
    joined = manifest.write(where, "publish", table)
    return Ready(joined=joined, title=f"{name}, version {version}", rotate=rules.get("rotate"))


def train_and_evaluate(
    ready: Ready, packed: PackRef, recipe: Recipe, seed: int, starts: Sequence[FileRef] = ()
) -> EvaluatedRun:
    """One run of ``recipe``, from the pack to its figures; ``starts``: the weights that it starts from."""
    plain, begun = recipe.as_dict(), [start_of(layout(), weights) for weights in starts]
    labels = labels_of(ready.joined) if recipe.system.needs_labels else None
    metrics = layout().run(run_id_of(packed, plain, seed, labels, begun)) / "metrics.jsonl"
    run = training("train", train.submit(packed, plain, seed, labels, begun), metrics, recipe.epochs)
    return one("evaluate", evaluate.submit(run.run_id, run.weights, packed, plain, seed, labels, begun))


def report(ready: Ready, packed: PackRef, recipe: Recipe, run: EvaluatedRun) -> FileRef:
    """The page about ``run``, and beside it the card of its model."""
    title = f"{recipe.name} on {ready.title}"
    return one("report", report_run.submit(ready.joined, run.evaluation, packed, title, ready.title))


def resolve(recipe: str) -> Recipe:
    """The recipe of that name; raises ConfigError naming the known ones."""
    try:
        return recipes.resolve(recipe)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def start_weights(start: str) -> FileRef:
    """The weights meant by ``start``, a file of weights or the id of a finished run; raises ConfigError for neither."""
    return keep_weights(layout(), Path(start)) if start.endswith(WEIGHTS) else weights_of(start)


def weights_of(run_id: str) -> FileRef:
    """The best weights of a finished run; raises ConfigError where there is none."""
    run_dir = layout().run(run_id)
    if not (run_dir / "train.json").is_file():
        raise ConfigError(
            f"there is no finished run {run_id!r} to start from: its folder {str(run_dir)!r} lacks train.json"
        )
    return manifest.file_ref(layout(), best_weights(run_dir / "checkpoint"))


def labels_of(joined: ManifestRef) -> ManifestRef:
    """The labels of the kept photos of ``joined``, apart from the pack: another label decodes nothing again."""
    columns = SCHEMAS["photo_labels"].names
    table = manifest.read(layout(), joined, [*columns, "verdict"])
    return manifest.write(layout(), "photo_labels", table.filter(table["verdict"]).select(columns))


def select(joined: ManifestRef) -> ManifestRef:
    """The kept photos of ``joined``, with only what a pack is made of: a new title packs nothing again.

    Raises RemovedPhoto for a snapshot that holds one, such as an old one that came back from a backup.
    """
    columns = SCHEMAS["selection"].names
    table = manifest.read(layout(), joined, [*columns, "verdict"])
    table = table.filter(table["verdict"]).select(columns)
    removals.refuse(layout(), table, "the snapshot")
    return manifest.write(layout(), "selection", table)
