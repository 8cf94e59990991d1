"""The whole of Darkroom in one run: a dataset's queries go in, an evaluated model comes out. Read this first.

    search -> download                                                                  flows/acquire.py
    measure -> filter -> rotate -> dedup -> labels -> split -> audit of the split       flows/curate.py
    report -> publish                                                                   flows/refresh.py
    pack -> train -> evaluate -> report                                                 flows/train.py

Run: ``prefect deployment run 'pipeline/crops'``, or ``pipeline(dataset={...}, recipe="...")`` from Python.
"""

import logging

from prefect import flow

from flows import artifacts
from flows.refresh import in_words, refresh_dataset
from flows.train import resolve, train_model
from storage.records import Record, RunRef, SnapshotRef
from tasks.dataset import Dataset

LOG = logging.getLogger(__name__)


class PipelineResult(Record):
    """What a pipeline run made: a version of the dataset, and a trained and evaluated model."""

    snapshot: SnapshotRef
    run: RunRef


@flow(name="pipeline", flow_run_name="pipeline {dataset.name}")
def pipeline(dataset: Dataset, recipe: str = "crops_thumbnail", seed: int = 0) -> PipelineResult:
    """Refresh ``dataset``, train ``recipe`` on its newest snapshot, evaluate and report."""
    resolve(recipe)
    snapshot = refresh_dataset(dataset, announce=False)
    assert isinstance(snapshot, SnapshotRef), "a refresh that is no plan publishes"
    run = train_model(f"{snapshot.dataset}@{snapshot.version}", recipe, seed)
    LOG.info("%s@%d: %s", snapshot.dataset, snapshot.version, in_words(snapshot.counts))
    for figure in run.figures:
        LOG.info(
            "%s: %.3f (%.3f to %.3f), baseline %.3f",
            figure.label,
            figure.value,
            figure.low,
            figure.high,
            figure.baseline,
        )
    artifacts.show_pipeline(snapshot, run)
    return PipelineResult(snapshot=snapshot, run=run)
