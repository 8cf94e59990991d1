"""Measure a trained run: threshold chosen on val, test touched once, every figure with its baseline."""

import json
import logging
from typing import Any

from prefect import task

from storage import manifest
from storage.layout import layout
from storage.records import Figure, FileRef, ManifestRef, PackRef, Record
from tasks import caching
from tasks.fitting import run_fit
from tasks.pack import check_allowed
from tasks.train import Starts, fit_request

LOG = logging.getLogger(__name__)


class EvaluatedRun(Record):
    """What a run measured: ``evaluation`` is its evaluation.json; the others have one row a test sample."""

    run_id: str
    evaluation: FileRef
    predictions: FileRef
    scores: FileRef


@task(**caching.stage("evaluate", retries=0))
def evaluate(
    run_id: str, weights: FileRef, pack: PackRef, recipe: dict[str, Any], seed: int, labels: ManifestRef | None = None,
    start_from: Starts = (),
) -> EvaluatedRun:  # fmt: skip
    """Figures and predictions of a run on the test photos of ``pack``; ``weights`` stand for what was trained."""
    where = layout()
    check_allowed(where, where.pack(pack.digest))
    run_dir = where.run(run_id)
    request = fit_request(where, run_id, pack, recipe, seed, labels, start_from)
    run_fit("evaluate", run_dir, request, lambda event: None)
    return EvaluatedRun(
        run_id=run_id,
        evaluation=manifest.file_ref(where, run_dir / "evaluation.json"),
        predictions=manifest.file_ref(where, run_dir / "predictions.parquet"),
        scores=manifest.file_ref(where, run_dir / "scores.parquet"),
    )


def figures(evaluation: FileRef) -> list[Figure]:
    """The figures of an evaluation."""
    text = (layout().root / evaluation.path).read_text()
    return [
        Figure.model_validate({k: v for k, v in each.items() if k in Figure.model_fields})
        for each in json.loads(text)["figures"]
    ]
