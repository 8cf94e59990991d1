"""Predicted categories against the truth and against constant answers.

Shapes: N photos, K classes, R bootstrap replicates. The constant answer is the best that there is for the very photos
that are judged: their most common label, or the shares of their labels as probabilities.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.loader import Split
from models.metrics import Floats, PhotoBootstrap, confusion_matrix, figure, macro_f1, macro_precision
from models.systems import Samples, Score

Labels = NDArray[np.int64]
TOP = 5
PAIRS = 12  # confused pairs that are reported


def log_probabilities(logits_NK: Floats, temperature: float) -> Floats:
    """Logarithms of the probabilities [N, K] at that temperature."""
    scaled_NK = logits_NK / temperature
    shifted_NK = scaled_NK - scaled_NK.max(1, keepdims=True)
    return shifted_NK - np.log(np.exp(shifted_NK).sum(1, keepdims=True))


def ranked(logits_NK: Floats) -> Labels:
    """The classes of each photo from likely to unlikely [N, K]; of equals the first."""
    return np.argsort(-logits_NK, axis=1, kind="stable")


def mean_scores(logp_NK: Floats, truth_N: Labels) -> Iterator[Score]:
    """Accuracy, top-5 accuracy where that says something, and negative log-likelihood."""
    classes, everything_N = logp_NK.shape[1], np.ones(len(truth_N), np.bool_)
    share_K = np.bincount(truth_N, minlength=classes) / len(truth_N)
    order_NK, common_K = ranked(logp_NK), ranked(share_K[None])[0]
    for top, label in ((1, "Label, accuracy"), (TOP, f"Label among the first {TOP}, accuracy")):
        if top < classes:
            right_N = (order_NK[:, :top] == truth_N[:, None]).any(1).astype(np.float64)
            constant_N = np.isin(truth_N, common_K[:top]).astype(np.float64)
            baseline = "always the most common label" if top == 1 else f"always the {top} most common labels"
            name = "accuracy" if top == 1 else f"top{top}_accuracy"
            yield Score(name, label, "", "higher", right_N, constant_N, baseline, everything_N)
    surprise_N, constant_N = -logp_NK[np.arange(len(truth_N)), truth_N], -np.log(share_K[truth_N])
    label = "Label, negative log-likelihood"
    yield Score("nll", label, "nats", "lower", surprise_N, constant_N, "shares of the labels", everything_N)


def macro_recall(confusion_RKK: Floats) -> Floats:
    """Mean over the classes that are there [R] of the share of their photos that was called so."""
    right_RK, true_RK = np.diagonal(confusion_RKK, axis1=1, axis2=2), confusion_RKK.sum(2)
    recall_RK = np.divide(right_RK, true_RK, out=np.zeros_like(true_RK), where=true_RK > 0)
    return recall_RK.sum(1) / (true_RK > 0).sum(1).clip(1)  # type: ignore[no-any-return]


MACRO: dict[str, Callable[[Floats], Floats]] = {
    "macro_precision": macro_precision, "macro_recall": macro_recall, "macro_f1": macro_f1,
}  # fmt: skip


def macro_figures(truth_N: Labels, called_N: Labels, classes: int, bootstrap: PhotoBootstrap) -> list[dict[str, Any]]:
    """Macro precision, recall and F1, with intervals, against calling everything the most common label."""
    common = int(np.bincount(truth_N, minlength=classes).argmax())
    weight_N = np.ones(len(truth_N))

    def constant(confusion_RKK: Floats) -> Floats:
        """The confusion matrices, had everything been called the most common label."""
        called_RKK = np.zeros_like(confusion_RKK)
        called_RKK[:, :, common] = confusion_RKK.sum(2)
        return called_RKK

    found = []
    for name, statistic in MACRO.items():
        value = bootstrap.of_confusion(statistic, truth_N, called_N, weight_N, classes)
        baseline = float(statistic(constant(confusion_matrix(truth_N, called_N, weight_N, classes)[None]))[0])
        gap = bootstrap.of_confusion(
            lambda each, statistic=statistic: statistic(each) - statistic(constant(each)),  # type: ignore[misc]
            truth_N, called_N, weight_N, classes,
        )  # fmt: skip
        label = f"{name.replace('_', ' ').capitalize().replace(' f1', ' F1')} over the classes"
        found.append(figure(name, label, "", "higher", value, baseline, "always the most common label", gap))
    return found


def pictures(truth_N: Labels, called_N: Labels, classes: Sequence[str]) -> dict[str, Any]:
    """What a report draws: the confusion matrix (rows are true), the pairs confused most, figures of each class."""
    matrix_KK = confusion_matrix(truth_N, called_N, np.ones(len(truth_N)), len(classes)).astype(np.int64)
    wrong_KK = matrix_KK - np.diag(np.diag(matrix_KK))
    most = [divmod(int(cell), len(classes)) for cell in np.argsort(-wrong_KK, axis=None, kind="stable")[:PAIRS]]
    pairs = [
        {"truth": classes[row], "called": classes[column], "photos": int(wrong_KK[row, column])}
        for row, column in most
        if wrong_KK[row, column]
    ]
    rows = [_of_class(each, matrix_KK, number) for number, each in enumerate(classes)]
    return {"classes": list(classes), "confusion": matrix_KK.tolist(), "confused_pairs": pairs, "by_class": rows}


def _of_class(name: str, matrix_KK: Labels, number: int) -> dict[str, Any]:
    """Precision and recall of one class, None where they are undefined, and what they are shares of."""
    right, called, true = (
        int(each) for each in (matrix_KK[number, number], matrix_KK[:, number].sum(), matrix_KK[number].sum())
    )
    precision, recall = right / called if called else None, right / true if true else None
    return {"class": name, "precision": precision, "recall": recall, "called": called, "photos": true}


def prediction_rows(
    split: Split, samples: Samples, classes: Sequence[str], logp_NK: Floats, truth_N: Labels
) -> pa.Table:
    """One row a photo: who, its label, the label that it was given, the probabilities of both."""
    called_N, every_N = ranked(logp_NK)[:, 0], np.arange(len(truth_N))
    columns: dict[str, Any] = {
        **identity(split, samples),
        "split": [split.name] * len(samples),
        "weight": samples.weight_N,
        "label": [classes[each] for each in truth_N],
        "pred_label": [classes[each] for each in called_N],
        "pred_probability": np.exp(logp_NK[every_N, called_N]),
        "label_probability": np.exp(logp_NK[every_N, truth_N]),
        "is_right": called_N == truth_N,
    }
    return pa.table(columns)


def answer_rows(split: Split, samples: Samples, classes: Sequence[str], logp_NK: Floats) -> pa.Table:
    """One row a photo: who, the likeliest label, its probability, and the first five of both."""
    order_NT = ranked(logp_NK)[:, :TOP]
    probability_NT = np.exp(np.take_along_axis(logp_NK, order_NT, 1))
    columns: dict[str, Any] = {
        **identity(split, samples),
        "label": [classes[each] for each in order_NT[:, 0]],
        "probability": probability_NT[:, 0],
        "top_labels": pa.array([[classes[each] for each in row] for row in order_NT], pa.list_(pa.string())),
        "top_probabilities": pa.array(probability_NT.tolist(), pa.list_(pa.float64())),
    }
    return pa.table(columns)


def identity(split: Split, samples: Samples) -> dict[str, Any]:
    """Columns source, photo_id and sample."""
    photos = samples.photo_N.tolist()
    return {
        "source": [split.sources[photo] for photo in photos],
        "photo_id": [split.photo_ids[photo] for photo in photos],
        "sample": samples.sample_N.astype(np.int32),
    }
