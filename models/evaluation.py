"""A trained network against the trivial answers: what is chosen is chosen on val, then test is judged, once.

Every figure stands beside its baseline with a 95 % interval over photos and their paired difference. With them go how
far probabilities may be believed (``calibration``), what torchmetrics says of the same outputs (``yardsticks``), and
how the figures move when test photos are perturbed (responses). Nothing here knows what the system predicts.
Shapes: N samples of a split, S figures.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from torch import nn

from models import calibration, disk, yardsticks
from models.checkpoint import Checkpoints, identity_of
from models.comparison import baseline_of
from models.errors import Stopped
from models.jobs import (
    Request,
    choose_device,
    describe,
    identity_of_request,
    open_splits,
    open_stores,
    refuse_unknown_labels,
    write_json,
)
from models.loader import FrameStore, PhotoBatch, Split
from models.metrics import PhotoBootstrap, figure
from models.networks import build_model, system_of
from models.predictions import predict
from models.systems import Arrays, Batch, Judgement, Samples, Score, System

RESPONSE_SAMPLES = 2  # of each photo that is tried perturbed: the first ones
Decisions = dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """What evaluation.json says of the figures, and the rows of predictions.parquet and scores.parquet."""

    found: dict[str, Any]
    predictions: pa.Table
    scores: pa.Table


def evaluate_job(request: Request, must_stop: Callable[[], bool]) -> None:
    """Judge the best epoch; leaves predictions.parquet, scores.parquet and, last, evaluation.json."""
    recipe, device = request.recipe, choose_device(request.device)
    classes = identity_of(request.run_dir).classes
    pack = open_splits(request, "val", "test")
    for split in pack.splits.values():
        refuse_unknown_labels(recipe, split, classes)
    system = system_of(recipe, classes)
    model = build_model(system, request.seed, device)
    progress = Checkpoints(request.run_dir, identity_of_request(request, pack, classes)).load_best(model)

    stores = open_stores(request, pack.splits, device)
    evaluation = evaluate(model, system, stores["val"], stores["test"], must_stop)
    write_table(request.run_dir / "predictions.parquet", evaluation.predictions)
    write_table(request.run_dir / "scores.parquet", evaluation.scores)
    about = {"epoch": progress.best_epoch, **describe(request, pack, model, device)}
    write_json(request.run_dir / "evaluation.json", {**evaluation.found, **about})


def evaluate(
    model: nn.Module, system: System, val: FrameStore, test: FrameStore, must_stop: Callable[[], bool]
) -> Evaluation:
    """Decide on val, judge test, try test perturbed; raises ``Stopped`` once ``must_stop`` says so."""
    val_samples = system.samples(val.split)
    val_outputs = predict(model, system, val, val_samples, system.recipe, must_stop)
    decisions = decide(system, val_outputs, val_samples)

    samples = system.samples(test.split)
    outputs = predict(model, system, test, samples, system.recipe, must_stop)
    judgement = system.judge(outputs, samples, test.split, decisions)
    bootstrap = bootstrap_of(system, samples, test.split)
    found = {
        "split": test.split.name,
        "photos": len(test.split),
        "samples": len(samples),
        "decisions": decisions,
        "decisions_chosen_on": val.split.name,
        "figures": figures(judgement, samples, bootstrap),
        "calibration": calibrate(system, outputs, samples, decisions, bootstrap),
        "yardsticks": yardsticks.measure(system.probabilities(outputs, samples), samples.weight_N),
        "pictures": judgement.pictures,
        "responses": responses(model, system, test, (samples, outputs), decisions, must_stop),
    }
    return Evaluation(found, judgement.predictions, score_rows(judgement.scores, samples, test.split))


def decide(system: System, outputs: Arrays, samples: Samples) -> Decisions:
    """What the system chooses, and the temperature of each of its probabilities."""
    temperatures = {
        f"temperature_{each.name}": calibration.fit_temperature(
            each.logits_MK, each.truth_M, calibration.weights_of(each.sample_M, samples.weight_N)
        )
        for each in system.probabilities(outputs, samples)
    }
    return {**system.decide(outputs, samples), **temperatures}


def bootstrap_of(system: System, samples: Samples, split: Split) -> PhotoBootstrap:
    """The resampling of the photos of ``split`` that the recipe asks for."""
    spec = system.recipe.system.evaluation
    return PhotoBootstrap(samples.photo_N, len(split), spec.bootstrap_replicates, spec.bootstrap_seed)


def figures(judgement: Judgement, samples: Samples, bootstrap: PhotoBootstrap) -> list[dict[str, Any]]:
    """Every figure as a mapping for ``evaluation.json``: the means over samples first."""
    scores = judgement.scores
    if not scores:
        return list(judgement.figures)
    weights_SN = np.stack([samples.weight_N * score.counts_N for score in scores])
    scores_SN = np.stack([np.where(score.counts_N, score.scores_N, 0.0) for score in scores])
    baseline_SN = np.stack([np.where(score.counts_N, score.baseline_N, 0.0) for score in scores])
    values = bootstrap.means(np.concatenate([scores_SN, scores_SN - baseline_SN]), np.tile(weights_SN, (2, 1)))
    measured = []
    for score, value, gap in zip(scores, values[: len(scores)], values[len(scores) :], strict=True):
        names = (score.name, score.label, score.unit, score.better)
        measured.append(figure(*names, value, value.value - gap.value, score.baseline_label, gap))
    return [*measured, *judgement.figures]


def calibrate(
    system: System, outputs: Arrays, samples: Samples, decisions: Decisions, bootstrap: PhotoBootstrap
) -> dict[str, Any]:
    """The calibration of each of the system's probabilities, by name."""
    found = {}
    for each in system.probabilities(outputs, samples):
        over_items = PhotoBootstrap(
            samples.photo_N[each.sample_M], bootstrap.photos, bootstrap.replicates, bootstrap.seed
        )
        weights_M = calibration.weights_of(each.sample_M, samples.weight_N)
        temperature = decisions[f"temperature_{each.name}"]
        described = calibration.describe(each.logits_MK, each.truth_M, weights_M, over_items, temperature)
        found[each.name] = {"label": each.label, **described}
    return found


