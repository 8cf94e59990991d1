"""The whole of Darkroom in one run: a dataset's queries go in, an evaluated model comes out. Read this first.

    search -> download -> measure -> filter -> rotate -> dedup -> split -> publish      flows/refresh.py
    pack -> train -> evaluate -> report                                                 flows/train.py

Run: ``prefect deployment run 'pipeline/crops'``, or ``pipeline(dataset={...}, recipe="...")`` from Python.
"""

from prefect import flow

from flows import artifacts
from flows.refresh import refresh_dataset
from flows.train import resolve, train_model
from storage.records import Record, RunRef, SnapshotRef
from tasks.dataset import Dataset


class PipelineResult(Record):
    """What a pipeline run made: a version of the dataset, and a trained and evaluated model."""

    snapshot: SnapshotRef
    run: RunRef


@flow(name="pipeline", flow_run_name="pipeline {dataset.name}")
def pipeline(dataset: Dataset, recipe: str = "crops_thumbnail", seed: int = 0) -> PipelineResult:
    """Refresh ``dataset``, train ``recipe`` on its newest snapshot, evaluate and report."""
    resolve(recipe)
    snapshot = refresh_dataset(dataset, announce=False)
    run = train_model(f"{snapshot.dataset}@{snapshot.version}", recipe, seed)
    artifacts.show_pipeline(snapshot, run)
    return PipelineResult(snapshot=snapshot, run=run)
