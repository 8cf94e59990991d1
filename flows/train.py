"""Train a recipe on a snapshot: pack, train, evaluate, report.

Run: ``prefect deployment run 'train-model/crops-thumbnail'``, or ``train_model(snapshot="crops")`` from Python.
"""

import socket
from dataclasses import asdict
from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows import artifacts
from flows.exclusive import only_one
from flows.progress import one, training
from models import recipes
from storage import catalog, manifest, removals
from storage.layout import layout
from storage.records import SCHEMAS, ManifestRef, RunRef
from tasks.errors import ConfigError
from tasks.evaluate import evaluate, figures
from tasks.pack import check_enough, pack
from tasks.publish import count, published
from tasks.report import report_run
from tasks.train import run_id_of, train

RUNNER: Any = ThreadPoolTaskRunner(max_workers=1)  # Any: Prefect types its own runners as none of its runners


@flow(name="train-model", flow_run_name="train {recipe} on {snapshot}", task_runner=RUNNER)
def train_model(snapshot: str, recipe: str = "crops_thumbnail", seed: int = 0) -> RunRef:
    """Train ``recipe`` on ``snapshot`` (``name`` or ``name@version``), evaluate it on the test photos, and report."""
    layout().check_writable()
    resolved = resolve(recipe)
    where = layout()
    name, version = catalog.resolve(where, snapshot)
    table = published(where, name, version)
    check_enough(count(table)[0], f"version {version} of the dataset {name!r}")
    joined = manifest.write(where, "publish", table)
    plain = resolved.as_dict()
    with only_one(f"training-{socket.gethostname()}"):
        packed = one("pack", pack.submit(select(joined), **asdict(resolved.pack)))
        metrics = where.run(run_id_of(packed, plain, seed)) / "metrics.jsonl"
        run = training("train", train.submit(packed, plain, seed), metrics, resolved.epochs)
        evaluated = one("evaluate", evaluate.submit(run.run_id, run.weights, packed, plain, seed))
    report = one(
        "report", report_run.submit(joined, evaluated.evaluation, packed, f"{recipe} on {name}, version {version}")
    )
    result = RunRef(run_id=run.run_id, uri=str(where.run(run.run_id)), figures=figures(evaluated.evaluation))
    artifacts.show_run(f"{name}-{recipe}", result, packed, where.root / report.path)
    return result


def resolve(recipe: str) -> recipes.Recipe:
    """The recipe of that name; raises ConfigError naming the known ones."""
    try:
        return recipes.resolve(recipe)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def select(joined: ManifestRef) -> ManifestRef:
    """The kept photos of ``joined``, with only what a pack is made of: a new title packs nothing again.

    Raises RemovedPhoto for a snapshot that holds one, such as an old one that came back from a backup.
    """
    columns = SCHEMAS["selection"].names
    table = manifest.read(layout(), joined, [*columns, "verdict"])
    table = table.filter(table["verdict"]).select(columns)
    removals.refuse(layout(), table, "the snapshot")
    return manifest.write(layout(), "selection", table)