class Perturbed:
    """A system that sees every photo perturbed, and is the same in all else."""

    def __init__(self, system: System, name: str, strength: float) -> None:
        self._system, self._name, self._strength = system, name, strength

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._system, attribute)

    def draw_fixed(self, photos: PhotoBatch, samples: Samples, rows_B: Any) -> Batch:
        """As the system draws them, of perturbed photos."""
        return self._system.draw_fixed(self._system.perturb(photos, self._name, self._strength), samples, rows_B)


def responses(
    model: nn.Module, system: System, test: FrameStore, whole: tuple[Samples, Arrays], decisions: Decisions,
    must_stop: Callable[[], bool],
) -> dict[str, list[dict[str, Any]]]:  # fmt: skip
    """The figures by perturbation and strength, on the first samples of some photos, which count alike.

    ``whole``: all samples of test and the outputs on them, which are those of strength 0.
    """
    rows_B, few = first_samples(system, whole[0], test)
    bootstrap = bootstrap_of(system, few, test.split)
    found: dict[str, list[dict[str, Any]]] = {}
    for name, strength in _trials(system.perturbations() if len(few) else {}):
        if must_stop():
            raise Stopped("stopped while test photos were perturbed: evaluate again")
        perturbed: Any = Perturbed(system, name, strength)
        if strength == 0:
            outputs = {key: value[rows_B] for key, value in whole[1].items()}
        else:
            outputs = predict(model, perturbed, test, few, system.recipe, must_stop)
        measured = figures(system.judge(outputs, few, test.split, decisions), few, bootstrap)
        brief = [{key: each[key] for key in ("name", "value", "low", "high", "baseline")} for each in measured]
        found.setdefault(name, []).append({"strength": strength, "figures": brief})
    return found


def _trials(perturbations: Mapping[str, Sequence[float]]) -> Iterator[tuple[str, float]]:
    return ((name, float(strength)) for name, strengths in perturbations.items() for strength in strengths)


def first_samples(system: System, samples: Samples, store: FrameStore) -> tuple[NDArray[np.int64], Samples]:
    """The first samples of the photos that perturbations are tried on (rows, and samples of equal weights a photo).

    The photos are those of the smallest keys: a random choice, the same for every run on the same photos.
    """
    chosen = np.argsort(store.keys, kind="stable")[: system.recipe.system.evaluation.response_photos]
    rows_B = np.flatnonzero((samples.sample_N < RESPONSE_SAMPLES) & np.isin(samples.photo_N, chosen))
    few = samples.take(rows_B)
    each_N = np.bincount(few.photo_N, minlength=len(store))[few.photo_N]
    return rows_B, replace(few, weight_N=1 / each_N)


def score_rows(scores: Sequence[Score], samples: Samples, split: Split) -> pa.Table:
    """One row a sample: source, photo_id, sample, weight, truth, and of each figure its score and its baseline there.

    Both are null where the figure does not count; what else a comparison must know of it is its field's metadata.
    """
    photos = samples.photo_N.tolist()
    columns: dict[str, pa.Array] = {
        "source": pa.array([split.sources[photo] for photo in photos], pa.string()),
        "photo_id": pa.array([split.photo_ids[photo] for photo in photos], pa.string()),
        "sample": pa.array(samples.sample_N, pa.int32()),
        "weight": pa.array(samples.weight_N, pa.float64()),
        "truth": pa.array(truths(samples.targets), pa.string()),
    }
    fields = [pa.field(name, column.type) for name, column in columns.items()]
    for score in scores:
        facts = {name: str(getattr(score, name)) for name in ("label", "unit", "better", "baseline_label")}
        for name, value_N in ((score.name, score.scores_N), (baseline_of(score.name), score.baseline_N)):
            columns[name] = pa.array(value_N, pa.float64(), mask=~score.counts_N)
            fields.append(pa.field(name, pa.float64(), metadata=facts if name == score.name else None))
    return pa.table(list(columns.values()), schema=pa.schema(fields))


def truths(targets: Arrays) -> list[str]:
    """A short hash of what each sample should be answered [N]: equal where its targets agree to six decimals."""
    names = sorted(targets)
    columns = [targets[name].reshape(len(targets[name]), -1).astype("<f8") for name in names]
    rows_NC = np.round(np.concatenate(columns, axis=1), 6) + 0.0  # no negative zero
    return [hashlib.sha256(repr(names).encode() + row.tobytes()).hexdigest()[:16] for row in rows_NC]


def write_table(path: Path, table: pa.Table) -> None:
    """Replace ``path`` at once; raises ``DiskFull``."""
    stream = pa.BufferOutputStream()
    pq.write_table(table, stream, compression="zstd")
    disk.replace(path, stream.getvalue().to_pybytes())
