"""The outputs of a crop network, read: the rectangle, the call, the cells of the patches; and as rows of a table.

The answer of the system is the predicted rectangle where it calls a photo cropped, and the whole frame where it does
not; the threshold of that call is chosen on val. The fifth output has both its meanings: the probability of a crop, and
the size factor, which follows from the rectangle.
Shapes: N samples, P = 16 patches, K = 16 cells; a rectangle is (x1, x2, y1, y2).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.crops.geometry import ClosedForm, closed_form
from models.crops.law import CELLS, WHOLE, Floats, patch_labels
from models.crops.spec import CropLaw
from models.loader import Split
from models.metrics import size_factor
from models.systems import Arrays, Samples


@dataclass(frozen=True)
class PatchAnswers:
    """Heat-maps: where each patch was in the original frame, and the rectangle that they imply."""

    log_probability_NPK: Floats
    closed: ClosedForm

    @property
    def probability_NPK(self) -> Floats:
        """The sixteen heat-maps."""
        return np.exp(self.log_probability_NPK)

    @property
    def cell_NP(self) -> NDArray[np.int64]:
        """The most probable cell of each patch."""
        return self.log_probability_NPK.argmax(2)


@dataclass(frozen=True)
class CropAnswers:
    """What a network says of N samples; ``patches`` is None without the patch half."""

    rectangle_N4: Floats  # inside the frame
    logit_N: Floats
    probability_N: Floats  # of a crop, calibrated
    called_crop_N: NDArray[np.bool_]
    patches: PatchAnswers | None

    @property
    def final_N4(self) -> Floats:
        """The rectangle where a crop is called, the whole frame elsewhere."""
        return np.where(self.called_crop_N[:, None], self.rectangle_N4, np.array(WHOLE))


def read_outputs(outputs: Arrays, decisions: dict[str, float], law: CropLaw) -> CropAnswers:
    """Answers from raw outputs: a crop is called where the logit reaches ``threshold`` (0 if nothing was decided)."""
    logit_N, temperature = outputs["crop"], decisions.get("temperature_crop", 1.0)
    return CropAnswers(
        outputs["rectangle"].clip(0, 1),
        logit_N,
        probability_N=np.exp(-np.logaddexp(0, -logit_N / temperature)),
        called_crop_N=logit_N >= decisions.get("threshold", 0.0),
        patches=_read_patches(outputs["location"], law) if "location" in outputs else None,
    )


def _read_patches(logits_NPK: Floats, law: CropLaw) -> PatchAnswers:
    logits_NPK = logits_NPK - logits_NPK.max(2, keepdims=True)
    log_probability_NPK = logits_NPK - np.log(np.exp(logits_NPK).sum(2, keepdims=True))
    return PatchAnswers(log_probability_NPK, closed_form(np.exp(log_probability_NPK), law.min_size_factor))


def prediction_rows(split: Split, samples: Samples, answers: CropAnswers, mapped_N: NDArray[np.bool_]) -> pa.Table:
    """One row a sample: who, the truth, the answer. Edges, size factors and consistency are in sides of the frame.

    ``mapped_N``: the samples whose heat-maps are kept.
    """
    truth_N4 = samples.targets["rectangle"]
    columns = {
        **_who(split, samples),
        "split": pa.array([split.name] * len(samples), pa.string()),
        "weight": samples.weight_N,
        "is_crop": samples.targets["crop"] > 0.5,
        **_edges("", truth_N4),
        **_said(answers, mapped_N),
    }
    if answers.patches:
        columns["cells"] = _list_of(patch_labels(truth_N4), pa.int8())
    return pa.table(columns)


def answer_rows(split: Split, samples: Samples, answers: CropAnswers) -> pa.Table:
    """One row a sample: who, and the answer, with the heat-maps of every photo."""
    return pa.table({**_who(split, samples), **_said(answers, np.ones(len(samples), np.bool_))})


def _who(split: Split, samples: Samples) -> dict[str, Any]:
    photos = samples.photo_N.tolist()
    return {
        "source": pa.array([split.sources[photo] for photo in photos], pa.string()),
        "photo_id": pa.array([split.photo_ids[photo] for photo in photos], pa.string()),
        "sample": pa.array(samples.sample_N, pa.int32()),
    }


def _said(answers: CropAnswers, mapped_N: NDArray[np.bool_]) -> dict[str, Any]:
    """The columns of the answers: pred_* of the head, closed_* of the heat-maps in closed form."""
    columns: dict[str, Any] = {
        **_edges("pred_", answers.rectangle_N4),
        "crop_logit": answers.logit_N,
        "crop_probability": answers.probability_N,
        "called_crop": answers.called_crop_N,
    }
    if patches := answers.patches:
        maps = _list_of(patches.probability_NPK.reshape(-1, CELLS * CELLS), pa.float16())
        kept = np.where(mapped_N, np.arange(len(mapped_N)), -1)
        columns |= {
            "pred_cells": _list_of(patches.cell_NP, pa.int8()),
            "location_probabilities": maps.take(pa.array(kept, mask=~mapped_N)),
            **_edges("closed_", patches.closed.rectangle_N4),
            "consistency": patches.closed.residual_N,
        }
    return columns


def _edges(prefix: str, rectangle_N4: Floats) -> dict[str, Floats]:
    """Columns x1, x2, y1, y2 and size_factor, each with ``prefix``."""
    edges = dict(zip(("x1", "x2", "y1", "y2"), rectangle_N4.T, strict=True))
    return {f"{prefix}{name}": column for name, column in {**edges, "size_factor": size_factor(rectangle_N4)}.items()}


def _list_of(values_NX: NDArray[Any], kind: pa.DataType) -> pa.ListArray:
    """A list a row, all of one length. (A column of fixed-size lists with a null among them cannot be read again.)"""
    flat = pa.array(values_NX.ravel().astype(kind.to_pandas_dtype()), kind)
    starts = pa.array(np.arange(len(values_NX) + 1) * values_NX.shape[1], pa.int32())
    return pa.ListArray.from_arrays(starts, flat)
