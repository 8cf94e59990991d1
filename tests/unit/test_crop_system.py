"""Crop detection as a system: losses, fixed samples, and judgements of answers whose scores are known."""

import json
from contextlib import nullcontext
from dataclasses import replace

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from models.crops import pictures as crop_pictures
from models.crops.geometry import closed_form
from models.crops.law import CELL_CENTRES_P2, CELLS, CROP_DRAWS, draw_rectangles, patch_labels, trivial_answers
from models.crops.spec import CropEvaluationSpec, CropLaw
from models.crops.system import CropSystem
from models.errors import ConfigError
from models.loader import PhotoBatch, Split
from models.metrics import rectangle_iou, size_factor
from models.networks import refuse_shown_otherwise
from models.recipes import RECIPES
from models.systems import Arrays, Samples

NARROW = RECIPES["crops_joint_narrow"]()
JOINT = replace(NARROW, system=replace(NARROW.system, evaluation=CropEvaluationSpec()))  # one in five is whole
PHOTOS = 40
LAW = CropLaw()


def split_of(photos: int = PHOTOS, name: str = "test", size_px: tuple[int, int] = (2, 3)) -> Split:
    """Photos without content: what is judged here are outputs."""
    names = [str(number) for number in range(photos)]
    frames = np.random.default_rng(0).integers(0, 256, (photos, *size_px, 3), np.uint8)
    return Split(name, frames, frames, ["camera"] * photos, names, [None] * photos)


def batch_of(split: Split, detail: torch.Tensor | None = None) -> PhotoBatch:
    """All photos of a split."""
    frame = torch.from_numpy(split.frames).permute(0, 3, 1, 2)
    return PhotoBatch(np.arange(len(split)), split.keys, frame, detail, [None] * len(split))


def perfect(samples: Samples) -> Arrays:
    """Outputs that are sure and right."""
    truth_N4 = samples.targets["rectangle"]
    location = 40.0 * np.eye(CELLS)[patch_labels(truth_N4)]
    return {"rectangle": truth_N4, "crop": 20.0 * (2 * samples.targets["crop"] - 1), "location": location}


def scored(judgement) -> dict[str, tuple[float, float]]:
    """Figure and baseline by name, as plain means over what counts (weights are equal within crops)."""
    return {
        each.name: (each.scores_N[each.counts_N].mean(), each.baseline_N[each.counts_N].mean())
        for each in judgement.scores
    }


@pytest.fixture(scope="module")
def system():
    """The narrow joint recipe's."""
    return CropSystem(JOINT)


def test_the_loss_is_that_of_the_paper():
    """0.15 times the sum of 16 cross-entropies, 3 times the mean squared error of four edges, 1 cross-entropy."""
    outputs = {
        "rectangle": torch.tensor([[0.1, 0.9, 0.2, 1.0]]),
        "crop": torch.tensor([0.7]),
        "location": torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(0)),
    }
    targets = {
        "rectangle": torch.tensor([[0.0, 1.0, 0.0, 1.0]]),
        "crop": torch.tensor([1.0]),
        "location": torch.arange(16)[None],
    }
    losses = CropSystem(RECIPES["crops_joint"]()).losses(outputs, targets)
    cells = -torch.log_softmax(outputs["location"], 2)[0].diagonal().sum()
    squared, call = (0.01 + 0.01 + 0.04) / 4, np.log1p(np.exp(-0.7))
    assert float(losses["total"][0]) == pytest.approx(0.15 * float(cells) + 3 * squared + call, rel=1e-5)
    assert {name: float(value[0]) for name, value in losses.items() if name != "total"} == pytest.approx(
        {"rectangle": squared, "crop": call, "location": float(cells)}, rel=1e-5
    )


