"""How far a system may be believed: its probabilities against what turned out, before and after one temperature.

Arrays are NumPy: M probabilities, K classes (one column is the logit of yes), N samples, P photos, J bins (F of them
filled), R replicates.
A temperature above 1 says that the network is surer than it is right; it changes no decision of the likeliest class.
Intervals resample photos. The expected calibration error is a mean of absolute values: few photos alone make it larger
than 0, so it stands beside what a perfectly calibrated network with the same probabilities would show.
Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017 (arXiv 1706.04599), sections 2 and 4.2.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.metrics import Floats, Labels, PhotoBootstrap

BINS = 10
LOG_TEMPERATURE = np.log(50.0)  # temperatures from 1/50 to 50
SECTIONS = 34  # of the golden search: the last bracket is 1e-7 of the first
SIMULATED = 200  # truths drawn for the error of a network that is calibrated
SEED = 11


@dataclass(frozen=True)
class Confidences:
    """How sure of what, and whether it was so: for yes/no the probability of yes and whether it is yes, for classes the
    probability of the likeliest and whether it is the true one; the surprise -log p(truth) in nats."""

    probability_M: Floats
    is_so_M: NDArray[np.bool_]
    surprise_M: Floats


def confidences(logits_MK: Floats, truth_M: Labels, temperature: float = 1.0) -> Confidences:
    """What logits say of the truth once they were divided by ``temperature``."""
    scaled_MK = logits_MK / temperature
    if logits_MK.shape[1] == 1:
        scaled_M = scaled_MK[:, 0]
        is_yes_M = truth_M.astype(bool)
        surprise_M = np.logaddexp(0, np.where(is_yes_M, -scaled_M, scaled_M))
        return Confidences(np.exp(-np.logaddexp(0, -scaled_M)), is_yes_M, surprise_M)
    top_M = scaled_MK.max(1)
    total_M = top_M + np.log(np.exp(scaled_MK - top_M[:, None]).sum(1))
    rows = np.arange(len(truth_M))
    is_so_M = scaled_MK.argmax(1) == truth_M
    return Confidences(np.exp(top_M - total_M), is_so_M, total_M - scaled_MK[rows, truth_M])


def fit_temperature(logits_MK: Floats, truth_M: Labels, weights_M: Floats) -> float:
    """The temperature of the least mean surprise, which is convex in its reciprocal: a section search finds it.

    1.0 if there is nothing to fit on. At the bounds (1/50, 50) the data ask for more: separable, or worse than a coin.
    """
    if not len(truth_M):
        return 1.0
    golden = (5**0.5 - 1) / 2

    def cost(log_temperature: float) -> float:
        return float(confidences(logits_MK, truth_M, float(np.exp(log_temperature))).surprise_M @ weights_M)

    low, high = -LOG_TEMPERATURE, LOG_TEMPERATURE
    for _ in range(SECTIONS):
        width = golden * (high - low)
        low, high = (low, low + width) if cost(high - width) <= cost(low + width) else (high - width, high)
    return float(np.exp((low + high) / 2))


def bins_of(probability_M: Floats) -> Labels:
    """The tenth [M] that each probability lies in; 1 belongs to the last."""
    return np.clip((probability_M * BINS).astype(np.int64), 0, BINS - 1)


def expected_error(gap_RJ: Floats, weight_R: Floats) -> Floats:
    """Expected calibration error [R] from the summed weight x (probability - truth) of each bin, and all weight."""
    return np.abs(gap_RJ).sum(1) / weight_R  # type: ignore[no-any-return]


def reliability(found: Confidences, weights_M: Floats, bootstrap: PhotoBootstrap) -> dict[str, Any]:
    """Calibration error and mean surprise with intervals, the error if calibrated, and the reliability of each bin."""
    in_bin_JM = weights_M * (bins_of(found.probability_M) == np.arange(BINS)[:, None])
    gap_PJ = bootstrap.sums(in_bin_JM * (found.probability_M - found.is_so_M))
    weight_P = bootstrap.sums(weights_M[None])[:, 0]
    error = bootstrap.estimate(lambda counts_RP: expected_error(counts_RP @ gap_PJ, counts_RP @ weight_P))
    filled = np.flatnonzero(in_bin_JM.any(1))
    weight_FM = in_bin_JM[filled]
    is_so_FM = np.broadcast_to(found.is_so_M.astype(float), weight_FM.shape)
    frequencies = bootstrap.means(is_so_FM, weight_FM) if len(filled) else []
    said_F = (weight_FM @ found.probability_M) / weight_FM.sum(1)
    return {
        "calibration_error": asdict(error),
        "calibration_error_if_calibrated": error_if_calibrated(found.probability_M, weights_M),
        "surprise_nats": asdict(bootstrap.mean(found.surprise_M, weights_M)),
        "bins": [
            {"from": float(j / BINS), "to": float((j + 1) / BINS), "probability": said, "frequency": seen.value,
             "low": seen.low, "high": seen.high, "weight": float(weight_M.sum()), "count": int((weight_M > 0).sum())}
            for j, said, seen, weight_M in zip(filled.tolist(), said_F.tolist(), frequencies, weight_FM, strict=True)
        ],
    }  # fmt: skip


def error_if_calibrated(probability_M: Floats, weights_M: Floats) -> float:
    """The mean calibration error if the truth were drawn with these very probabilities, each apart from the others."""
    rng = np.random.default_rng(SEED)
    tenth_M = bins_of(probability_M)
    errors = []
    for _ in range(SIMULATED):
        gap_M = weights_M * (probability_M - (rng.random(len(probability_M)) < probability_M))
        errors.append(np.abs(np.bincount(tenth_M, gap_M, BINS)).sum() / weights_M.sum())
    return float(np.mean(errors))


def describe(
    logits_MK: Floats, truth_M: Labels, weights_M: Floats, bootstrap: PhotoBootstrap, temperature: float
) -> dict[str, Any]:
    """The calibration of test as ``evaluation.json`` has it, as the network says it and at the temperature of val."""
    described = {
        when: reliability(confidences(logits_MK, truth_M, each), weights_M, bootstrap)
        for when, each in (("before", 1.0), ("after", temperature))
    }
    return {"temperature": temperature, "temperature_fitted_on": "val", **described}


def weights_of(sample_M: Labels, weight_N: Floats) -> Floats:
    """The weight [M] of each probability: its sample's, shared among all that the sample has."""
    return weight_N[sample_M] / np.bincount(sample_M, minlength=len(weight_N))[sample_M]  # type: ignore[no-any-return]
