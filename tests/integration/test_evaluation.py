"""An evaluation of any system: chosen on val, judged on test once, written to files that other stages read."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models import evaluation
from models.comparison import compare, summarise
from models.errors import Stopped
from models.evaluation import Evaluation, evaluate
from models.loader import FrameStore, PhotoBatch, Split
from models.metrics import against_constant, auroc
from models.systems import Arrays, Batch, Judgement, Probabilities, Samples, Score

SAMPLES = 3


class Plan:
    """By how much each sample is made brighter."""

    def __init__(self, gain_N: NDArray[np.float64]) -> None:
        self.gain_N = gain_N

    def take(self, rows_B: NDArray[np.int64]) -> "Plan":
        return Plan(self.gain_N[rows_B])


class Brightness:
    """Tells whether a sample was made brighter; every other sample is."""

    def __init__(self) -> None:
        spec = SimpleNamespace(bootstrap_replicates=200, bootstrap_seed=7, response_photos=10)
        self.recipe: Any = SimpleNamespace(
            batch_size=16,
            accumulate=2,
            channels_last=False,
            precision="float32",
            system=SimpleNamespace(evaluation=spec),
        )
        self.judged: list[str] = []

    def samples(self, split: Split) -> Samples:
        photo_N, sample_N = np.tile(np.arange(len(split)), SAMPLES), np.repeat(np.arange(SAMPLES), len(split))
        bright_N = ((photo_N + sample_N) % 2).astype(float)
        weight_N = np.where(sample_N == 0, 0.5, 0.25)
        return Samples(photo_N, sample_N, weight_N, {"bright": bright_N}, Plan(20 * bright_N))

    def draw_fixed(self, photos: PhotoBatch, samples: Samples, rows_B: NDArray[np.int64]) -> Batch:
        assert samples.plan is not None
        gain_B = torch.as_tensor(samples.plan.gain_N[rows_B])
        image = photos.frame_BCHW.double() + gain_B[:, None, None, None]
        return Batch({"image": image}, {"bright": torch.as_tensor(samples.targets["bright"][rows_B])})

    def probabilities(self, outputs: Arrays, samples: Samples) -> Sequence[Probabilities]:
        truth_N = samples.targets["bright"].astype(np.int64)
        return [Probabilities("bright", "Brighter", outputs["bright"][:, None], truth_N, np.arange(len(samples)))]

    def decide(self, outputs: Arrays, samples: Samples) -> dict[str, float]:
        return {"threshold": float(np.median(outputs["bright"]))}

    def judge(self, outputs: Arrays, samples: Samples, split: Split, decisions: dict[str, float]) -> Judgement:
        self.judged.append(split.name)
        bright_N = samples.targets["bright"] > 0
        right_N = ((outputs["bright"] >= decisions["threshold"]) == bright_N).astype(float)
        half_N, everything_N = np.full(len(right_N), 0.5), np.ones(len(right_N), np.bool_)
        area = evaluation.bootstrap_of(self, samples, split).auroc(outputs["bright"], bright_N, samples.weight_N)
        return Judgement(
            [
                Score("right", "Right", "", "higher", right_N, half_N, "coin", everything_N),
                Score("bright_right", "Right if bright", "", "higher", right_N, half_N, "coin", bright_N),
            ],
            pa.table({"photo_id": [split.photo_ids[photo] for photo in samples.photo_N], "right": right_N}),
            [against_constant("auroc", "Area", "", "higher", area, 0.5, "coin")],
            {"drawn": [1, 2]},
        )

    def perturbations(self) -> dict[str, Sequence[float]]:
        return {"darkness": (0.0, 1.0), "noise": (0.5,)}

    def perturb(self, photos: PhotoBatch, name: str, strength: float) -> PhotoBatch:
        frame = photos.frame_BCHW
        return replace(photos, frame_BCHW=(frame * (1 - strength)).to(torch.uint8) if name == "darkness" else frame)


class Mean(nn.Module):
    """The mean of an image as a logit."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"bright": (image.mean((1, 2, 3)) - 110) / 2}