@pytest.mark.parametrize("which", ["joint", "thumbnail", "patches"])
def test_a_batch_goes_through_the_network_into_a_loss(which):
    """Inputs have the shapes of ``example``, every output gets a gradient, the loss is one number a photo."""
    system = CropSystem(RECIPES[f"crops_{which}_narrow"]())
    pack = system.recipe.pack
    detail = pack.detail_width and torch.randint(
        0, 256, (2, 3, pack.detail_height, pack.detail_width), dtype=torch.uint8
    )
    batch = system.draw(batch_of(split_of(2, size_px=(128, 192)), detail), seed=0, epoch=0)
    assert {k: v.shape for k, v in batch.inputs.items()} == {k: v.shape for k, v in system.example(2).items()}
    model = system.build()
    losses = system.losses(model(**batch.inputs), batch.targets)
    losses["total"].sum().backward()
    assert losses["total"].shape == (2,)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("mean_colour", ["removed", "kept"])
def test_the_mean_colour_of_a_sample_tells_the_network_nothing(mean_colour):
    """A sample that is brighter and redder all over gets the same answers, unless the recipe shows its mean colour."""
    network = CropSystem(replace(JOINT, system=replace(JOINT.system, mean_colour=mean_colour))).build().eval()
    chance = torch.Generator().manual_seed(0)
    inputs = {name: torch.rand(like.shape, generator=chance) / 2 for name, like in CropSystem(JOINT).example(2).items()}
    tint = torch.tensor([0.4, 0.2, 0.1])[:, None, None]
    tinted = {"patches": inputs["patches"] + tint, "thumbnail": inputs["thumbnail"].clone()}
    tinted["thumbnail"][:, :3] += tint
    with torch.no_grad():
        before, after = network(**inputs), network(**tinted)
    apart = {name: float((before[name] - after[name]).abs().max()) for name in before}
    assert (max(apart.values()) < 1e-4) is (mean_colour == "removed"), apart


@pytest.mark.parametrize(
    ("system", "is_refused"),
    [
        ({"kind": "crops", "mean_colour": "removed"}, False),
        ({"kind": "crops", "mean_colour": "kept"}, True),
        ({"kind": "crops"}, True),  # of a version that showed it always
        ({"kind": "categories"}, False),
        (None, False),  # no card: nobody knows
    ],
)
def test_a_start_was_shown_what_the_network_is_shown(tmp_path, system, is_refused):
    """Weights of a run that was shown the mean colour, or does not say so, start no network that is not shown it."""
    weights = tmp_path / "checkpoint" / "epoch-1" / "weights.safetensors"
    weights.parent.mkdir(parents=True)
    weights.touch()
    if system:
        (tmp_path / "train.json").write_text(json.dumps({"recipe": {"system": system}}))
    told = pytest.raises(ConfigError, match="train it anew") if is_refused else nullcontext()
    with told:
        refuse_shown_otherwise(weights, JOINT)


def test_fixed_samples_weigh_halves_alike(system):
    """The samples of a photo weigh 1 together, half of it whole; drawn twice they are the same."""
    samples, again = system.samples(split_of()), system.samples(split_of())
    assert np.bincount(samples.photo_N, samples.weight_N) == pytest.approx(np.ones(PHOTOS))
    assert (samples.weight_N * samples.targets["crop"]).sum() == pytest.approx(PHOTOS / 2)
    assert np.array_equal(samples.targets["rectangle"], again.targets["rectangle"])
    assert np.array_equal(samples.plan.jitter_px_NP2, again.plan.jitter_px_NP2)


