"""What a report draws of crop detection: heat-maps, errors of the size factor, accuracy by size and by pinned edge.

Every interval resamples photos. Shapes: N samples, P = 16 patches, K = 16 cells; a rectangle is (x1, x2, y1, y2).
"""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.crops.answers import CropAnswers
from models.crops.law import EDGES, Floats, patch_labels, pinned_edge
from models.crops.spec import CropLaw
from models.loader import Split
from models.metrics import PhotoBootstrap, size_factor
from models.systems import Samples

MAPPED_SAMPLES = 64  # whose heat-maps the table of predictions keeps
DRAWN_SAMPLES = 8  # whose heat-maps the report draws: a whole photo after every third crop
BIN = 0.1  # of the size factor
MAX_ERRORS = 20_000  # of a histogram; of more, those of the photos that a hash puts first


def mapped_samples(samples: Samples, split: Split) -> NDArray[np.int64]:
    """The samples whose heat-maps are kept, in an order that a hash gives: one of each photo, one in four whole."""
    order_P = np.argsort(split.keys, kind="stable")[:MAPPED_SAMPLES]
    wanted_P = np.where(np.arange(len(order_P)) % 4 == 3, 0, 1)
    row_of = {
        pair: row for row, pair in enumerate(zip(samples.photo_N.tolist(), samples.sample_N.tolist(), strict=True))
    }
    pairs = zip(order_P.tolist(), wanted_P.tolist(), strict=True)
    return np.array([row_of[pair] for pair in pairs if pair in row_of], np.int64)


def pictures(
    split: Split, samples: Samples, answers: CropAnswers, law: CropLaw, bootstrap: PhotoBootstrap,
    rows: NDArray[np.int64],
) -> dict[str, Any]:  # fmt: skip
    """JSON values, by the name of the picture; ``rows`` as ``mapped_samples`` gives them."""
    found = {
        "size_factor_errors": size_factor_errors(split, samples, answers, bootstrap),
        "accuracy_by_size_factor": accuracy_by_size_factor(samples, answers, law, bootstrap),
        "accuracy_by_edge": accuracy_by_edge(samples, answers, bootstrap),
    }
    if answers.patches:
        found["heat_maps"] = heat_maps(split, samples, answers, rows[:DRAWN_SAMPLES])
    return found


def heat_maps(split: Split, samples: Samples, answers: CropAnswers, rows: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Of each sample: who, true and predicted rectangles, and for each patch its true cell and 4 x 4 probabilities.

    Patches and cells are numbered row by row (y, then x).
    """
    assert answers.patches is not None
    truth_N4, patches = samples.targets["rectangle"], answers.patches
    return [
        {
            "source": split.sources[samples.photo_N[row]],
            "photo_id": split.photo_ids[samples.photo_N[row]],
            "sample": int(samples.sample_N[row]),
            "rectangle": truth_N4[row].tolist(),
            "predicted": answers.rectangle_N4[row].tolist(),
            "closed_form": patches.closed.rectangle_N4[row].tolist(),
            "consistency": float(patches.closed.residual_N[row]),
            "true_cells": patch_labels(truth_N4[row : row + 1])[0].tolist(),
            "probabilities": np.exp(patches.log_probability_NPK[row]).round(4).tolist(),
        }
        for row in rows.tolist()
    ]


def size_factor_errors(
    split: Split, samples: Samples, answers: CropAnswers, bootstrap: PhotoBootstrap
) -> list[dict[str, Any]]:
    """Signed errors of the size factor, their mean absolute value and bias, by what is judged on which samples.

    ``values`` are drawn with ``weights``, those of the means. All samples of a photo stand together.
    """
    size_N, is_crop_N = size_factor(samples.targets["rectangle"]), samples.targets["crop"] > 0.5
    rectangle_N, final_N = size_factor(answers.rectangle_N4) - size_N, size_factor(answers.final_N4) - size_N
    judged = [
        ("rectangle_crops", "rectangle, crops", rectangle_N, is_crop_N),
        ("rectangle_whole", "rectangle, whole photos", rectangle_N, ~is_crop_N),
        ("answer", "answer (whole where no crop is called), half crops", final_N, np.ones_like(is_crop_N)),
    ]
    if answers.patches:
        closed_N = size_factor(answers.patches.closed.rectangle_N4) - size_N
        judged.append(("closed_form_crops", "rectangle from the heat-maps, crops", closed_N, is_crop_N))
    order_N = np.argsort(split.keys[samples.photo_N], kind="stable")
    found = []
    for name, label, error_N, counts_N in judged:
        mae, bias = bootstrap.means(np.stack([np.abs(error_N), error_N]), np.tile(samples.weight_N * counts_N, (2, 1)))
        rows = order_N[counts_N[order_N]][:MAX_ERRORS]
        drawn = {"values": error_N[rows].round(4).tolist(), "weights": samples.weight_N[rows].tolist()}
        found.append({"name": name, "label": label, **drawn, "mae": asdict(mae), "bias": asdict(bias)})
    return found


def accuracy_by_size_factor(
    samples: Samples, answers: CropAnswers, law: CropLaw, bootstrap: PhotoBootstrap
) -> list[dict[str, Any]]:
    """Share of samples told right as crop or whole, in tenths of the size factor over the law's range, and if whole."""
    size_N, is_crop_N = size_factor(samples.targets["rectangle"]), samples.targets["crop"] > 0.5
    low, high = law.min_size_factor, law.max_size_factor
    starts = low + BIN * np.arange(max(1, int(np.ceil((high - low) / BIN - 1e-9))))
    bin_N = ((size_N - low) / BIN + 1e-9).astype(int).clip(0, len(starts) - 1)
    groups = [
        ({"from": float(start), "to": round(float(min(start + BIN, high)), 6)}, is_crop_N & (bin_N == number))
        for number, start in enumerate(starts.round(6))
    ]
    return _shares_right([*groups, ({"from": 1.0, "to": 1.0}, ~is_crop_N)], samples, answers, bootstrap)


def accuracy_by_edge(samples: Samples, answers: CropAnswers, bootstrap: PhotoBootstrap) -> list[dict[str, Any]]:
    """Share of crops called such, by the border that they touch."""
    edge_N, is_crop_N = pinned_edge(samples.targets["rectangle"]), samples.targets["crop"] > 0.5
    groups = [({"edge": edge}, is_crop_N & (edge_N == number)) for number, edge in enumerate(EDGES)]
    return _shares_right(groups, samples, answers, bootstrap)


def _shares_right(
    groups: list[tuple[dict[str, Any], NDArray[np.bool_]]],
    samples: Samples,
    answers: CropAnswers,
    bootstrap: PhotoBootstrap,
) -> list[dict[str, Any]]:
    """For each group of samples its facts, its size, and the share told right; empty ones are left out."""
    filled = [(facts, counts_N) for facts, counts_N in groups if counts_N.any()]
    if not filled:
        return []
    right_N: Floats = (answers.called_crop_N == (samples.targets["crop"] > 0.5)).astype(float)
    weights_SN = np.stack([samples.weight_N * counts_N for _, counts_N in filled])
    shares = bootstrap.means(np.tile(right_N, (len(filled), 1)), weights_SN)
    return [
        {**facts, "samples": int(counts_N.sum()), **asdict(share)}
        for (facts, counts_N), share in zip(filled, shares, strict=True)
    ]