def store(name: str, photos: int) -> FrameStore:
    """Flat grey frames."""
    frames = np.random.default_rng(len(name)).normal(100, 6, (photos, 1, 1, 1)).clip(0, 255).astype(np.uint8)
    ids = [f"{name}-{number}" for number in range(photos)]
    split = Split(name, np.tile(frames, (1, 4, 6, 3)), None, ["camera"] * photos, ids, [None] * photos)
    return FrameStore(split, torch.device("cpu"))


def never() -> bool:
    return False


@pytest.fixture(scope="module")
def system() -> Brightness:
    return Brightness()


@pytest.fixture(scope="module")
def found(system: Brightness) -> Evaluation:
    """An evaluation of 30 photos of val and 40 of test."""
    return evaluate(Mean(), system, store("val", 30), store("test", 40), never)


def test_test_is_judged_by_what_val_decided(system: Brightness, found: Evaluation) -> None:
    """Nothing but test is judged, with the threshold of val and a temperature for each probability."""
    assert set(system.judged) == {"test"}
    assert set(found.found["decisions"]) == {"threshold", "temperature_bright"}
    val, samples = store("val", 30), system.samples(store("val", 30).split)
    outputs = evaluation.predict(Mean(), system, val, samples, system.recipe)
    assert found.found["decisions"]["threshold"] == system.decide(outputs, samples)["threshold"]
    assert (found.found["photos"], found.found["samples"], found.found["pictures"]) == (40, 120, {"drawn": [1, 2]})


def test_figures_stand_beside_baselines_with_paired_intervals(found: Evaluation) -> None:
    """Means over the samples that count, then the figures that the system made itself."""
    right, bright, area = found.found["figures"]
    scores = found.scores.to_pydict()
    assert right["value"] == pytest.approx(np.average(scores["right"], weights=scores["weight"]))
    counted = [value is not None for value in scores["bright_right"]]
    values = [value for value in scores["bright_right"] if value is not None]
    assert bright["value"] == pytest.approx(np.average(values, weights=np.array(scores["weight"])[counted]))
    assert (right["baseline"], right["difference"]) == pytest.approx((0.5, right["value"] - 0.5))
    assert right["low"] - 0.5 == pytest.approx(right["difference_low"])
    assert area["name"] == "auroc"


def test_torchmetrics_says_the_same(found: Evaluation) -> None:
    """Accuracy apart, which ours takes at the threshold of val, the second opinion is the first."""
    theirs, area = found.found["yardsticks"]["bright"], found.found["figures"][2]
    assert theirs["auroc"] == pytest.approx(area["value"], abs=1e-6)
    assert theirs["calibration_error"] == pytest.approx(
        found.found["calibration"]["bright"]["before"]["calibration_error"]["value"], abs=1e-6
    )