def test_shuffled_labels_tell_nothing_but_their_law():
    """Train and val are told the truth about another photo's sample, half of them crops; test keeps its own."""
    system = CropSystem(replace(JOINT, system=replace(JOINT.system, shuffled_labels=True)))
    val, test = system.samples(split_of(2000, "val")), system.samples(split_of(2000, "test"))
    told, true = val.targets["crop"], val.plan.targets["crop"]
    assert np.average(told, weights=val.weight_N) == pytest.approx(0.5, abs=0.03)
    assert np.cov(told, true, aweights=val.weight_N)[0, 1] == pytest.approx(0, abs=0.01)
    both = (told > 0) & (true > 0)
    sizes = size_factor(val.targets["rectangle"])[both], size_factor(val.plan.rectangle_N4)[both]
    assert np.corrcoef(*sizes)[0, 1] == pytest.approx(0, abs=0.04)
    own = val.targets["location"] == val.plan.targets["location"]
    assert own.mean() == pytest.approx(1 / CELLS, abs=0.01), "not even a patch's place in its sample tells its cell"
    assert np.array_equal(test.targets["rectangle"], test.plan.rectangle_N4)
    assert np.array_equal(test.targets["location"], test.plan.targets["location"])
    photos = batch_of(split_of(2, size_px=(128, 192)), torch.zeros(2, 3, 512, 768, dtype=torch.uint8))
    honest, other = CropSystem(JOINT).draw(photos, 0, 0), system.draw(photos, 0, 0)
    assert torch.equal(honest.inputs["patches"], other.inputs["patches"])
    assert not torch.equal(honest.targets["rectangle"], other.targets["rectangle"])


def test_perfect_answers_score_perfectly(system):
    """Sure and right answers leave no error, and rectangles from their heat-maps beat the centred one by far."""
    split = split_of()
    samples = system.samples(split)
    outputs = perfect(samples)
    found = scored(system.judge(outputs, samples, split, system.decide(outputs, samples)))
    ones, zeros = ("crop_accuracy", "rectangle_iou_crops", "rectangle_iou_half", "patch_top1"), (
        "size_factor_mae_crops", "size_factor_mae_half", "edge_mae_crops", "patch_distance", "patch_nll",
    )  # fmt: skip
    assert [found[name][0] for name in ones] == pytest.approx([1] * 4)
    assert [found[name][0] for name in zeros] == pytest.approx([0] * 5, abs=1e-6)
    assert found["closed_form_iou_crops"][0] > 0.78
    assert found["closed_form_size_factor_mae_crops"][0] < 0.08
    assert found["patch_top1_own_cell"][1] == pytest.approx(0.2 + 0.8 * 0.382, abs=0.08)  # one in five is whole


def test_trivial_answers_score_their_baselines(system):
    """Whoever gives the constant answers scores what stands as the baseline beside each figure, no more, no less."""
    split = split_of()
    samples, trivial = system.samples(split), trivial_answers(LAW)
    m, count = trivial.margin, len(samples)
    location = np.tile(np.log(trivial.cell_shares), (count, CELLS, 1))
    outputs = {
        "rectangle": np.tile([m, 1 - m, m, 1 - m], (count, 1)),
        "crop": np.full(count, -1.0),
        "location": location,
    }
    found = scored(system.judge(outputs, samples, split, {"threshold": 0.0}))
    for name in ("rectangle_iou_crops", "rectangle_iou_half", "patch_nll", "patch_top1"):
        assert found[name][0] == pytest.approx(found[name][1]), name
    assert found["crop_accuracy"] == pytest.approx((0.2, 0.5))  # one sample in five is whole; equal weights here


def test_a_decision_moves_the_call(system):
    """The threshold is chosen on val; the temperature changes probabilities, never a call."""
    samples = system.samples(split_of())
    outputs = perfect(samples) | {"crop": 3 + samples.targets["crop"]}
    decisions = system.decide(outputs, samples)
    assert 3 < decisions["threshold"] <= 4
    cold, hot = (
        system.answers(outputs, samples, split_of(), decisions | {"temperature_crop": temperature})
        for temperature in (1.0, 4.0)
    )
    assert cold["called_crop"].to_numpy(zero_copy_only=False).astype(float) == pytest.approx(samples.targets["crop"])
    assert cold["called_crop"] == hot["called_crop"]
    assert max(hot["crop_probability"].to_pylist()) == pytest.approx(1 / (1 + np.exp(-1)))


def test_predictions_read_back(system, tmp_path):
    """Cells, heat-maps of some samples and the rectangles are read back from Parquet, by pyarrow and by DuckDB."""
    split = split_of()
    samples = system.samples(split)
    judgement = system.judge(perfect(samples), samples, split, {"threshold": 0.0})
    pq.write_table(judgement.predictions, tmp_path / "predictions.parquet")
    table = pq.read_table(tmp_path / "predictions.parquet")
    assert (
        table["pred_cells"].to_pylist()
        == table["cells"].to_pylist()
        == patch_labels(samples.targets["rectangle"]).tolist()
    )
    maps = [each for each in table["location_probabilities"].to_pylist() if each is not None]
    assert len(maps) == PHOTOS
    assert all(sum(each) == pytest.approx(16, rel=1e-3) for each in maps)
    query = "select count(*), max(list_sum(location_probabilities::float[])) from read_parquet(?) where is_crop"
    with duckdb.connect() as db:
        [(count, most)] = db.execute(query, [str(tmp_path / "predictions.parquet")]).fetchall()
    assert (count, most) == (4 * PHOTOS, pytest.approx(16, rel=1e-3))


def test_pictures_are_json_and_say_what_was_judged(system):
    """Errors come with bias, accuracy by size factor and by edge, heat-maps with the true cells."""
    split = split_of()
    samples = system.samples(split)
    outputs = perfect(samples)
    x1, x2, y1, y2 = outputs["rectangle"].T
    outputs["rectangle"] = np.stack([x1, x1 + 0.9 * (x2 - x1), y1, y1 + 0.9 * (y2 - y1)], axis=1)
    pictures = json.loads(
        json.dumps(system.judge(outputs, samples, split, {"threshold": 0.0}).pictures, allow_nan=False)
    )
    errors = {each["name"]: each for each in pictures["size_factor_errors"]}["rectangle_crops"]
    assert errors["bias"]["value"] == pytest.approx(-errors["mae"]["value"])
    assert errors["mae"]["value"] == pytest.approx(0.07, abs=0.005)
    assert len(errors["values"]) == len(errors["weights"]) == 4 * PHOTOS
    tenths = [(each["from"], each["to"], each["value"]) for each in pictures["accuracy_by_size_factor"]]
    assert tenths == [(0.5, 0.6, 1), (0.6, 0.7, 1), (0.7, 0.8, 1), (0.8, 0.9, 1), (1, 1, 1)]
    assert [each["edge"] for each in pictures["accuracy_by_edge"]] == ["left", "right", "top", "bottom"]
    assert sum(each["samples"] for each in pictures["accuracy_by_edge"]) == 4 * PHOTOS
    assert len(pictures["heat_maps"]) == 8
    for drawn in pictures["heat_maps"]:
        assert np.argmax(drawn["probabilities"], axis=1).tolist() == drawn["true_cells"]
    assert [drawn["sample"] for drawn in pictures["heat_maps"]] == [1, 1, 1, 0, 1, 1, 1, 0]