def test_without_torchmetrics_an_evaluation_is_the_same_but_for_its_opinion(
    system: Brightness, found: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that has torch alone measures the same figures."""
    monkeypatch.setattr(evaluation.yardsticks.importlib.util, "find_spec", lambda name: None)
    bare = evaluate(Mean(), system, store("val", 30), store("test", 40), never).found
    assert bare["yardsticks"] == {}
    assert bare["figures"] == found.found["figures"]


def test_responses_are_measured_on_the_first_samples_of_some_photos(found: Evaluation) -> None:
    """Strength 0 changes nothing; in the dark nothing is bright. Ten photos with two samples each."""
    responses = found.found["responses"]
    assert {name: [each["strength"] for each in of] for name, of in responses.items()} == {
        "darkness": [0.0, 1.0], "noise": [0.5],
    }  # fmt: skip
    seen, dark = ({each["name"]: each["value"] for each in of["figures"]} for of in responses["darkness"])
    assert seen == {each["name"]: each["value"] for each in responses["noise"][0]["figures"]}
    assert (dark["right"], dark["bright_right"]) == (0.5, 0.0)
    assert seen["right"] > 0.8


def test_the_photos_that_are_perturbed_are_a_fixed_choice(system: Brightness) -> None:
    """Ten of forty, with samples 0 and 1 that weigh alike; the same ten in whatever order the split has them."""
    test = store("test", 40)
    rows_B, few = evaluation.first_samples(system, system.samples(test.split), test)
    assert (len(rows_B), set(few.sample_N), set(few.weight_N)) == (20, {0, 1}, {0.5})
    ids = test.split.photo_ids
    turned = FrameStore(replace(test.split, photo_ids=ids[::-1]), torch.device("cpu"))
    again = evaluation.first_samples(system, system.samples(turned.split), turned)[1]
    assert {ids[photo] for photo in few.photo_N} == {ids[::-1][photo] for photo in again.photo_N}


def test_scores_carry_what_a_comparison_must_know(found: Evaluation, tmp_path: Path) -> None:
    """Written and read again they compare: labels, directions and baselines come along; a null where nothing counts."""
    evaluation.write_table(tmp_path / "scores.parquet", found.scores)
    table = pq.read_table(tmp_path / "scores.parquet")
    assert table["bright_right"].null_count == 60
    worse = table.set_column(5, table.schema.field("right"), pa.array(np.zeros(120)))
    figure = compare({"mean": {0: table}, "blind": {0: worse}})["figures"][0]
    assert (figure["label"], figure["better"], figure["baseline_label"]) == ("Right", "higher", "coin")
    assert figure["baseline"] == pytest.approx(0.5)
    assert table["bright_right_baseline"].null_count == 60
    judged = {each["name"]: each for each in found.found["figures"]}
    for each in summarise({"mean": {0: table}})["figures"]:
        (arm,), run = each["arms"], judged[each["name"]]
        for key in ("value", "difference", "beats_baseline"):
            assert arm[key] == pytest.approx(run[key])
        assert each["baseline"] == pytest.approx(run["baseline"])
    assert figure["pairs"][0]["second_is"] == "worse"


def test_a_truth_is_that_of_its_sample_alone() -> None:
    """Equal targets have equal hashes, also a machine's rounding apart; any other target, or name, has another."""
    rectangle = np.array([[0.0, 0.5, 0.25, 0.75], [0.0, 0.5, 0.25, 0.75], [0.0, 0.5, 0.25, 0.76]])
    targets = {"rectangle": rectangle, "crop": np.array([1.0, 1.0, 1.0])}
    first, second, third = evaluation.truths(targets)
    assert first == second != third
    assert evaluation.truths({"crop": targets["crop"], "rectangle": rectangle - 1e-12})[:2] == [first, second]
    assert evaluation.truths({**targets, "crop": np.zeros(3)})[0] != first
    assert evaluation.truths({"rectangles": rectangle, "crop": targets["crop"]})[0] != first


def test_an_evaluation_stops_when_it_is_told_to(system: Brightness) -> None:
    """Before the next part of the samples."""
    with pytest.raises(Stopped):
        evaluate(Mean(), system, store("val", 30), store("test", 40), lambda: True)


def test_what_is_written_is_plain_json(found: Evaluation) -> None:
    """No NumPy number hides in it."""
    assert json.loads(json.dumps(found.found)) == found.found


def test_the_area_is_that_of_all_samples(system: Brightness, found: Evaluation) -> None:
    """The outputs are in the order of the samples, batch by batch."""
    test, samples = store("test", 40), system.samples(store("test", 40).split)
    outputs = evaluation.predict(Mean(), system, test, samples, system.recipe)
    area = auroc(outputs["bright"], samples.targets["bright"] > 0, samples.weight_N[None])[0]
    assert found.found["figures"][2]["value"] == pytest.approx(float(area))