@pytest.mark.parametrize("most", [20_000, 5 * PHOTOS // 2])
def test_errors_are_drawn_as_their_means_count_them(system, monkeypatch, most):
    """Drawn with their weights the errors have the bias that the caption names; where they are too many, whole photos
    and crops are left out alike, by a hash that no order of the split changes."""
    monkeypatch.setattr(crop_pictures, "MAX_ERRORS", most)
    split = split_of()
    ids = split.photo_ids[::-1]

    def drawn(of):
        samples = system.samples(of)
        outputs = perfect(samples)
        outputs["rectangle"] = np.tile([0.0, 0.8, 0.0, 0.8], (len(samples), 1))
        outputs["crop"][:] = 9.0
        found = system.judge(outputs, samples, of, {"threshold": 0.0}).pictures["size_factor_errors"]
        return {each["name"]: each for each in found}["answer"]

    errors = drawn(split)
    assert len(errors["values"]) == min(most, 5 * PHOTOS)
    assert np.isclose(errors["values"], -0.2, atol=1e-4).mean() == pytest.approx(0.2)
    if most > 5 * PHOTOS:
        bias = np.average(errors["values"], weights=errors["weights"])
        assert bias == pytest.approx(errors["bias"]["value"], abs=1e-4)
    turned = drawn(replace(split, photo_ids=ids))
    assert (turned["values"], turned["weights"]) == (errors["values"], errors["weights"])


def test_photos_as_given_are_whole_and_still(system):
    """A person's photo is looked at once, whole, without noise or jitter; every answer keeps its heat-map."""
    split = split_of(3)
    samples = system.as_given(split)
    assert samples.targets == {}
    assert not samples.plan.noise_std_N2.any()
    assert not samples.plan.jitter_px_NP2.any()
    outputs = {key: value[:3] for key, value in perfect(system.samples(split)).items()}
    answers = system.answers(outputs, samples, split, {"threshold": 0.0})
    assert answers["photo_id"].to_pylist() == ["0", "1", "2"]
    assert answers["location_probabilities"].null_count == 0


def test_patches_must_fit_into_their_picture():
    """A patch that is higher than the least intermediate picture is refused before anything is trained."""
    large = replace(JOINT.system, patches=replace(JOINT.system.patches, patch_px=500))
    with pytest.raises(ConfigError, match="patch_px must be at most"):
        CropSystem(replace(JOINT, system=large))


def exact_maps(rectangle_N4: np.ndarray) -> np.ndarray:
    """Heat-maps whose expected places are exactly those of the patches: shares of the cells around each place."""
    x1, x2, y1, y2 = rectangle_N4.T[..., None]
    axes = []
    for place in (x1 + CELL_CENTRES_P2[:, 0] * (x2 - x1), y1 + CELL_CENTRES_P2[:, 1] * (y2 - y1)):
        distance = np.abs(4 * place[..., None] - 0.5 - np.arange(4))
        axes.append(np.clip(1 - distance, 0, None))
    return (axes[1][..., :, None] * axes[0][..., None, :]).reshape(len(rectangle_N4), 16, 16)


def test_the_closed_form_solves_exact_heat_maps():
    """Where every patch expects its true place, the rectangle is the true one and nothing is left over."""
    truth = np.array([[0.2, 0.8, 0.15, 0.75], [0.1, 0.9, 0.2, 1.0], [0.1, 0.8, 0.1, 0.8]])
    truth[1] = [0.12, 0.84, 0.14, 0.86]
    found = closed_form(exact_maps(truth), 0.5)
    assert found.rectangle_N4 == pytest.approx(truth, abs=1e-9)
    assert found.residual_N == pytest.approx(0, abs=1e-7)


def test_the_closed_form_heeds_sure_patches():
    """Patches that know nothing hardly count: the rectangle stays nearer to the truth than to the middle."""
    truth = np.array([[0.2, 0.8, 0.15, 0.75]])
    maps = exact_maps(truth)
    maps[:, ::3] = 1 / CELLS
    assert closed_form(maps, 0.3).rectangle_N4 == pytest.approx(truth, abs=0.1)
    assert closed_form(np.full((1, 16, 16), 1 / CELLS), 0.3).rectangle_N4[0] == pytest.approx([0.35, 0.65, 0.35, 0.65])


def test_the_closed_form_knows_when_patches_disagree():
    """Right cells overlap the truth by four fifths and leave a small residual; random cells leave a large one."""
    rectangles, _ = draw_rectangles(
        np.random.default_rng(1).random((500, CROP_DRAWS)), replace(LAW, crop_probability=1)
    )
    right = closed_form(np.eye(CELLS)[patch_labels(rectangles)], LAW.min_size_factor)
    random = closed_form(np.eye(CELLS)[np.random.default_rng(2).integers(0, 16, (500, 16))], LAW.min_size_factor)
    assert rectangle_iou(rectangles, right.rectangle_N4).mean() > 0.79
    assert right.residual_N.max() < 0.12
    assert random.residual_N.min() > 0.15
    assert random.rectangle_N4.min() >= 0
    assert random.rectangle_N4.max() <= 1
